"""The world of the embedded suite: small drawn scenes and the captions that describe them.

A :class:`Spec` is what a caption says, a :class:`Scene` one picture of it. Captions come from a small grammar
(``parse`` is its inverse)::

    a large red circle at the top left on a striped gray background
    a small blue ring left of a green square on a plain white background

Size and position are named in only some captions; what is not named is drawn at random. Everything is a
deterministic function of (split, index), so no image needs to be stored.

Splits. A caption belongs to ``train``, ``validation`` or ``test`` by a hash of its text, so the three can never
share a caption. Specs with a *held-out combination* (a fixed colour-shape pair, or a fixed pair of shapes under a
relation) belong to ``combinations`` and to no other split, though each of their words occurs in training.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re

import numpy as np

RESOLUTION = 32

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.86, 0.10, 0.10),
    "orange": (1.00, 0.47, 0.02),
    "yellow": (0.97, 0.88, 0.10),
    "green": (0.10, 0.62, 0.20),
    "cyan": (0.10, 0.78, 0.84),
    "blue": (0.12, 0.22, 0.88),
    "purple": (0.52, 0.12, 0.74),
    "pink": (1.00, 0.44, 0.76),
}
SHAPES = ("circle", "square", "triangle", "diamond", "cross", "ring")
SIZES = {"small": 4.1, "large": 6.4}  # radius in pixels of a circle of the same visual weight
POSITIONS = {  # centre of the object in pixels (x, y)
    "in the center": (16.0, 16.0),
    "at the top left": (8.5, 8.5),
    "at the top right": (23.5, 8.5),
    "at the bottom left": (8.5, 23.5),
    "at the bottom right": (23.5, 23.5),
}
RELATIONS = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}  # first minus second
MIRROR = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
BACKGROUNDS = {"white": 0.93, "gray": 0.52, "black": 0.10}
TEXTURES = ("plain", "striped", "shaded")
TEXTURE_AMPLITUDE = 0.07

_PAIRS = "red ring, orange cross, yellow triangle, green diamond, blue circle, purple square"
HELD_OUT_PAIRS = frozenset(tuple(pair.split()) for pair in _PAIRS.split(", "))
_HELD_OUT = {
    ("circle", "left of", "square"),
    ("triangle", "above", "ring"),
    ("cross", "left of", "diamond"),
    ("square", "above", "cross"),
}
HELD_OUT_RELATIONS = frozenset(_HELD_OUT | {(b, MIRROR[r], a) for a, r, b in _HELD_OUT})

SPLITS = ("train", "validation", "test", "combinations")


@dataclasses.dataclass(frozen=True)
class ObjectSpec:
    """One named object; ``size`` and ``position`` are None where the caption is silent."""

    colour: str
    shape: str
    size: str | None = None
    position: str | None = None

    def phrase(self) -> str:
        return " ".join(filter(None, ("a", self.size, self.colour, self.shape, self.position)))


@dataclasses.dataclass(frozen=True)
class Spec:
    """What a caption says: one object, or two under a relation, before a background."""

    objects: tuple[ObjectSpec, ...]
    relation: str | None
    texture: str
    background: str

    def caption(self) -> str:
        scene = f" {self.relation} ".join(o.phrase() for o in self.objects)
        return f"{scene} on a {self.texture} {self.background} background"

    def is_held_out(self) -> bool:
        pairs = {(o.colour, o.shape) for o in self.objects}
        relation = (self.objects[0].shape, self.relation, self.objects[-1].shape)
        return bool(pairs & HELD_OUT_PAIRS) or relation in HELD_OUT_RELATIONS

    def split(self) -> str:
        if self.is_held_out():
            return "combinations"
        bucket = int.from_bytes(hashlib.blake2b(self.caption().encode(), digest_size=4).digest(), "big") % 10
        return {0: "test", 1: "validation"}.get(bucket, "train")


@dataclasses.dataclass(frozen=True)
class Placed:
    """An object as drawn: centre and radius in pixels, colour as RGB in [0, 1]."""

    shape: str
    x: float
    y: float
    radius: float
    rgb: tuple[float, float, float]


@dataclasses.dataclass(frozen=True)
class Scene:
    """One picture of a spec."""

    spec: Spec
    placed: tuple[Placed, ...]
    background: float
    phase: float
    angle: float


def _one_of(words) -> str:
    return "|".join(words)


_OBJECT = rf"a (?:({_one_of(SIZES)}) )?({_one_of(COLOURS)}) ({_one_of(SHAPES)})(?: ({_one_of(POSITIONS)}))?"
_GRAMMAR = re.compile(
    rf"{_OBJECT}(?: ({_one_of(RELATIONS)}) {_OBJECT})? on a ({_one_of(TEXTURES)}) ({_one_of(BACKGROUNDS)}) background"
)


def parse(caption: str) -> Spec:
    """The spec of a caption; raises ValueError for a text outside the grammar."""
    match = _GRAMMAR.fullmatch(caption.strip())
    if match is None:
        raise ValueError(f"not a caption of the mini world: {caption!r}")
    size, colour, shape, position, relation, size2, colour2, shape2, position2, texture, background = match.groups()
    objects = [ObjectSpec(colour, shape, size, position)]
    if relation:
        objects.append(ObjectSpec(colour2, shape2, size2, position2))
    return Spec(tuple(objects), relation, texture, background)


def random_spec(rng: np.random.Generator) -> Spec:
    """A spec of any split: 35% one object, 65% two; sizes named half of the time, a position two times in three."""

    def pick(options) -> str:
        return list(options)[rng.integers(len(options))]

    def size() -> str | None:
        return pick(SIZES) if rng.random() < 0.5 else None

    texture, background = pick(TEXTURES), pick(BACKGROUNDS)
    if rng.random() < 0.35:
        position = pick(POSITIONS) if rng.random() < 0.67 else None
        return Spec((ObjectSpec(pick(COLOURS), pick(SHAPES), size(), position),), None, texture, background)
    # Two different colours and two different shapes: a picture then shows what is bound to what.
    colours = rng.permutation(list(COLOURS))[:2]
    shapes = rng.permutation(list(SHAPES))[:2]
    objects = tuple(ObjectSpec(str(c), str(s), size()) for c, s in zip(colours, shapes, strict=True))
    return Spec(objects, pick(RELATIONS), texture, background)


def edit(spec: Spec, rng: np.random.Generator) -> Spec:
    """The spec with one fact changed: an attribute, the relation, or the colours or places of two objects swapped.

    The result never holds a held-out combination, so that edits of training captions are fit for training.
    """

    def other(options, value: str) -> str:
        options = [option for option in options if option != value]
        return options[rng.integers(len(options))]

    def changed() -> Spec:
        which = int(rng.integers(len(spec.objects)))
        obj = spec.objects[which]
        facts = ["colour", "shape", "texture", "background"]
        facts += [name for name in ("size", "position") if getattr(obj, name)]
        if spec.relation:
            facts += ["relation", "swap"]
        fact = facts[rng.integers(len(facts))]
        if fact == "texture":
            return dataclasses.replace(spec, texture=other(TEXTURES, spec.texture))
        if fact == "background":
            return dataclasses.replace(spec, background=other(BACKGROUNDS, spec.background))
        if fact == "relation":
            return dataclasses.replace(spec, relation=other(RELATIONS, spec.relation))
        if fact == "swap":
            a, b = spec.objects
            swapped = dataclasses.replace(a, colour=b.colour), dataclasses.replace(b, colour=a.colour)
            return dataclasses.replace(spec, objects=swapped)
        options = {"colour": COLOURS, "shape": SHAPES, "size": SIZES, "position": POSITIONS}[fact]
        objects = list(spec.objects)
        objects[which] = dataclasses.replace(obj, **{fact: other(options, getattr(obj, fact))})
        return dataclasses.replace(spec, objects=tuple(objects))

    while (result := changed()).is_held_out():
        pass
    return result


def place(spec: Spec, rng: np.random.Generator) -> Scene:
    """Draw at random what the caption leaves open: sizes, places, hues, the texture's phase."""
    radii = [SIZES[o.size or ("small", "large")[rng.integers(2)]] * rng.uniform(0.94, 1.06) for o in spec.objects]
    if spec.relation is None:
        position = spec.objects[0].position or list(POSITIONS)[rng.integers(len(POSITIONS))]
        centres = [np.array(POSITIONS[position]) + rng.uniform(-1.0, 1.0, 2)]
    else:
        towards = np.array(RELATIONS[spec.relation], dtype=float)
        across = np.abs(towards[::-1])
        half = max(rng.uniform(6.8, 7.8), (sum(radii) + 2.0) / 2)
        middle = 16 + across * rng.uniform(-4, 4) + np.abs(towards) * rng.uniform(-0.6, 0.6)
        tilt = across * rng.uniform(-2, 2)
        centres = [middle + towards * half + tilt, middle - towards * half - tilt]
    placed = []
    for obj, radius, (x, y) in zip(spec.objects, radii, centres, strict=True):
        rgb = np.clip(np.array(COLOURS[obj.colour]) + rng.uniform(-0.03, 0.03, 3), 0, 1)
        x, y = np.clip([x, y], radius + 1, RESOLUTION - radius - 1)
        placed.append(Placed(obj.shape, float(x), float(y), float(radius), tuple(float(v) for v in rgb)))
    background = BACKGROUNDS[spec.background] + rng.uniform(-0.02, 0.02)
    return Scene(spec, tuple(placed), float(background), float(rng.uniform(0, 2 * np.pi)), float(rng.integers(4)))


