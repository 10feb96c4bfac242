"""At which steps of the sampler a tuned LoRA earns its reward: the same weights, switched on at some steps alone.

    python -m benchmark.acting --reward hps

ShortFT's LoRAs act at 15 of the sampler's 50 steps, those of every other method at all of them. This tells how much of
a LoRA's gain is left where it may act at those 15 steps only, at the other 35, or in one stretch of the chain. It reads
the LoRAs that ``benchmark.loras`` collected, so a fresh clone can repeat it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

import methods
from methods import Method

from .. import records
from ..training.cell import build_executor
from ..config import InputError, resolve
from ..diffusion import Plan, sampler_plan
from ..training.evaluation import score
from ..records.profile import Profile, ProfileError
from ..records.protocol import PROTOCOL_VERSION
from ..statistics import crossed_interval
from ..suites import SuiteError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = Console(highlight=False)
if not console.is_terminal:
    console.width = 170


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


def print_table(frame: pd.DataFrame, title: str) -> None:
    table = Table(title=title)
    columns = list(dict.fromkeys(frame.steps))
    for column in ("LoRA of", *columns):
        table.add_column(column, justify="left" if column == "LoRA of" else "right")
    for variant, rows in frame.groupby("variant", sort=False):
        rows = rows.set_index("steps")
        table.add_row(variant, *(f"{rows.gain.get(name, np.nan):+.3f}" for name in columns))
    console.print(table)


@app.command()
def main(
    params: Annotated[Path, typer.Option(help="The profile that the runs are cells of.")] = Path("params.yaml"),
    suite: Annotated[str, typer.Option(help="As of benchmark.run.")] = "mini",
    reward: Annotated[str, typer.Option(help="As of benchmark.run.")] = "hps",
    prompts: Annotated[int, typer.Option(min=8, help="How many held-out prompts.")] = 256,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    out: Annotated[Path, typer.Option(help="LoRAs are in OUT/loras, figures go to OUT/<suite>/acting.")] = Path(
        "results"
    ),
) -> None:
    """Measure a LoRA's gain with the LoRA on at some steps of the sampler alone."""
    name = records.file_name(reward)
    try:
        profile = Profile.read(params)
        found = {variant: out / "loras" / suite / name / variant for variant in profile.tuned(reward)}
        found = {variant: folder for variant, folder in found.items() if folder.is_dir()}
        if not found:
            raise InputError(f"no LoRA in {out / 'loras' / suite / name}; benchmark.loras collects them from runs")
        configs = {
            variant: resolve(suite, profile.method(variant), reward, 0, None, device, None, profile.overrides(variant))
            for variant in found
        }
        next(iter(configs.values())).build_suite().check(reward)
    except (InputError, ProfileError, SuiteError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    rows, bases = [], {}
    for variant, config in configs.items():
        method, loaded = config.build_method(), config.load_suite()
        executor = build_executor(loaded, config.settings, method.slots, False, 0)
        timesteps = executor.timesteps
        if any(hop.model != "base" for hop in method.sampler_plan(timesteps)):
            console.print(f"{variant} samples with the few-step model; it has no such steps")
            continue
        executor.policy.load_lora(found[variant])
        texts = loaded.prompts("test", prompts)
        untuned = acting_at(method, timesteps, set())
        if (executor.guidance_scale, untuned) not in bases:  # the same for all LoRAs of a sampler
            bases[executor.guidance_scale, untuned] = score(executor, untuned, loaded, [reward], texts)[1]
        scores = {untuned: bases[executor.guidance_scale, untuned]}
        for part, steps in track(parts(timesteps).items(), description=variant, console=console):
            plan = acting_at(method, timesteps, steps)
            if plan not in scores:  # ShortFT's own steps are all of its steps
                scores[plan] = score(executor, plan, loaded, [reward], texts)[1]
            row = {"variant": variant, "steps": part}
            for column, key in {"gain": reward, "oracle": "oracle"}.items():
                if key in scores[plan]:
                    gain = crossed_interval(np.subtract(scores[plan][key], scores[untuned][key])[None])
                    row |= {column: gain.value, f"{column}_low": gain.low, f"{column}_high": gain.high}
            rows.append(row)
        frame = pd.DataFrame(rows)
        records.write_text(out / suite / "acting" / f"{name}.csv", frame.to_csv(index=False, float_format="%.6g"))
    if not rows:
        raise typer.Exit(1)
    settings = {"protocol": PROTOCOL_VERSION, "prompts": prompts, "random_weights": loaded.random_weights,
                "weights": loaded.fingerprint(False), **records.environment(device)}  # fmt: skip
    records.write_json(out / suite / "acting" / f"{name}.json", settings)
    print_table(frame, f"gain of {reward} on {prompts} held-out prompts with the LoRA on at these steps, suite {suite}")
    console.print(f"written to {out / suite / 'acting'}")


if __name__ == "__main__":
    app()
