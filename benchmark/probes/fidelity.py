"""How well the few-step model keeps to the base chain: the error of its jumps and the rewards of its images.

One shortcut call, and one guided DDIM jump of the base model (the naive control), over each stretch that ShortFT skips,
both from the base chain's own latents, and chains from noise to image beside the base chain from the same noise:

    shortcut x4 / naive x4   four jumps and nothing else
    shortft / shortft naive  the chain that ShortFT trains on in its first stage, without its LoRAs
    coarse                   the control draft_coarse: large DDIM steps of the base model

The error of an image is the root mean square of the difference to the base chain's latents over that of the base
chain's latents themselves. Rewards are compared image by image: the mean change, which is bias, and the mean absolute
change. Intervals are over prompts (claim C5, question Q1).
"""

import numpy as np
import pandas as pd
import torch
from rich.progress import track

import methods

from ..cli import console
from ..diffusion import Plan, sampler_plan
from ..records import SAMPLES
from ..statistics import bootstrap_mean, bootstrap_ratio
from ..training.evaluation import NOISE_SEED, noise, score_images
from ..training.workbench import Workbench


def without_slots(plan: Plan) -> Plan:
    """The same chain, of the untuned models."""
    return tuple(hop.untuned() for hop in plan)


def chains(timesteps: list[int]) -> dict[str, Plan]:
    """Chains from noise to image that stand in for the base chain."""
    shortft, naive = (methods.find("shortft")(shortcut=kind) for kind in ("few-step", "naive"))
    four = methods.find("shortft")(policy="shortcut").sampler_plan(timesteps)
    plans = {
        "shortcut x4": four,
        "naive x4": tuple(hop.untuned(model="base") for hop in four),
        "shortft": shortft.stage_plan(1, timesteps),
        "shortft naive": naive.stage_plan(1, timesteps),
        "coarse": methods.find("draft_coarse")().plan(timesteps, torch.Generator(), 0.0),
    }
    return {name: without_slots(plan) for name, plan in plans.items()}


def stretches(timesteps: list[int]) -> list[tuple[int, int]]:
    """What ShortFT's shortcut carries latents over: (from, to)."""
    plan = methods.find("shortft")().stage_plan(1, timesteps)
    return [(hop.t, hop.s) for hop in plan if hop.model == "shortcut"]


def errors(found: torch.Tensor, chain: torch.Tensor) -> np.ndarray:
    """Relative error of each image's latents (B, C, h, w), (B,)."""
    difference, size = ((x.flatten(1).square().mean(1)).sqrt() for x in (found - chain, chain))
    return (difference / size).numpy()


@torch.no_grad()
def measure(
    bench: Workbench, prompts: list[str]
) -> tuple[dict[str, np.ndarray], pd.DataFrame, dict[str, torch.Tensor]]:
    """Errors (prompts,) by what was compared; the scores of the images of every chain, one row an image; and the first
    of these images (SAMPLES or fewer, 3, H, W) by chain.
    """
    executor, suite = bench.executor, bench.suite
    timesteps, found, scores, pictures = executor.timesteps, {}, [], {}
    base, jumps, plans = without_slots(sampler_plan(timesteps)), stretches(timesteps), chains(timesteps)
    start = noise((len(prompts), *executor.latent_shape), NOISE_SEED)
    parts = list(range(0, len(prompts), suite.chunk))
    for begin in track(parts, description="chains", console=console):
        part = prompts[begin : begin + suite.chunk]
        embeds, x = suite.embed(part), start[begin : begin + suite.chunk].to(suite.device)
        states = {timesteps[0]: x}
        for hop in base:
            states[hop.s] = x = executor.run((hop,), x, embeds)
        ends = {"base": x}
        for t, s in jumps:
            for label, model in (("shortcut", "shortcut"), ("naive", "base")):
                (hop,) = (h for h in plans["shortft"] if (h.t, h.s) == (t, s))
                jumped = executor.run((hop.untuned(model=model),), states[t], embeds)
                found.setdefault(f"{label} {t}->{s}", []).append(errors(jumped.cpu(), states[s].cpu()))
        for name, plan in plans.items():
            ends[name] = executor.run(plan, states[timesteps[0]], embeds)
            found.setdefault(name, []).append(errors(ends[name].cpu(), ends["base"].cpu()))
        for name, latents in ends.items():
            images = executor.decode(latents)
            pictures.setdefault(name, images[:SAMPLES].cpu())
            columns = score_images(suite, suite.scored_rewards(), images, part)
            scores.append(pd.DataFrame({"chain": name, "prompt": part} | columns))
    found = {name: np.concatenate(of, dtype=float) for name, of in found.items()}
    return found, pd.concat(scores, ignore_index=True), pictures


def jump_table(found: dict[str, np.ndarray], jumps: list[tuple[int, int]]) -> pd.DataFrame:
    """Errors of shortcut and naive jump over each stretch and end to end, and their ratio."""
    pairs = {f"{t}->{s}": (f"shortcut {t}->{s}", f"naive {t}->{s}") for t, s in jumps}
    pairs |= {"four jumps": ("shortcut x4", "naive x4"), "ShortFT's chain": ("shortft", "shortft naive")}
    rows = []
    for name, (shortcut, naive) in pairs.items():
        row = {"stretch": name} | bootstrap_mean(found[shortcut]).row("shortcut")
        row |= bootstrap_mean(found[naive]).row("naive") | bootstrap_ratio(found[shortcut], found[naive]).row("ratio")
        rows.append(row)
    return pd.DataFrame(rows)


def image_table(found: dict[str, np.ndarray], scores: pd.DataFrame) -> pd.DataFrame:
    """Of every chain and reward: the base chain's mean, the mean change from it and the mean absolute change."""
    base, rows = scores[scores.chain == "base"], []
    for name, part in scores.groupby("chain", sort=False):
        error = found[name].mean() if name in found else 0.0
        for reward in scores.columns[2:]:
            change = part[reward].to_numpy() - base[reward].to_numpy()
            row = {"chain": name, "error": error, "reward": reward, "mean": part[reward].mean()}
            row |= bootstrap_mean(change).row("change") | bootstrap_mean(np.abs(change)).row("absolute_change")
            rows.append(row)
    return pd.DataFrame(rows)
