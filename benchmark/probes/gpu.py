"""What a step of a method costs at Stable Diffusion 1.5's shape on a GPU: seconds, memory, share of the chip's rate.

Weights are random, in the true architectures: enough for time and memory, and nothing is downloaded. Of each method and
batch a step of the trainer is timed, and the calls that it makes one by one; ``ratio`` is the one over the other's sum,
``share`` the step's operations per second over the rate of a large matrix product on the same chip.
"""

import copy
import dataclasses
import gc
import time
from pathlib import Path

import numpy as np
import torch

from ..cli import console
from ..config import RunConfig
from ..records import read_json, write_json
from ..suites import Suite
from ..training.trainer import Diverged
from ..training.workbench import Workbench
from .cost import make_call, seconds_of, spent, take

CHECKPOINTING = ("draft checkpoint=false", "alignprop checkpoint=false", "shortft checkpoint=true")
BATCHES = (1, 4, 16, 2, 8)  # in this order, so that what time leaves out is in between
ROUNDS = 2

Place = tuple[str, int]  # variant and batch


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

    def bench(self, config: RunConfig) -> Workbench:
        self.suite.pipeline.unet = self._copy(self.unet)
        if config.build_method().needs_shortcut:
            self.suite.shortcut = self._copy(self.shortcut)
        return Workbench(config, self.suite)


def matmul_rate(device: str, precision: torch.dtype, size: int) -> float:
    """Operations per second of a large square matrix product, the best of ten."""
    a, b = (torch.randn(size, size, device=device, dtype=precision) for _ in range(2))
    return 2 * size**3 / min(seconds_of(lambda: a @ b) for _ in range(10))


def measure(bench: Workbench, rounds: int, rate: float) -> dict:
    """One row: seconds, images, memory, operations of a step; the seconds of its calls alone."""
    cuda = bench.config.device.startswith("cuda")
    take(bench, 1)  # warm-up: the ledger measures each kind of call, kernels are chosen
    counted, calls = spent(bench, 1)
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(rounds):
        bench.trainer.step = 1  # the same batch and plan as was recorded
        seconds.append(seconds_of(lambda: take(bench, 1)))
    peak = torch.cuda.max_memory_allocated() / 2**20 if cuda else None
    alone = 0.0
    for kind, count in calls.items():
        call = make_call(bench, *kind)
        call()
        alone += count * float(np.median([seconds_of(call) for _ in range(3)]))
    step, images, operations = float(np.median(seconds)), int(counted["images"]), int(counted["operations"])
    return {
        **{"seconds": step, "alone": alone, "ratio": step / alone},
        **{"images": images, "images_per_second": images / step, "peak_mb": peak},
        **{"operations": operations, "share": operations / step / rate},
        **{name: int(counted[f"denoiser_{name}"]) for name in ("forwards", "backwards", "recomputations")},
    }


def _identity(about: dict) -> dict:
    """What rows of one record have in common."""
    common = {key: about[key] for key in ("narrow", "pixels", "reward", "precision", "rank", "settings")}
    return common | {key: about["environment"][key] for key in ("device", "versions", "threads")}


@dataclasses.dataclass
class Record:
    """What was measured (``rows``), and of what else was asked: what became of it. Without a path none is written."""

    path: Path | None
    about: dict
    rows: list[dict] = dataclasses.field(default_factory=list)
    out_of_memory: list[Place] = dataclasses.field(default_factory=list)
    failed: list[tuple[str, int, str]] = dataclasses.field(default_factory=list)
    not_measured: list[Place] = dataclasses.field(default_factory=list)

    def write(self) -> None:
        parts = dataclasses.asdict(self)
        about, path = parts.pop("about"), parts.pop("path")
        if path:
            write_json(path, about | parts)

    def resume(self) -> bool:
        """Go on from the record at ``path`` if there is one of the same settings, chip and versions.

        Its rate of a matrix product stays, for all shares to be of one rate; what failed is tried again.
        """
        found = read_json(self.path) if self.path else None
        if not found or _identity(found) != _identity(self.about):
            return False
        self.about = {key: found[key] for key in self.about}
        self.rows = found["rows"]
        self.out_of_memory = [tuple(place) for place in found["out_of_memory"]]
        return True


def measure_all(models: Models, configs: dict[Place, RunConfig], record: Record, until: float, rounds: int) -> None:
    """Fill the record, and write it after every row.

    until: when, on the clock of ``time.perf_counter``, no more is begun that would not end.
    """
    rate = record.about["matmul_tflops"] * 1e12
    # Of a variant: the batch measured last, and what measuring it took.
    seconds = {row["variant"]: (row["batch"], row["took"]) for row in record.rows}
    done = {(row["variant"], row["batch"]) for row in record.rows} | set(record.out_of_memory)
    record.not_measured = [place for place in configs if place not in done]
    for variant, batch in list(record.not_measured):
        known, took = seconds.get(variant, (batch, 0.0))
        if time.perf_counter() + took * max(batch / known, 1) > until:
            continue
        record.not_measured.remove((variant, batch))
        if any(v == variant and b <= batch for v, b in record.out_of_memory):
            record.out_of_memory.append((variant, batch))
            continue
        begun = time.perf_counter()
        try:
            row = {"variant": variant, "batch": batch} | measure(models.bench(configs[variant, batch]), rounds, rate)
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
            speed = f"{row['seconds']:.3f} s a step  {row['images_per_second']:.2f} images/s{memory}"
            rated = f"ratio {row['ratio']:.3f}  {row['share']:.0%} of the matmul rate"
            console.print(f"{variant}, batch {batch}: {speed}  {rated}")
        finally:
            models.release()
        seconds[variant] = (batch, time.perf_counter() - begun)
        record.write()
    record.write()
