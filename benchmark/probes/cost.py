"""What a step of every method costs, beside the denoiser, decoder and reward calls that it needs.

    python -m benchmark.cost                         every method, suite mini, batch 8
    python -m benchmark.cost --method draft --method "draft checkpoint=false"

Denoiser calls are counted per image, twice with guidance; ShortFT's step is one of its first stage.
Each method runs in a process of its own, so that its peak memory is its own. There, steps of the trainer and the calls
that one such step makes, one by one and alone, are timed in turns; the ratio of the two is our overhead. `step_mb` is
what the first step adds to the memory of the loaded models. `slots` is the time of denoiser calls with all LoRA slots
on, `switching` of calls that switch slots each time, over calls with none; `books` the share of a step that ledger and
log take. Run it alone on the machine.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

import methods

from ..training.cell import Cell
from ..config import InputError, resolve, split_variant
from ..records.profile import Profile, ProfileError
from ..records import environment, peak_memory_mb, write_json
from ..suites import SuiteError

console = Console(highlight=False)
if not console.is_terminal:
    console.width = 150
app = typer.Typer(add_completion=False)


def record_calls(cell: Cell, steps: int) -> collections.Counter:
    """How often ``steps`` optimiser steps make each kind of call: (part, images, key of the ledger, backward)."""
    ledger, calls = cell.executor.ledger, collections.Counter()
    enter = ledger.call

    def call(part, images, key, cost, backward=False, recomputed=False):
        calls[part, images, key, backward] += 1
        if recomputed:
            calls[part, images, (*key[:2], False, False), False] += 1
        enter(part, images, key, cost, backward, recomputed)

    ledger.call = call
    collections.deque(itertools.islice(cell.trainer.steps(), steps), maxlen=0)
    del ledger.call
    return calls


def make_call(cell: Cell, part: str, images: int, key, backward: bool):
    """A function that makes one such call alone, backward pass included."""
    executor, suite, batch = cell.executor, cell.suite, cell.trainer.batch()
    size = executor.policy.unet.config.sample_size
    latents = torch.randn((images, executor.policy.unet.config.in_channels, size, size), device=suite.device)
    prompts, vae = list(itertools.islice(itertools.cycle(batch.prompts), images)), suite.pipeline.vae
    if part == "denoiser":
        model, slots, _, attached = key
        merged = executor.policy.weights(executor.policy.slots[:slots], model)
        given = {name: weight.detach().requires_grad_(backward) for name, weight in merged.items()}
        embeds = suite.embed(prompts)
        inputs = [*given.values()] * backward + [latents.requires_grad_()] * attached

        def forward():
            return executor.policy.call(model, latents, 501, embeds, given)
    elif part == "decoder":
        given = latents.to(vae.dtype).requires_grad_(backward)
        inputs = [given] * backward

        def forward():
            return vae.decode(given / 0.9, return_dict=False)[0]
    else:
        with torch.no_grad():
            pixels = vae.decode(latents.to(vae.dtype), return_dict=False)[0].float().clamp(-1, 1) / 2 + 0.5
        pixels.requires_grad_(backward)
        inputs = [pixels] * backward

        def forward():
            return cell.trainer.reward.score(pixels, prompts)

    def run() -> None:
        with torch.set_grad_enabled(backward):
            result = forward()
            if backward:
                torch.autograd.grad(result.sum(), inputs, allow_unused=True)

    return run


def seconds_of(run, wait: bool = True) -> float:
    """Seconds that ``run()`` takes; ``wait``: for the device to be done too."""
    wait = wait and torch.cuda.is_available()
    if wait:
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if wait:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def bookkeeping(cell: Cell) -> float:
    """Share of a step's seconds that its entries in ledger and log take."""
    ledger, spent = cell.executor.ledger, [0.0]
    enter = ledger.call

    def call(*arguments, **options):
        spent[0] += seconds_of(lambda: enter(*arguments, **options), wait=False)

    ledger.call = call
    start = time.perf_counter()
    row = next(cell.trainer.steps())
    whole = time.perf_counter() - start
    del ledger.call
    spent[0] += seconds_of(lambda: cell.accelerator.log(row, step=row["step"]), wait=False)
    return spent[0] / whole


