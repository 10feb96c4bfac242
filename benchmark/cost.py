"""What a step of every method costs, beside the denoiser, decoder and reward calls that it needs.

    python -m benchmark.cost                         every method, suite mini, batch 8
    python -m benchmark.cost --method draft --method "draft checkpoint=false"

Denoiser calls are counted per image, twice with guidance; ShortFT's step is one of its first stage. Each method runs in
a process of its own, so that its peak memory is its own. Run it alone on the machine. What is measured, and how:
``benchmark.probes.cost``.
"""

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import pandas as pd
import torch
from rich.progress import track
from typer import Option

import methods

from .cli import Device, Overrides, RewardName, SuiteName, Variants, command, console, show
from .config import resolve, split_variant
from .probes.cost import measure
from .records import environment, write_json
from .records.profile import Profile
from .training.workbench import Workbench

FORMATS = dict.fromkeys(("forwards", "backwards", "recomputations", "peak_mb", "step_mb"), ".0f")
FORMATS |= dict.fromkeys(("seconds", "alone", "ratio", "slots", "switching"), ".3f") | {"books": ".4f"}


@command
def main(
    method: Variants = None,
    reward: RewardName = "hps",
    suite: SuiteName = "mini",
    set_: Overrides = None,
    device: Device = "cpu",
    steps: Annotated[int, Option(min=1, help="Optimiser steps per round.")] = 2,
    rounds: Annotated[int, Option(min=1, help="Rounds; the median counts.")] = 5,
    params: Annotated[Path | None, Option(help="A profile: its settings, and its methods if none is named.")] = None,
    out: Annotated[Path | None, Option(help="Also write the numbers to this JSON file.")] = None,
    inside: Annotated[bool, Option("--inside", hidden=True)] = False,
) -> int:
    """Time a step of each method against its calls."""
    variants, overrides = {}, list(set_ or [])
    if params is not None:
        profile = Profile.read(params)
        overrides = [*profile.overrides(""), *overrides]
        method, steps, rounds = method or profile.cost.methods, profile.cost.steps, profile.cost.rounds
    for variant in method or methods.names():
        name, options = split_variant(variant)
        variants[variant] = resolve(suite, name, reward, 0, "1000000step", device, None, [*overrides, *options])
    if inside:
        (config,) = variants.values()
        print(json.dumps(measure(Workbench(config), steps, rounds)))
        return 0
    found = {}
    for variant in track(variants, description="methods", console=console):
        line = [sys.executable, "-m", "benchmark.cost", "--inside", "--method", variant, "--reward", reward]
        line += ["--suite", suite, "--device", device, "--steps", str(steps), "--rounds", str(rounds)]
        line += itertools.chain.from_iterable(("--set", s) for s in overrides)
        result = subprocess.run(line, capture_output=True, text=True, check=False)
        if result.returncode:
            print(f"error: {variant}: {result.stderr.strip().splitlines()[-1]}", file=sys.stderr)
            return 1
        found[variant] = json.loads(result.stdout.splitlines()[-1])
    rows = pd.DataFrame([{"method": name, **{n: row[n] for n in FORMATS}} for name, row in found.items()])
    show(f"one optimiser step, suite {suite}, {reward}, {device}, {torch.get_num_threads()} threads", rows, FORMATS)
    if out:
        write_json(out, {"environment": environment(device), "suite": suite, "reward": reward, "methods": found})
    return 0


if __name__ == "__main__":
    main()
