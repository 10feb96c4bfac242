"""What a step of each method costs at Stable Diffusion 1.5's shape on a GPU: seconds, memory, share of the chip's rate.

    python -m benchmark.gpu                    every method, batches 1 to 16, 512 pixels: 8 minutes at most
    python -m benchmark.gpu --dry-run          the same walk on this CPU, all models narrow, no connection allowed
    python -m benchmark.gpu --method draft_k --method "draft_k compile=true" --batch 4

Weights are random, in the true architectures: enough for time and memory, and nothing is downloaded. Of each method and
batch a step of the trainer is timed, and the calls that it makes one by one; ``ratio`` is the one over the other's sum,
``share`` the step's operations per second over the rate of a large matrix product on the same chip. What does not fit
into memory is recorded as that, and what does not fit into the time as not measured. Writes OUT/<device>.json; the same
command again, with the same settings and versions, measures what that record lacks.
"""

from __future__ import annotations

import copy
import dataclasses
import gc
import importlib.metadata
import re
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated
from unittest import mock

import numpy as np
import torch
import typer
from accelerate import Accelerator
from rich.console import Console
from rich.table import Table

import methods

from ..training.cell import build_executor
from ..config import InputError, RunConfig, resolve, split_variant
from .cost import make_call, record_calls, seconds_of
from ..diffusion import Executor
from ..records import environment, read_json, write_json
from ..run import check_device
from ..suites import Suite, SuiteError
from ..suites.sd15 import random_weights
from ..training.trainer import Diverged, Trainer

console = Console(highlight=False, soft_wrap=True)
if not console.is_terminal:
    console.width = 120
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

WHEELS = Path(__file__).with_name("gpu_wheels.txt")
CHECKPOINTING = ("draft checkpoint=false", "alignprop checkpoint=false", "shortft checkpoint=true")
BATCHES = (1, 4, 16, 2, 8)  # in this order, so that what time leaves out is in between
ROUNDS = 2


@dataclasses.dataclass
class Bench:
    """A method ready to take steps: what ``cost`` asks of a cell."""

    config: RunConfig
    suite: Suite
    executor: Executor
    trainer: Trainer


class Models:
    """The suite's models as they were loaded, kept off the GPU: every measured method gets copies of its own there."""

    def __init__(self, suite: Suite):
        self.suite, self.unet, self.shortcut = suite, suite.pipeline.unet.to("cpu"), suite.shortcut.to("cpu")

    def _copy(self, model: torch.nn.Module) -> torch.nn.Module:
        return copy.deepcopy(model).to(self.suite.device, memory_format=torch.channels_last)

    def release(self) -> None:
        """Let go of the last method's copies, adapters and hooks."""
        self.suite.pipeline.unet, self.suite.shortcut = self.unet, self.shortcut
        gc.collect()
        torch.compiler.reset()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def bench(self, config: RunConfig) -> Bench:
        suite, settings, method = self.suite, config.settings, config.build_method()
        suite.pipeline.unet = self._copy(self.unet)
        if method.needs_shortcut:
            suite.shortcut = self._copy(self.shortcut)
        executor = build_executor(suite, settings, method.slots, method.needs_shortcut, config.seed)
        prompts, accelerator = suite.prompts("train", settings.train_prompts), Accelerator(cpu=config.device == "cpu")
        trainer = Trainer(config, suite, executor, method, suite.reward(config.reward), prompts, accelerator)
        return Bench(config, suite, executor, trainer)


def matmul_rate(device: str, precision: torch.dtype, size: int) -> float:
    """Operations per second of a large square matrix product, the best of ten."""
    a, b = (torch.randn(size, size, device=device, dtype=precision) for _ in range(2))
    return 2 * size**3 / min(seconds_of(lambda: a @ b) for _ in range(10))


def measure(bench: Bench, rounds: int, rate: float) -> dict:
    """One row: seconds, images, memory, operations of a step; the seconds of its calls alone."""
    trainer, ledger, cuda = bench.trainer, bench.executor.ledger, bench.config.device.startswith("cuda")
    next(trainer.steps())  # warm-up: the ledger measures each kind of call, kernels are chosen
    before = dataclasses.asdict(ledger)
    calls = record_calls(bench, 1)
    spent = {name: value - before[name] for name, value in dataclasses.asdict(ledger).items()}
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(rounds):
        trainer.step = 1  # the same batch and plan as was recorded
        seconds.append(seconds_of(lambda: next(trainer.steps())))
    peak = torch.cuda.max_memory_allocated() / 2**20 if cuda else None
    alone = 0.0
    for kind, count in calls.items():
        call = make_call(bench, *kind)
        call()
        alone += count * float(np.median([seconds_of(call) for _ in range(3)]))
    step = float(np.median(seconds))
    return {
        "seconds": step, "alone": alone, "ratio": step / alone, "images": spent["images"],
        "images_per_second": spent["images"] / step, "peak_mb": peak, "operations": spent["operations"],
        "share": spent["operations"] / step / rate, "forwards": spent["denoiser_forwards"],
        "backwards": spent["denoiser_backwards"], "recomputations": spent["denoiser_recomputations"],
    }  # fmt: skip


