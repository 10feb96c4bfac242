"""Prompts: HPDv2 (Wu et al., 2023, arXiv:2306.09341), or the simple animals of DDPO (Black et al., ICLR 2024)."""

import functools
import hashlib
import itertools
from pathlib import Path

from ...rewards.published.weights import WeightFile, sampled_digest

_SIZES = {"train": "0.3 GB", "test": ""}
HPDV2 = [WeightFile(f"hpdv2/{name}.json", "--repo-type dataset ymhao/HPDv2", size) for name, size in _SIZES.items()]

# DDPO's 45 animals, AlignProp's six more for evaluation, and six of ours for validation.
_ANIMALS = """cat dog horse monkey rabbit zebra spider bird sheep deer cow goat lion tiger bear raccoon fox wolf lizard
beetle ant butterfly fish shark whale dolphin squirrel mouse rat snake turtle frog chicken duck goose bee pig turkey fly
llama camel bat gorilla hedgehog kangaroo"""
ANIMALS = tuple(_ANIMALS.split())
UNSEEN = ("snail", "hippopotamus", "cheetah", "crocodile", "lobster", "octopus")
VALIDATION = ("giraffe", "penguin", "owl", "seal", "crab", "donkey")
ACTIVITIES = ("riding a bike", "playing chess", "washing dishes")  # DDPO's, for prompts that combine


def _article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeio" else f"a {noun}"


def animals(split: str) -> list[str]:
    """Prompts of one animal each; ``combinations`` has the training animals at what animals do not do."""
    if split == "combinations":
        return [f"{_article(animal)} {activity}" for animal, activity in itertools.product(ANIMALS, ACTIVITIES)]
    return {"train": [*ANIMALS], "test": [*UNSEEN], "validation": [*VALIDATION]}[split]


def _number(prompt: str) -> int:
    """A number that belongs to a prompt: it orders prompts, and picks those of the validation split."""
    return int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:8], "big")


@functools.lru_cache
def hpdv2(split: str, folder: Path) -> list[str]:
    """Different prompts of HPDv2 in a fixed shuffled order.

    ``test`` is HPDv2's own; of its training prompts every fiftieth is ``validation``'s; ``combinations``, prompts of
    another kind than any of training, are the animals at what animals do not do.
    """
    if split == "combinations":
        return animals(split)
    from datasets import disable_progress_bars, load_dataset

    disable_progress_bars()
    own = "test" if split == "test" else "train"
    (file,) = (file for file in HPDV2 if own in file.path)
    rows = load_dataset("json", data_files=str(file.at(folder)), split="train")
    prompts = sorted(dict.fromkeys(rows["prompt"]), key=_number)
    if split == "test":
        return prompts
    held_out = set(hpdv2("test", folder))
    prompts = [prompt for prompt in prompts if prompt not in held_out]
    return [prompt for prompt in prompts if (_number(prompt) % 50 == 0) == (split == "validation")]


def take(prompts: list[str], count: int, split: str) -> list[str]:
    """The first ``count``; again from the start where there are fewer, but never twice in training."""
    return prompts[:count] if split == "train" else list(itertools.islice(itertools.cycle(prompts), count))


def digest(folder: Path) -> str:
    """What HPDv2's files are recognised by."""
    return "+".join(sampled_digest(file.at(folder)) for file in HPDV2)
