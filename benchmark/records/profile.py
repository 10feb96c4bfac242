"""A profile (``params.yaml``): which cells the matrix has, at which budget, and how their rates are tuned. No torch.

A *variant* is a row of the tables: a method, or a method with options that the profile names
(``shortft-one-lora: {method: shortft, timestep_aware: false}``). A group of cells is a stage of ``dvc.yaml``.
"""

import itertools
import json
from pathlib import Path
from typing import NamedTuple, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

import methods

from ..errors import InputError
from .files import file_name, run_folder


class ProfileError(InputError):
    """A profile, or what it leads to, is wrong."""


class CellKey(NamedTuple):
    """Where a cell stands in the matrix. ``stage``: its address in DVC."""

    suite: str
    variant: str
    reward: str
    seed: int
    stage: str

    def folder(self, root: Path) -> Path:
        return run_folder(root, self.suite, self.reward, self.variant, self.seed)


class Part(BaseModel):
    """A part of a params file: nothing unknown may stand in it."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Group(Part):
    """Rows of the tables (methods as they are, or variants) x rewards x seeds."""

    rows: list[str]
    rewards: list[str]
    seeds: list[int]


class Tuning(Part):
    budget: str
    seed: int
    rates: list[float]
    growths: int = Field(ge=0)
    prompts: int = Field(ge=8)


class Gradients(Part):
    reward: str
    batches: int
    redraws: int
    checkpoints: str
    methods: str


class Fidelity(Part):
    prompts: int
    spacings: list[str]


class Cost(Part):
    steps: int
    rounds: int
    methods: list[str]


class Profile(Part):
    """The content of a params file."""

    suites: list[str]
    rewards: list[str]
    budget: str
    settings: dict = {}
    variants: dict[str, dict] = {}
    groups: dict[str, Group]
    tuning: Tuning
    gradients: Gradients
    fidelity: Fidelity
    cost: Cost

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read and check a file. Raises ProfileError."""
        try:
            profile = cls.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise ProfileError(f"there is no file {path}; a profile is expected, such as params.yaml") from None
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ProfileError(f"{path} is no YAML file that can be read ({type(error).__name__})") from None
        except ValidationError as error:
            problem = error.errors()[0]
            raise ProfileError(f"{path}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}") from None
        if sorted(profile.rewards) != sorted({key.reward for key in profile.cells()}):
            raise ProfileError(f"{path}: 'rewards' are not those of the groups")
        if profile.gradients.reward not in profile.rewards:
            raise ProfileError(f"{path}: gradients.reward is {profile.gradients.reward}, which is not among 'rewards'")
        known = methods.names()
        for variant in dict.fromkeys(key.variant for key in profile.cells()):
            method = profile.method(variant)
            if ":" not in method and method not in known:
                there = f"{path}: groups name {variant}, which is no method and which 'variants' does not describe"
                raise ProfileError(f"{there}; methods: {', '.join(known)}")
        return profile

    def methods(self) -> list[str]:
        """Methods that stand in the matrix as they are."""
        rows = (row for group in self.groups.values() for row in group.rows)
        return list(dict.fromkeys(row for row in rows if row not in self.variants))

    def cells(self) -> list[CellKey]:
        """Every cell, one seed of everything first. Raises ProfileError where two groups have the same cell."""
        found = {}
        for stage, group in self.groups.items():
            for row, suite, reward, seed in itertools.product(group.rows, self.suites, group.rewards, group.seeds):
                address = f"{stage}@{suite}-{row}-{reward}-{seed}"
                key = CellKey(suite, row, reward, seed, address)
                if key[:-1] in found:
                    raise ProfileError(f"{address} and {found[key[:-1]].stage} are the same cell; name it once")
                found[key[:-1]] = key
        return sorted(found.values(), key=lambda key: key.seed)

    def method(self, variant: str) -> str:
        return self.variants.get(variant, {}).get("method", variant)

    def overrides(self, variant: str) -> list[str]:
        """What ``--set`` has to be given for a variant: the profile's settings and the variant's options."""
        options = self.settings | {k: v for k, v in self.variants.get(variant, {}).items() if k != "method"}
        return [f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in options.items()]

    def tuned(self, reward: str) -> list[str]:
        """The variants that the matrix has for a reward; every one of them is tuned."""
        return list(dict.fromkeys(key.variant for key in self.cells() if key.reward == reward))


def rate_file(root: Path, suite: str, reward: str) -> Path:
    """Where ``benchmark.tune`` leaves the rates of a reward: variant -> learning rate."""
    return root / suite / "tuning" / f"{file_name(reward)}.yaml"


def read_rates(path: Path) -> dict[str, float]:
    """Learning rates by variant. Raises ProfileError."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        content = None
    if not isinstance(content, dict) or not all(isinstance(rate, float) and rate > 0 for rate in content.values()):
        raise ProfileError(f"{path} is no table of learning rates; make it with benchmark.tune")
    return content