def _identity(about: dict) -> dict:
    """What rows of one record have in common."""
    return {
        **{key: about[key] for key in ("narrow", "pixels", "reward", "precision", "rank", "settings")},
        **{key: about["environment"][key] for key in ("device", "versions", "threads")},
    }


@dataclasses.dataclass
class Record:
    """What was measured (``rows``), and of what else was asked, (variant, batch): what became of it."""

    about: dict
    rows: list[dict] = dataclasses.field(default_factory=list)
    out_of_memory: list[tuple[str, int]] = dataclasses.field(default_factory=list)
    failed: list[tuple[str, int, str]] = dataclasses.field(default_factory=list)
    not_measured: list[tuple[str, int]] = dataclasses.field(default_factory=list)

    def content(self) -> dict:
        parts = dataclasses.asdict(self)
        return parts.pop("about") | parts

    def resume(self, path: Path) -> bool:
        """Go on from the record at ``path`` if there is one of the same settings, chip and versions.

        Its rate of a matrix product stays, for all shares to be of one rate; what failed is tried again.
        """
        found = read_json(path)
        if not found or _identity(found) != _identity(self.about):
            return False
        self.about = {key: found[key] for key in self.about}
        self.rows = found["rows"]
        self.out_of_memory = [tuple(place) for place in found["out_of_memory"]]
        return True


def measure_all(
    models: Models, configs: dict[tuple[str, int], RunConfig], record: Record, until: float, rounds: int,
    keep: Callable[[], None],
) -> None:  # fmt: skip
    """Fill the record, calling ``keep`` after every row.

    until: when, on the clock of ``time.perf_counter``, no more is begun that would not end.
    """
    rate = record.about["matmul_tflops"] * 1e12
    # Of a variant: the batch measured last, and what measuring it took.
    seconds = {row["variant"]: (row["batch"], row["took"]) for row in record.rows}
    done = {(row["variant"], row["batch"]) for row in record.rows} | set(record.out_of_memory)
    record.not_measured = [place for place in configs if place not in done]
    for (variant, batch), config in configs.items():
        if (variant, batch) in done:
            continue
        known, took = seconds.get(variant, (batch, 0.0))
        if time.perf_counter() + took * max(batch / known, 1) > until:
            continue
        record.not_measured.remove((variant, batch))
        if any(v == variant and b <= batch for v, b in record.out_of_memory):
            record.out_of_memory.append((variant, batch))
            continue
        begun = time.perf_counter()
        try:
            row = {"variant": variant, "batch": batch} | measure(models.bench(config), rounds, rate)
            row["took"] = time.perf_counter() - begun
        except torch.OutOfMemoryError:
            record.out_of_memory.append((variant, batch))
            console.print(f"{variant}, batch {batch}: does not fit into memory")
        except (Diverged, RuntimeError) as error:  # one method's trouble is not the others'
            line = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            record.failed.append((variant, batch, line))
            console.print(f"{variant}, batch {batch}: failed, {line}")
        else:
            record.rows.append(row)
            memory = f"  {row['peak_mb'] / 1024:.1f} GiB" if row["peak_mb"] else ""
            console.print(
                f"{variant}, batch {batch}: {row['seconds']:.3f} s a step  {row['images_per_second']:.2f} images/s"
                f"{memory}  ratio {row['ratio']:.3f}  {row['share']:.0%} of the matmul rate"
            )
        finally:
            models.release()
        seconds[variant] = (batch, time.perf_counter() - begun)
        keep()


def print_needs() -> None:
    """The packages that a machine without a registry has to be brought, and which of them are here."""
    table = Table(
        title=f"packages ({WHEELS.name} says how to bring them)", title_justify="left", show_header=False, box=None
    )
    for line in WHEELS.read_text().splitlines():
        if line and not line.startswith("#"):
            name = line.partition("==")[0]
            try:
                state = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                state = "missing"
            table.add_row(line, state)
    console.print(table)


