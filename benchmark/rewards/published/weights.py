"""Weight files: where they lie, whether they are there and whole, and how they are read."""

import hashlib
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
    """A file of a reward or a suite.

    path    below the weights folder
    source  where it is published: a hub repository, or an address; "" if nowhere
    size    in words; "" if it is next to nothing
    inside  the folder in the repository that holds it, which is also the last part of ``path``'s folder
    """

    path: str
    source: str
    size: str
    inside: str = ""

    def at(self, folder: Path) -> Path:
        return Path(folder) / self.path

    @property
    def name(self) -> str:
        """Its path in the repository."""
        return f"{self.inside}/{Path(self.path).name}" if self.inside else Path(self.path).name

    def root(self, folder: Path) -> Path:
        """The folder that stands for the repository."""
        return self.at(folder).parent.parent if self.inside else self.at(folder).parent


def require(reward: str, files: list[WeightFile], folder: Path) -> None:
    """Raise RewardError, one sentence, if files are missing or not whole; nothing is loaded yet."""
    absent = [file for file in files if not file.at(folder).is_file()]
    broken = [file for file in files if file not in absent and not _whole(file.at(folder))]
    problems = [
        f"{target} {verb} {', '.join(file.name for file in group if file.root(folder) == target)}"
        for group, verb in ((absent, "lacks"), (broken, "has only a part of"))
        for target in dict.fromkeys(file.root(folder) for file in group)
    ]
    if problems:
        remedy = _remedy(absent + broken, folder)
        raise RewardError(f"{reward}: {' and '.join(problems)}" + f": {remedy}" * bool(remedy))


def _remedy(files: list[WeightFile], folder: Path) -> str:
    """The commands that download files, and how large the files are."""
    commands: dict[tuple[str, Path], list[str]] = {}
    for file in files if all(file.source for file in files) else ():
        commands.setdefault((file.source, file.root(folder)), []).append(file.name)
    steps = [
        f"curl -L --create-dirs -o '{target / names[0]}' {source}"
        if source.startswith("https://")
        else f"hf download {source} {' '.join(names)} --local-dir {target}"
        for (source, target), names in commands.items()
    ]
    sizes = ", ".join(file.size for file in files if file.size)
    return " && ".join(steps) + f" ({sizes})" * bool(steps and sizes)


def sampled_digest(path: Path) -> str:
    """A hash of a file's size and of 64 KiB in 64 places, first and last: other weights differ nearly everywhere."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for part in range(64):
            file.seek(max(size - 2**16, 0) * part // 63)
            digest.update(file.read(2**16))
    return digest.hexdigest()[:16]


def _whole(path: Path) -> bool:
    """Whether a file ends where its own header (safetensors) or directory (PyTorch's zip) says.

    Other formats say nothing about their length; an empty file is never whole.
    """
    size = path.stat().st_size
    if path.suffix == ".json":
        try:
            return bool(json.loads(path.read_text(encoding="utf-8")))
        except ValueError:
            return False
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


def beside(checkpoint: Path) -> dict:
    """What ``architecture.json`` beside a checkpoint says: it is of another architecture than the published one."""
    path = checkpoint.with_name("architecture.json")
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def read(reward: str, path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a .safetensors file, or of PyTorch's format without running any code in it."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the reader of a foreign file raises
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RewardError(f"{reward}: {path} cannot be read as tensors ({first}): download it again") from None


def assign(reward: str, network: torch.nn.Module, state: dict[str, torch.Tensor], path: Path) -> None:
    """Put tensors into a network that may have none yet (``meta``), in single precision; all of them have to match."""
    state = {key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in state.items()}
    try:
        network.load_state_dict(state, assign=True)
    except RuntimeError as error:
        problem = " ".join(str(error).split())[:200]
        raise RewardError(f"{reward}: {path} does not fit the architecture: {problem}") from None
