"""What a step of each method costs at Stable Diffusion 1.5's shape on a GPU: seconds, memory, share of the chip's rate.

    python -m benchmark.gpu                    every method, batches 1 to 16, 512 pixels: 8 minutes at most
    python -m benchmark.gpu --dry-run          the same walk on this CPU, all models narrow, no connection allowed
    python -m benchmark.gpu --method draft_k --method "draft_k compile=true" --batch 4

What does not fit into memory is recorded as that, and what does not fit into the time as not measured. The same command
again, with the same settings and versions, measures what its record lacks. What is measured: ``benchmark.probes.gpu``.
"""

import importlib.metadata
import itertools
import re
import socket
import tempfile
import time
from pathlib import Path
from typing import Annotated
from unittest import mock

import pandas as pd
from typer import Option

import methods

from .cli import Device, Overrides, RewardName, Variants, command, console, show
from .config import check_device, resolve, split_variant
from .errors import InputError
from .probes.gpu import BATCHES, CHECKPOINTING, ROUNDS, Models, Record, matmul_rate, measure_all
from .records import environment
from .suites.sd15 import random_weights

WHEELS = Path(__file__).parent / "probes/gpu_wheels.txt"


def print_needs() -> None:
    """The packages that a machine without a registry has to be brought, and which of them are here."""

    def version(name: str) -> str:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return "missing"

    lines = [line for line in WHEELS.read_text().splitlines() if line and not line.startswith("#")]
    rows = pd.DataFrame({"package": lines, "here": [version(line.partition("==")[0]) for line in lines]})
    show(f"packages ({WHEELS.name} says how to bring them)", rows, head=False)


def print_rows(record: Record) -> None:
    about, formats = record.about, {"seconds": ".3f", "images_per_second": ".2f", "peak_mb": ".0f"}
    formats |= {"ratio": ".3f", "share": ".2f"}
    rows = pd.DataFrame(record.rows, columns=["variant", "batch", *formats]).sort_values(["variant", "batch"])
    show(f"one step, {about['environment']['device']}, {about['pixels']} pixels, random weights", rows, formats)
    titles = {"do not fit into memory": record.out_of_memory, "failed": record.failed}
    for title, places in (titles | {"not measured": record.not_measured}).items():
        if places:
            console.print(f"{title}: " + ", ".join(f"{variant} at batch {batch}" for variant, batch, *_ in places))


def _refuse(self, address) -> None:
    raise InputError(f"something connects to {address}; everything was meant to be local")


@command
def main(
    method: Variants = None,
    batch: Annotated[list[int] | None, Option(min=1, help="Prompts a step; repeat for several; 1 to 16.")] = None,
    reward: RewardName = "hps",
    set_: Overrides = None,
    device: Device = "cuda",
    pixels: Annotated[int, Option(min=64, help="A side of the images, a multiple of 64.")] = 512,
    limit: Annotated[float, Option(help="Seconds, with drawing the weights; what they leave out is said.")] = 450.0,
    narrow: Annotated[bool, Option("--narrow", help="Narrow models: proves that it works, no result.")] = False,
    dry_run: Annotated[bool, Option("--dry-run", help="--narrow on the CPU, 64 pixels, batch 1, no network.")] = False,
    out: Annotated[Path, Option(help="To OUT/<device>.json, a part to another name.")] = Path("results/gpu"),
) -> None:
    """Measure steps at Stable Diffusion 1.5's shape on a GPU, with random weights. Every row is kept as it comes."""
    start = time.perf_counter()
    print_needs()
    if dry_run:
        device, pixels, narrow, batch = "cpu", 64, True, [1]
    check_device(device)
    if pixels % 64:
        raise InputError(f"--pixels {pixels} is no multiple of 64")
    names = [name for name in methods.names() if ":" not in name]
    variants = method or [*names, *(v for v in CHECKPOINTING if v.split()[0] in names)]
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(socket.socket, "connect", _refuse):
        configs, local = {}, [f"weights={folder}", "prompt_set=animals"]
        for size, variant in itertools.product(batch or BATCHES, variants):
            name, options = split_variant(variant)
            given = [*local, f"batch={size}", *(set_ or []), *options]
            configs[variant, size] = resolve("sd15", name, reward, 0, "1000000step", device, None, given)
        first = next(iter(configs.values()))
        wanted = [name for name in first.build_suite().reward_weights(reward) if name in random_weights.REWARDS]
        console.print("drawing random weights")
        random_weights.build(Path(folder), wanted, narrow, pixels)
        models = Models(first.load_suite())
        rate = matmul_rate(device, models.suite.precision, 8192 if device.startswith("cuda") else 1024)
        about = {"environment": environment(device), "narrow": narrow, "pixels": pixels, "reward": reward}
        about |= {"precision": first.settings.precision, "rank": first.settings.rank, "settings": set_ or []}
        slug = re.sub(r"\W+", "-", about["environment"]["device"]).strip("-").lower()
        part = "-part" if method or batch or set_ else ""
        path = None if dry_run else out / f"{slug}{'-narrow' * narrow}{part}.json"
        record = Record(path, about | {"matmul_tflops": rate / 1e12})
        if record.resume():
            console.print(f"going on from {path}, {len(record.rows)} rows")
        measure_all(models, configs, record, start + limit, 1 if dry_run else ROUNDS)
    print_rows(record)
    console.print("dry run: nothing was downloaded, nothing is written" if dry_run else f"written to {path}")


if __name__ == "__main__":
    main()
