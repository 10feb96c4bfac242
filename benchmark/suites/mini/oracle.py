"""The truth oracle of the mini world: reads an image and says how much of a caption it shows.

It is classical image analysis, not a model: coloured regions become objects, named by their hue, and each object is
compared with drawings of the six shapes. No reward and no training ever sees it.

    score = (share of the named objects that are wholly right) * (1 if the relation holds or none is named, else 1/2)

An object is wholly right when an object of its colour has its shape and, where named, its size and position. The
single facts are reported beside the score; the background is a fact of its own and does not enter the score.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools

import numpy as np
from scipy import ndimage

from . import world

MIN_ALPHA = 0.35  # a pixel belongs to an object when the object covers this share of it
MIN_AREA = 9.0  # pixels; smaller regions are specks
MIN_FIT = 0.55  # soft intersection over union with the best drawing, below which a region has no shape
AREA_WINDOW = 0.35  # drawings are tried whose area differs from a region's by up to this log-ratio
SIZE_BORDER = 5.2  # radius in pixels between small and large
CENTRE_RADIUS = 4.5  # pixels around the middle that count as "in the center"
RADII = np.arange(2.75, 8.51, 0.25)


@dataclasses.dataclass(frozen=True)
class Detection:
    """An object read from an image: its class and geometry in pixels; ``shape`` is None for a formless blob."""

    colour: str
    shape: str | None
    fit: float
    x: float
    y: float
    radius: float

    @property
    def size(self) -> str:
        return "small" if self.radius < SIZE_BORDER else "large"

    @property
    def position(self) -> str:
        middle = world.RESOLUTION / 2
        if np.hypot(self.x - middle, self.y - middle) < CENTRE_RADIUS:
            return "in the center"
        vertical = "top" if self.y < middle else "bottom"
        return f"at the {vertical} {'left' if self.x < middle else 'right'}"


@dataclasses.dataclass(frozen=True)
class Reading:
    """What the oracle says of one image and caption. Shares are in [0, 1]; ``relation`` is None where none is named."""

    score: float
    objects: tuple[bool, ...]
    colour: float
    shape: float
    size: float | None
    position: float | None
    relation: bool | None
    background: bool
    extra_objects: int


_PALETTE = np.array(list(world.COLOURS.values()))
_NAMES = list(world.COLOURS)
_CHROMA = _PALETTE - _PALETTE.mean(axis=1, keepdims=True)
_STRENGTH = np.linalg.norm(_CHROMA, axis=1)


@functools.cache
def _templates() -> tuple[list[tuple[str, float, float, float]], np.ndarray]:
    """Every shape and radius with its centre of mass when drawn in the middle of the image, and their areas."""
    middle = world.RESOLUTION / 2
    drawings, areas = [], []
    for shape, radius in itertools.product(world.SHAPES, RADII):
        alpha = world.coverage(shape, middle, middle, radius)
        cy, cx = ndimage.center_of_mass(alpha)
        drawings.append((shape, float(radius), cx, cy))
        areas.append(alpha.sum())
    return drawings, np.array(areas)


def _fit(alpha: np.ndarray) -> tuple[str, float, float, float, float]:
    """The drawing nearest to a coverage map: (shape, soft IoU, x, y, radius)."""
    # Pale paint covers as much as strong paint: the region's own strongest pixels count as fully covered.
    alpha = np.clip(alpha / np.quantile(alpha[alpha > MIN_ALPHA], 0.8), 0, 1)
    cy, cx = ndimage.center_of_mass(alpha)
    drawings, areas = _templates()
    distance = np.abs(np.log(areas / alpha.sum()))
    middle = world.RESOLUTION / 2
    best = (world.SHAPES[0], -1.0, cx, cy, 0.0)
    for (shape, radius, dx, dy), far in zip(drawings, distance, strict=True):
        if far > max(AREA_WINDOW, distance.min()):
            continue
        x, y = cx - dx + middle, cy - dy + middle
        drawing = world.coverage(shape, x, y, radius)
        score = np.minimum(drawing, alpha).sum() / np.maximum(drawing, alpha).sum()
        if score > best[1]:
            best = (shape, float(score), x, y, radius)
    return best


def _detection(inside: np.ndarray, alpha: np.ndarray, label: np.ndarray) -> Detection:
    """Read one region as one object; its colour is that of most of it."""
    # The soft rim of the region: faint pixels next to it, unless another object claims them.
    rim = ndimage.binary_dilation(inside, np.ones((3, 3))) & (inside | (alpha <= MIN_ALPHA))
    shape, fit, x, y, radius = _fit(np.where(rim, alpha, 0.0))
    colour = _NAMES[int(np.bincount(label[inside], alpha[inside]).argmax())]
    return Detection(colour, shape if fit >= MIN_FIT else None, fit, float(x), float(y), radius)


def _regions(mask: np.ndarray, alpha: np.ndarray) -> list[np.ndarray]:
    """Connected regions of a mask that are more than specks."""
    regions, count = ndimage.label(mask, structure=np.ones((3, 3)))
    masks = (regions == region for region in range(1, count + 1))
    return [inside for inside in masks if alpha[inside].sum() >= MIN_AREA]


def detect(image: np.ndarray) -> list[Detection]:
    """All objects in an RGB image, float in [0, 1], (H, W, 3), whatever the caption says.

    A coloured region is read once as one object and once as one object per colour (two objects that touch); the
    reading whose drawings fit better, weighted by area, is kept.
    """
    chroma = image - image.mean(axis=2, keepdims=True)
    strength = np.linalg.norm(chroma, axis=2)
    cosine = (chroma @ _CHROMA.T) / (strength[..., None] * _STRENGTH + 1e-6)
    label = cosine.argmax(axis=2)
    alpha = np.clip((chroma * (_CHROMA / _STRENGTH[:, None])[label]).sum(axis=2) / _STRENGTH[label], 0, 1)
    found = []
    for region in _regions(alpha > MIN_ALPHA, alpha):
        whole = _detection(region, alpha, label)
        colours = [region & (label == index) for index in np.unique(label[region])]
        parts = [part for colour in colours for part in _regions(colour, alpha)]
        if len(parts) > 1:
            areas = np.array([alpha[part].sum() for part in parts])
            pieces = [_detection(part, np.where(region & ~part, 0, alpha), label) for part in parts]
            if (areas * [piece.fit for piece in pieces]).sum() / alpha[region].sum() > whole.fit:
                found += pieces
                continue
        found.append(whole)
    return found


def _background(image: np.ndarray) -> str:
    """The background's lightness, read from the colourless pixels."""
    spread = image.max(axis=2) - image.min(axis=2)
    colourless = spread < 0.15
    level = np.median(image.mean(axis=2)[colourless]) if colourless.any() else image.mean()
    return min(world.BACKGROUNDS, key=lambda name: abs(world.BACKGROUNDS[name] - level))