def coverage(shape: str, x: float, y: float, radius: float) -> np.ndarray:
    """Share of each pixel that a shape covers, (H, W) in [0, 1], from its signed distance."""
    grid = np.arange(RESOLUTION) + 0.5
    u, v = np.meshgrid(grid - x, grid - y)
    if shape == "circle":
        distance = np.hypot(u, v) - radius
    elif shape == "square":
        distance = np.maximum(abs(u), abs(v)) - 0.89 * radius
    elif shape == "diamond":
        distance = (abs(u) + abs(v) - 1.32 * radius) / np.sqrt(2)
    elif shape == "triangle":  # apex up; the three half-planes of an equilateral triangle
        inner = 0.70 * radius
        distance = np.maximum(v - inner, np.sqrt(3) / 2 * abs(u) - v / 2 - inner)
    elif shape == "cross":
        arm, half = 1.12 * radius, 0.38 * radius
        bars = [np.maximum(abs(a) - arm, abs(b) - half) for a, b in ((u, v), (v, u))]
        distance = np.minimum(*bars)
    elif shape == "ring":
        distance = abs(np.hypot(u, v) - 0.78 * radius) - 0.29 * radius
    else:
        raise ValueError(f"unknown shape {shape!r}")
    return np.clip(0.5 - distance, 0.0, 1.0)


