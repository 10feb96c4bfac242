"""Model cards: every shipped weight file says by which command, on what and how well it was made."""

import hashlib
import json
import platform
import time
from importlib.metadata import version
from pathlib import Path

import torch

HERE = Path(__file__).parent
PIPELINE, SHORTCUT, REWARDS, CARDS = (HERE / name for name in ("pipeline", "shortcut", "rewards", "cards"))


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self):
        self.start = time.perf_counter()

    def __call__(self) -> float:
        return round(time.perf_counter() - self.start, 1)


def write(name: str, files: list[Path], seconds: float, device: str, trained, metrics: dict, **settings) -> None:
    """Write ``cards/NAME.json``: command, checksums of the files, seconds, device, versions, settings, metrics.

    trained: whatever has ``parameters()``, which are counted.
    """
    stage, _, only = name.partition("-")
    command = f"python -m benchmark.suites.mini.{stage}" + (f"s --only {only}" if only else "")
    CARDS.mkdir(exist_ok=True)
    processor = torch.cuda.get_device_name() if device.startswith("cuda") else platform.machine()
    content = {
        "command": command,
        "sha256": {str(f.relative_to(HERE)): hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted(files)},
        "seconds": round(seconds, 1),
        "device": f"{device} ({processor}, {torch.get_num_threads()} threads)",
        "versions": {p: version(p) for p in ("torch", "diffusers", "transformers", "peft", "numpy")},
        "parameters": sum(p.numel() for p in trained.parameters()),
        "settings": settings,
        "metrics": {k: round(v, 4) if isinstance(v, float) else v for k, v in metrics.items()},
    }
    (CARDS / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n")


def read(name: str) -> dict:
    """The content of a card."""
    return json.loads((CARDS / f"{name}.json").read_text())
