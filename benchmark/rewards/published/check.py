"""Scores of three drawn images by every published reward, to be compared with scores recorded from the same weights."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from ..interface import RewardError
from . import PUBLISHED, find
from .hps import VERSIONS

GOLDEN = Path(__file__).with_name("golden.json")
TOLERANCE = 1e-3  # devices and releases round differently; a wrong preprocessing moves a score by more


def _disc(height: int, width: int, y: float, x: float, radius: float) -> torch.Tensor:
    """1 inside a disc, 0 outside, with an edge one pixel wide: (H, W). Lengths in parts of the height."""
    rows, columns = torch.meshgrid(torch.arange(height) / height, torch.arange(width) / height, indexing="ij")
    distance = ((rows - y) ** 2 + (columns - x) ** 2).sqrt()
    return ((radius - distance) * height + 0.5).clamp(0, 1)


def _paint(image: torch.Tensor, mask: torch.Tensor, colour: tuple[float, float, float]) -> torch.Tensor:
    return image + mask * (torch.tensor(colour).view(3, 1, 1) - image)


def images() -> dict[str, tuple[str, torch.Tensor]]:
    """Name -> prompt and image (3, H, W), one square, one wide, one tall and smaller than the models' input."""
    white, blue = torch.ones(3, 512, 512), torch.tensor([0.2, 0.4, 0.8]).view(3, 1, 1).expand(3, 384, 640)
    sky = blue + torch.linspace(0, 0.2, 384).view(-1, 1)
    sea = (torch.arange(384) > 250).float().view(-1, 1)
    evening = _paint(_paint(sky, _disc(384, 640, 0.6, 0.8, 0.15), (1.0, 0.8, 0.3)), sea, (0.05, 0.15, 0.4))
    board = (torch.arange(200).view(-1, 1) // 20 + torch.arange(120) // 20) % 2
    return {
        "disc": ("a red circle on a white background", _paint(white, _disc(512, 512, 0.5, 0.5, 0.3), (0.9, 0.1, 0.1))),
        "sunset": ("a sunset over the sea", evening),
        "board": ("a chessboard", board.float().expand(3, -1, -1)),
    }


@dataclass
class Checked:
    """What became of one reward: scores by image name, or the line that says what is missing.

    recorded  scores of the same weights, if any were recorded
    key       sha256 of the weight files, joined by "+"
    """

    name: str
    version: str
    scores: dict[str, float] | None = None
    missing: str = ""
    recorded: dict[str, float] | None = None
    key: str = ""

    @property
    def verdict(self) -> str:
        if self.scores is None:
            return "missing"
        if self.recorded is None:
            return "no recorded score"
        return "as recorded" if self.difference <= TOLERANCE else f"differs by {self.difference:.4f}"

    @property
    def difference(self) -> float:
        """Largest difference from the recorded scores; 0 where none are recorded."""
        return max((abs(self.scores[image] - score) for image, score in (self.recorded or {}).items()), default=0.0)


def _key(folder: Path, name: str, options: dict) -> str:
    digests = []
    for file in find(name).files(**options):
        if Path(file.path).suffix in (".pt", ".pth", ".safetensors"):
            with file.at(folder).open("rb") as data:
                digests.append(hashlib.file_digest(data, "sha256").hexdigest())
    return "+".join(digests)


def check(folder: Path, device: str, golden: Path = GOLDEN) -> Iterator[Checked]:
    """Score the images with every reward whose package and weights are there, one model in memory at a time."""
    recorded = json.loads(golden.read_text()) if golden.exists() else {}
    for name, options in [("hps", {"version": v}) for v in VERSIONS] + [(n, {}) for n in PUBLISHED if n != "hps"]:
        version = options.get("version") or find(name).version
        try:
            reward = find(name)(folder, **options).to(device)
        except RewardError as error:
            yield Checked(name, version, missing=str(error))
            continue
        with torch.no_grad():
            scores = {title: reward(x[None].to(device), [prompt]).item() for title, (prompt, x) in images().items()}
        key = _key(folder, name, options)
        yield Checked(name, version, scores, recorded=recorded.get(key, {}).get("scores"), key=key)


def record(results: list[Checked], golden: Path = GOLDEN) -> None:
    """Write the scores as what later checks of the same weights are compared with."""
    known = json.loads(golden.read_text()) if golden.exists() else {}
    for result in results:
        if result.scores is not None:
            known[result.key] = {"reward": result.name, "version": result.version, "scores": result.scores}
    golden.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