def measure(cell: Cell, steps: int, rounds: int) -> dict[str, float]:
    """Cost of one optimiser step: calls, seconds, seconds of its calls alone, peak memory."""
    trainer, ledger = cell.trainer, cell.executor.ledger
    idle = peak_memory_mb(cell.config.device)
    next(trainer.steps())  # warm-up: the ledger measures each kind of call once
    step_mb = peak_memory_mb(cell.config.device) - idle
    before = dataclasses.asdict(ledger)
    calls = record_calls(cell, steps)
    spent = {name: (value - before[name]) / steps for name, value in dataclasses.asdict(ledger).items()}
    per_step = {name: spent[f"denoiser_{name}"] for name in ("forwards", "backwards", "recomputations")}
    alone = {kind: make_call(cell, *kind) for kind in calls}
    whole, parts = [], []
    for run in alone.values():
        run()
    for _ in range(rounds):  # in turns, so that a machine that slows down slows both
        trainer.step = 1  # the same batches, and so the same random plans, as were recorded
        whole.append(seconds_of(lambda: collections.deque(itertools.islice(trainer.steps(), steps), maxlen=0)) / steps)
        parts.append(sum(seconds_of(alone[kind]) for kind, count in calls.items() for _ in range(count)) / steps)
    return (
        per_step
        | {
            "operations": spent["operations"],
            "seconds": float(np.median(whole)),
            "seconds_low": float(min(whole)),
            "seconds_high": float(max(whole)),
            "alone": float(np.median(parts)),
            "ratio": float(np.median(np.array(whole) / np.array(parts))),
            "peak_mb": peak_memory_mb(cell.config.device),
            "step_mb": step_mb,
            "books": bookkeeping(cell),
        }
        | slot_ratios(cell, rounds)
    )


@torch.no_grad()
def slot_ratios(cell: Cell, rounds: int, calls: int = 12) -> dict[str, float]:
    """Seconds of guided calls with all slots on, and of calls that switch slots every time, over calls with none on."""
    executor, batch = cell.executor, cell.trainer.batch()
    policy = executor.policy
    sets = [policy.slots[:count] for count in range(len(policy.slots) + 1)]
    orders = {"off": [()], "slots": [policy.slots], "switching": [sets[0], *sets[:0:-1]]}

    def make(order: list[tuple[int, ...]]) -> None:
        for slots, _ in zip(itertools.cycle(order), range(calls), strict=False):
            weights = policy.weights(slots)
            executor.guided("base", batch.latents, 501, batch.prompt_embeds, weights, executor.guidance_scale)

    make(sets)  # every set is merged once, as in an optimiser step
    seconds = {name: [] for name in orders}
    for _ in range(3 * rounds):
        for name, order in orders.items():
            seconds[name].append(seconds_of(lambda order=order: make(order)))
    off = np.array(seconds.pop("off"))
    return {name: float(np.median(np.array(values) / off)) for name, values in seconds.items()}


@app.command()
def main(
    method: Annotated[list[str] | None, typer.Option(help="Repeat for several, options after the name; all.")] = None,
    reward: Annotated[str, typer.Option(help="As of benchmark.run.")] = "hps",
    suite: Annotated[str, typer.Option(help="As of benchmark.run.")] = "mini",
    set_: Annotated[list[str] | None, typer.Option("--set", help="name=value, as of benchmark.run.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps per round.")] = 2,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; the median counts.")] = 5,
    params: Annotated[
        Path | None,
        typer.Option(help="A profile: its methods, settings, steps and rounds, unless --method names some."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Also write the figures to this JSON file.")] = None,
    inside: Annotated[bool, typer.Option("--inside", hidden=True)] = False,
) -> None:
    """Time a step of each method against its calls."""
    try:
        variants, overrides = {}, list(set_ or [])
        if params is not None:
            profile = Profile.read(params)
            overrides = [*profile.overrides(""), *overrides]
            method, steps, rounds = method or profile.cost.methods, profile.cost.steps, profile.cost.rounds
        for variant in method or methods.names():
            name, options = split_variant(variant)
            variants[variant] = resolve(suite, name, reward, 0, "1000000step", device, None, [*overrides, *options])
        if inside:
            with tempfile.TemporaryDirectory() as folder:
                (config,) = variants.values()
                cell = Cell(config, Path(folder), Path(folder), Console(stderr=True))
                print(json.dumps(measure(cell, steps, rounds)))
            return
    except (InputError, SuiteError, ProfileError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    figures = {}
    for variant in track(variants, description="methods", console=console):
        line = [sys.executable, "-m", "benchmark.cost", "--inside", "--method", variant, "--reward", reward,
                "--suite", suite, "--device", device, "--steps", str(steps), "--rounds", str(rounds),
                *itertools.chain.from_iterable(("--set", s) for s in overrides)]  # fmt: skip
        result = subprocess.run(line, capture_output=True, text=True, check=False)
        if result.returncode:
            print(f"error: {variant}: {result.stderr.strip().splitlines()[-1]}", file=sys.stderr)
            raise typer.Exit(1)
        figures[variant] = json.loads(result.stdout.splitlines()[-1])
    table = Table(title=f"one optimiser step, suite {suite}, {reward}, {device}, {torch.get_num_threads()} threads")
    formats = {
        "forwards": ".0f", "backwards": ".0f", "recomputations": ".0f",
        "seconds": ".3f", "alone": ".3f", "ratio": ".3f", "peak_mb": ".0f", "step_mb": ".0f",
        "books": ".4f", "slots": ".3f", "switching": ".3f",
    }  # fmt: skip
    for column in ("method", *formats):
        table.add_column(column, justify="left" if column == "method" else "right")
    for name, row in figures.items():
        table.add_row(name, *(format(row[column], code) for column, code in formats.items()))
    console.print(table)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_json(out, {"environment": environment(device), "suite": suite, "reward": reward, "methods": figures})


if __name__ == "__main__":
    app()
