"""The files of a run. Everything is written atomically: a file is there whole or not at all.

Records, small enough for git, in ROOT/suite/reward/variant/seed-n:

run.json          resolved configuration and fingerprints
environment.json  versions, device, threads, commit
log.csv           one row per optimiser step
curve.csv         one row per evaluation along the budget, from start to end
scores.csv        one row per evaluated image: when, split, prompt, every reward, oracle
summary.json      the run in numbers (``Summary``)
samples.jpg       the same noise: base model above, tuned below, the first held-out prompts in order

Artifacts, in ROOT/artifacts/suite/reward/variant/seed-n:

lora/             the tuned LoRA in diffusers' format
before_after.png  samples.jpg with prompts and rewards
checkpoint.pt     where an unfinished run goes on; gone once it is done
error.txt         why a run failed

Reading records needs no torch, so only what needs it imports it.
"""

import contextlib
import json
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import pandas as pd
from pydantic import BaseModel, ValidationError

RECORD_VERSION = 3
SAMPLES = 8  # prompts in samples.jpg and before_after.png
SLOTS_FILE = "slots.json"  # in lora/ of a method with several slots: timestep -> the slots that are on there
PACKAGES = ("torch", "diffusers", "transformers", "accelerate", "peft", "numpy", "pandas")

Status = Literal["done", "diverged", "failed", "interrupted"]


class Summary(BaseModel):
    """A run in numbers. Scores are means over held-out prompts; ``heldout`` has every reward that was not trained.

    combinations, training: scores on prompts with held-out combinations, and on prompts of the training set.
    """

    record_version: int = RECORD_VERSION
    status: Status
    suite: str
    method: str
    reward: str
    seed: int
    budget: str
    steps: int
    seconds: float
    evaluation_seconds: float
    reward_before: float
    reward_after: float | None
    reward_se: float | None
    oracle_before: float | None
    oracle_after: float | None
    oracle_se: float | None
    diversity_before: float
    diversity_after: float | None
    drift: float | None
    peak_memory_mb: float
    prior_seconds: dict[str, float]
    random_weights: bool = False  # no result: the run only proves that things work
    heldout: dict[str, tuple[float, float | None]]
    combinations: dict[str, tuple[float, float | None]]
    training: dict[str, tuple[float, float | None]]
    denoiser_forwards: int
    denoiser_backwards: int
    denoiser_recomputations: int
    decoder_forwards: int
    decoder_backwards: int
    reward_forwards: int
    reward_backwards: int
    images: int
    operations: int


def file_name(reward: str) -> str:
    """A reward's name or expression as the name of a file or folder."""
    return re.sub(r"[^\w.+-]", "", reward.replace("*", "x"))[:120]


def run_folder(root: Path, suite: str, reward: str, name: str, seed: int | str) -> Path:
    """``root/suite/reward/name/seed-n``: where a run's records lie; ``name`` is its method or variant."""
    return root / suite / file_name(reward) / name / f"seed-{seed}"


def artifacts(root: Path, folder: Path) -> Path:
    """Where the artifacts lie of the run below ``root`` whose records are in ``folder``."""
    return root / "artifacts" / folder.relative_to(root)


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Where to write a file that takes its place when all is written; two processes never share one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    yield part
    os.replace(part, path)


def remove_parts(*folders: Path) -> None:
    """Remove what a killed process left half-written."""
    for part in (part for folder in folders for part in folder.glob(".*.part")):
        part.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    with whole(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: Path, content) -> None:
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_table(path: Path, table: pd.DataFrame, float_format: str | None = "%.6g") -> None:
    """Write a table as CSV. float_format: of its numbers; None keeps every digit."""
    write_text(path, table.to_csv(index=False, float_format=float_format))


def read_json(path: Path) -> dict | None:
    """A record, or None where there is none or where it is no JSON object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def read_summary(folder: Path) -> Summary | None:
    """A folder's summary, or None where there is none that this version reads."""
    content = read_json(folder / "summary.json")
    try:
        return content and Summary.model_validate(content)
    except ValidationError:
        return None


RECORDS = ("summary.json", "scores.csv", "log.csv", "curve.csv", "samples.jpg", "environment.json", "run.json")


def clear(folder: Path, beside: Path) -> None:
    """Remove a run's artifacts and records, its identity last: what is left of a half-cleared run is never resumed."""
    shutil.rmtree(beside, ignore_errors=True)
    for name in RECORDS:
        (folder / name).unlink(missing_ok=True)


def save_state(path: Path, state: dict) -> None:
    """``torch.save`` whole or not at all."""
    import torch

    with whole(path) as part:
        torch.save(state, part)


def peak_memory_mb(device: str) -> float:
    """The most memory this process has held: CUDA's where it ran there, else resident, in MiB."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.max_memory_allocated(device) / 2**20
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def environment(device: str) -> dict:
    """Versions, device, threads and commit."""
    import torch

    command = ("git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD")
    try:
        commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or None
    except OSError:  # no git on this machine
        commit = None
    cuda = device.startswith("cuda")
    return {
        "python": platform.python_version(),
        "versions": {package: version(package) for package in PACKAGES},
        "device": torch.cuda.get_device_name(device) if cuda else f"cpu ({platform.machine()})",
        "threads": torch.get_num_threads(),
        "commit": commit,
    }