def print_rows(record: Record) -> None:
    table = Table(
        title=f"one step, {record.about['environment']['device']}, {record.about['pixels']} pixels, random weights"
    )
    columns = {"seconds": ".3f", "images_per_second": ".2f", "peak_mb": ".0f", "ratio": ".3f", "share": ".2f"}
    for column in ("variant", "batch", *columns):
        table.add_column(column, justify="left" if column == "variant" else "right")
    for row in sorted(record.rows, key=lambda row: (row["variant"], row["batch"])):
        shown = ("" if row[name] is None else format(row[name], code) for name, code in columns.items())
        table.add_row(row["variant"], str(row["batch"]), *shown)
    console.print(table)
    for title, places in (("do not fit into memory", record.out_of_memory), ("failed", record.failed),
                          ("not measured", record.not_measured)):  # fmt: skip
        if places:
            console.print(f"{title}: " + ", ".join(f"{variant} at batch {batch}" for variant, batch, *_ in places))


@app.command()
def main(
    method: Annotated[list[str] | None, typer.Option(help="Repeat for several, options after the name; all.")] = None,
    batch: Annotated[list[int] | None, typer.Option(min=1, help="Prompts a step; repeat for several; 1 to 16.")] = None,
    reward: Annotated[str, typer.Option(help="As of benchmark.run.")] = "hps",
    set_: Annotated[list[str] | None, typer.Option("--set", help="name=value, as of benchmark.run.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cuda",
    pixels: Annotated[int, typer.Option(min=64, help="A side of the images, a multiple of 64.")] = 512,
    limit: Annotated[
        float, typer.Option(help="Seconds, drawing the weights included; what they leave out is said.")
    ] = 450.0,
    narrow: Annotated[bool, typer.Option("--narrow", help="Narrow models: proves that it works, no result.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="--narrow on the CPU, 64 pixels, batch 1, no connection allowed.")
    ] = False,
    out: Annotated[
        Path, typer.Option(help="The record goes to OUT/<device>.json, a part of it or a narrow one to another name.")
    ] = Path("results/gpu"),
) -> None:
    """Measure steps at Stable Diffusion 1.5's shape on a GPU, with random weights. Every row is kept as it comes."""
    start = time.perf_counter()
    print_needs()
    if dry_run:
        device, pixels, narrow, batch = "cpu", 64, True, [1]
    try:
        check_device(device)
        if pixels % 64:
            raise InputError(f"--pixels {pixels} is no multiple of 64")
        names = [name for name in methods.names() if ":" not in name]
        variants = method or [*names, *(v for v in CHECKPOINTING if v.split()[0] in names)]
        with tempfile.TemporaryDirectory() as folder, mock.patch.object(socket.socket, "connect", _refuse):
            configs = {}
            for size in batch or BATCHES:
                for variant in variants:
                    name, options = split_variant(variant)
                    given = [f"weights={folder}", "prompt_set=animals", f"batch={size}", *(set_ or []), *options]
                    configs[variant, size] = resolve("sd15", name, reward, 0, "1000000step", device, None, given)
            first = next(iter(configs.values()))
            wanted = [name for name in first.build_suite().reward_weights(reward) if name in random_weights.REWARDS]
            console.print("drawing random weights")
            random_weights.build(Path(folder), wanted, narrow, pixels)
            models = Models(first.load_suite())
            rate = matmul_rate(device, models.suite.precision, 8192 if device.startswith("cuda") else 1024)
            record = Record({
                "environment": environment(device), "narrow": narrow, "pixels": pixels, "reward": reward,
                "precision": first.settings.precision, "rank": first.settings.rank, "settings": set_ or [],
                "matmul_tflops": rate / 1e12,
            })  # fmt: skip
            slug = re.sub(r"\W+", "-", record.about["environment"]["device"]).strip("-").lower()
            part = "-part" if method or batch or set_ else ""
            path = out / f"{slug}{'-narrow' * narrow}{part}.json"

            if not dry_run and record.resume(path):
                console.print(f"going on from {path}, {len(record.rows)} rows")

            def keep() -> None:
                if not dry_run:
                    write_json(path, record.content())

            measure_all(models, configs, record, start + limit, 1 if dry_run else ROUNDS, keep)
            keep()
    except (InputError, SuiteError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    print_rows(record)
    console.print("dry run: nothing was downloaded, nothing is written" if dry_run else f"written to {path}")


def _refuse(self, address) -> None:
    raise InputError(f"something connects to {address}; everything was meant to be local")


if __name__ == "__main__":
    app()