def _facts(wanted: world.ObjectSpec, seen: Detection | None) -> dict[str, bool]:
    if seen is None:
        facts = {"colour": False, "shape": False}
    else:
        facts = {"colour": seen.colour == wanted.colour, "shape": seen.shape == wanted.shape}
    for name in ("size", "position"):
        if getattr(wanted, name) is not None:
            facts[name] = seen is not None and getattr(seen, name) == getattr(wanted, name)
    return facts


def _relation_holds(relation: str, first: Detection | None, second: Detection | None) -> bool:
    """Whether the first object lies in the named direction of the second, that direction being the larger one."""
    if first is None or second is None:
        return False
    dx, dy = first.x - second.x, first.y - second.y
    sx, sy = world.RELATIONS[relation]
    along, across = (dx * sx, abs(dy)) if sx else (dy * sy, abs(dx))
    return bool(along > across)


def read(image: np.ndarray, caption: str) -> Reading:
    """Compare an image, float in [0, 1], (H, W, 3), with a caption of the world's grammar."""
    spec = world.parse(caption)
    detections = detect(np.asarray(image, dtype=np.float64))
    slots = [*range(len(detections)), *[None] * len(spec.objects)]

    def outcome(choice):
        seen = [None if i is None else detections[i] for i in choice]
        facts = [_facts(o, s) for o, s in zip(spec.objects, seen, strict=True)]
        holds = None
        if spec.relation is not None:
            # An object stands for a named one only if it shares colour or shape with it.
            named = [s if f["colour"] or f["shape"] else None for s, f in zip(seen, facts, strict=True)]
            holds = _relation_holds(spec.relation, *named)
        share = np.mean([all(f.values()) for f in facts])
        rank = (share, sum(f["colour"] for f in facts), sum(sum(f.values()) for f in facts), bool(holds))
        return rank, facts, holds, float(share)

    choices = dict.fromkeys(itertools.permutations(slots, len(spec.objects)))
    _, facts, holds, share = max((outcome(c) for c in choices), key=lambda result: result[0])

    def fact(name: str) -> float | None:
        values = [f[name] for f in facts if name in f]
        return float(np.mean(values)) if values else None

    return Reading(
        score=share * (0.5 if holds is False else 1.0),
        objects=tuple(all(f.values()) for f in facts),
        colour=fact("colour"),
        shape=fact("shape"),
        size=fact("size"),
        position=fact("position"),
        relation=holds,
        background=_background(image) == spec.background,
        extra_objects=max(0, len(detections) - len(spec.objects)),
    )


def score(images: np.ndarray, captions: list[str]) -> np.ndarray:
    """Oracle scores in [0, 1], (B,), of images (B, H, W, 3), float in [0, 1]."""
    return np.array([read(image, caption).score for image, caption in zip(images, captions, strict=True)])
