"""At which steps of the sampler a tuned LoRA earns its reward: the same weights, switched on at some steps alone.

ShortFT's LoRAs act at 15 of the sampler's 50 steps, those of every other method at all of them. This tells how much of
a LoRA's gain is left where it may act at those 15 steps only, at the other 35, or in one stretch of the chain.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rich.progress import track

import methods
from methods import Method

from ..cli import console
from ..config import RunConfig
from ..diffusion import Plan, sampler_plan
from ..statistics import crossed_interval
from ..training.evaluation import score
from ..training.workbench import Workbench


def parts(timesteps: list[int]) -> dict[str, set[int]]:
    """Sets of the sampler's timesteps, by what they are called."""
    shortft = set(methods.find("shortft")().bearers(timesteps))
    stretches = {"1-12": (0, 12), "13-24": (12, 24), "25-36": (24, 36), "37-49": (36, 49), "50": (49, 50)}
    return {
        "all 50": set(timesteps),
        "shortft's 15": shortft,
        "the other 35": set(timesteps) - shortft,
        **{name: set(timesteps[begin:end]) for name, (begin, end) in stretches.items()},
    }


def acting_at(method: Method, timesteps: list[int], steps: set[int]) -> Plan:
    """The method's sampler with its slots on at ``steps`` alone."""
    return sampler_plan(timesteps, lambda t: method.slots_at(t, timesteps) if t in steps else ())


def measure(configs: dict[str, RunConfig], loras: dict[str, Path], prompts: int) -> Iterator[dict]:
    """A row for every variant and set of steps: the gain with its LoRA on at these alone, and the oracle's change.

    Variants that sample with the few-step model have no such steps: their row has the variant alone.
    """
    bases = {}
    for variant, config in configs.items():
        bench = Workbench(config, shortcut=False)
        method, executor, reward = bench.method, bench.executor, config.reward
        timesteps = executor.timesteps
        if any(hop.model != "base" for hop in method.sampler_plan(timesteps)):
            yield {"variant": variant}
            continue
        bench.policy.load_lora(loras[variant])
        texts = bench.suite.prompts("test", prompts)
        untuned = acting_at(method, timesteps, set())
        if (executor.guidance_scale, untuned) not in bases:  # the same for all LoRAs of a sampler
            bases[executor.guidance_scale, untuned] = score(bench, untuned, [reward], texts)[1]
        scores = {untuned: bases[executor.guidance_scale, untuned]}
        for part, steps in track(parts(timesteps).items(), description=variant, console=console):
            plan = acting_at(method, timesteps, steps)
            if plan not in scores:  # ShortFT's own steps are all of its steps
                scores[plan] = score(bench, plan, [reward], texts)[1]
            row = {"variant": variant, "steps": part}
            for column, key in {"gain": reward, "oracle": "oracle"}.items():
                if key in scores[plan]:
                    gain = crossed_interval(np.subtract(scores[plan][key], scores[untuned][key])[None])
                    row |= {column: gain.value, f"{column}_low": gain.low, f"{column}_high": gain.high}
            yield row
