"""Weight files: where they lie, whether they are there and whole, and how they are read."""

from __future__ import annotations

import json
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

from ..interface import RewardError


def weights_folder() -> Path:
    """Where published weights lie: ``$REWARD_WEIGHTS``, or ``weights`` in the working directory."""
    return Path(os.environ.get("REWARD_WEIGHTS", "weights"))


@dataclass(frozen=True)
class WeightFile:
    """A file of a reward.

    path    below the weights folder
    source  where it is published: a hub repository, or an address
    size    in words
    """

    path: str
    source: str
    size: str

    def at(self, folder: Path) -> Path:
        return Path(folder) / self.path

    def remedy(self, folder: Path) -> str:
        target = self.at(folder)
        if self.source.startswith("https://"):
            return f"download {self.source} ({self.size}) to {target}"
        return f"hf download {self.source} {target.name} --local-dir {target.parent} ({self.size})"


def require(reward: str, files: list[WeightFile], folder: Path) -> None:
    """Raise RewardError, one sentence, for the first file that is missing or not whole; nothing is read yet."""
    for file in files:
        path = file.at(folder)
        if not path.is_file():
            raise RewardError(f"{reward}: {path} is missing: {file.remedy(folder)}")
        if not _whole(path):
            raise RewardError(f"{reward}: {path} is not whole, an interrupted download: {file.remedy(folder)}")


def _whole(path: Path) -> bool:
    """Whether a file ends where its own header (safetensors) or directory (PyTorch's zip) says.

    Other formats say nothing about their length; an empty file is never whole.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        if path.suffix == ".safetensors":
            length = int.from_bytes(start, "little")
            if len(start) < 8 or length > size - 8:
                return False
            try:
                tensors = json.loads(file.read(length))
                return 8 + length + max(t["data_offsets"][1] for k, t in tensors.items() if k != "__metadata__") == size
            except (ValueError, KeyError, TypeError):
                return False
    if start.startswith(b"PK"):  # the directory of a zip file is its end
        return zipfile.is_zipfile(path)
    return size > 0


def read(reward: str, path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a .safetensors file, or of PyTorch's format without running any code in it."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the reader of a foreign file raises
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RewardError(f"{reward}: {path} cannot be read ({first}): delete it and download it again") from None


def assign(reward: str, network: torch.nn.Module, state: dict[str, torch.Tensor], path: Path) -> None:
    """Put tensors into a network that may have none yet (``meta``), in single precision; all of them have to match."""
    state = {key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in state.items()}
    try:
        network.load_state_dict(state, assign=True)
    except RuntimeError as error:
        problem = " ".join(str(error).split())[:200]
        raise RewardError(f"{reward}: {path} does not fit the architecture: {problem}") from None
