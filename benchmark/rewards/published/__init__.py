"""The published reward models, loaded from local files; nothing here reaches for the network.

Importing this imports none of their packages: ``load`` does, after the files have been checked.
"""

import importlib
from pathlib import Path

from ..interface import Reward
from .weights import weights_folder

# Name, of the module too -> class.
PUBLISHED = {"hps": "HPS", "imagereward": "ImageReward", "pickscore": "PickScore"}
PUBLISHED |= {"aesthetic": "Aesthetic", "clipscore": "ClipScore"}


def find(name: str) -> type[Reward]:
    """The class of a published reward; KeyError if there is none of this name."""
    cls = PUBLISHED[name]
    return getattr(importlib.import_module(f"{__name__}.{name}"), cls)


def load(name: str, folder: Path | None = None, **options) -> Reward:
    """A published reward with the weights below ``folder``; RewardError says in one sentence what is missing."""
    return find(name)(folder or weights_folder(), **options)