def render(scene: Scene) -> np.ndarray:
    """The scene as float32 RGB in [0, 1], (H, W, 3)."""
    grid = np.arange(RESOLUTION) + 0.5
    u, v = np.meshgrid(grid, grid)
    if scene.spec.texture == "striped":
        along = (u, v)[int(scene.angle) % 2]
        pattern = np.sin(2 * np.pi * along / 8.0 + scene.phase)
    elif scene.spec.texture == "shaded":
        direction = np.pi / 4 + scene.angle * np.pi / 2
        pattern = (np.cos(direction) * (u - 16) + np.sin(direction) * (v - 16)) / 16
    else:
        pattern = np.zeros_like(u)
    image = np.repeat((scene.background + TEXTURE_AMPLITUDE * pattern)[..., None], 3, axis=2)
    for obj in scene.placed:
        alpha = coverage(obj.shape, obj.x, obj.y, obj.radius)[..., None]
        image = (1 - alpha) * image + alpha * np.array(obj.rgb)
    return np.clip(image, 0, 1).astype(np.float32)


def to_bytes(image: np.ndarray) -> np.ndarray:
    """An image in [0, 1] as uint8."""
    return (image * 255).round().astype(np.uint8)


def draw(split: str, index: int, seed: int = 0) -> Scene:
    """Scene number ``index`` of a split, the same on every machine."""
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; the splits are {', '.join(SPLITS)}")
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    while (spec := random_spec(rng)).split() != split:
        pass
    return place(spec, rng)


def captions(split: str, count: int, seed: int = 0) -> list[str]:
    """The first ``count`` distinct captions of a split."""
    found: dict[str, None] = {}
    index = 0
    while len(found) < count:
        found[draw(split, index, seed).spec.caption()] = None
        index += 1
    return list(found)


def dataset(split: str, count: int, seed: int = 0):
    """The split as a ``datasets.Dataset`` with columns caption, scene (JSON) and image."""
    import json

    from datasets import Dataset, Features, Image, Value
    from PIL import Image as Picture

    def rows():
        for index in range(count):
            scene = draw(split, index, seed)
            text, image = json.dumps(dataclasses.asdict(scene)), Picture.fromarray(to_bytes(render(scene)))
            yield {"caption": scene.spec.caption(), "scene": text, "image": image}

    features = Features({"caption": Value("string"), "scene": Value("string"), "image": Image()})
    return Dataset.from_list(list(rows()), features=features)


def arrays(split: str, count: int, seed: int = 0) -> tuple[np.ndarray, list[str]]:
    """The split for training: images uint8 (N, H, W, 3) and captions."""
    scenes = [draw(split, index, seed) for index in range(count)]
    return np.stack([to_bytes(render(scene)) for scene in scenes]), [scene.spec.caption() for scene in scenes]
