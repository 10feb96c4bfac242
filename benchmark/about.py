"""What pipeline and findings need of the code, as a record: what rows belong to, titles, the methods' chains.

    python -m benchmark.about --params params.yaml --suite mini --out results          writes results/mini/about.json

Figures and report read the record (``Results.about``), so they need neither torch nor the methods' code. The stages of
``dvc.yaml`` depend on its ``rows``: a cell runs again where the code of its method or the weights have changed.
"""

import dataclasses
import sys
from pathlib import Path

import methods

from . import suites
from .cli import Params, Records, SuiteName, command
from .config import resolve
from .errors import one_line, unknown
from .records import write_json
from .records.profile import Profile
from .rewards import PIXEL_REWARDS
from .training.identity import identity


def first_line(text: str | None) -> str:
    return (text or "").strip().partition("\n")[0].rstrip(".")


def title(cls: type[methods.Method]) -> str:
    """What a method does: a file of ``methods/`` opens with "Name: what", any other class with what."""
    module = sys.modules[cls.__module__]
    if module.__package__ == methods.__name__:
        return first_line(module.__doc__).partition(": ")[2]
    return first_line(cls.__doc__)


def plans(found: dict[str, type[methods.Method]], steps: int) -> dict[str, list[dict]]:
    """Every method's plan on a grid of ``steps``, options at their defaults, a row per stage of training.

    A policy gradient has none: there is no gradient along its chain.
    """
    rows = {}
    for name, cls in found.items():
        if issubclass(cls, methods.DirectReward):
            method = cls()
            count = method.chain_steps or steps
            timesteps = [1000 // count * i + 1 for i in reversed(range(count))]
            stages = [plan for _, plan in method.phases(timesteps)]
            numbered = [f"{name} {number}" for number in range(1, len(stages) + 1)]
            hops = [[dataclasses.asdict(hop) for hop in plan] for plan in stages]
            rows |= zip(numbered if len(stages) > 1 else [name], hops, strict=True)
    return rows


def belongs(profile: Profile, suite: str, row: str, reward: str) -> dict:
    """What a row of the tables belongs to: method, options, hashes of code and weights. reward: any that it has."""
    config = resolve(suite, profile.method(row), reward, 0, profile.budget, "cpu", None, profile.overrides(row))
    found, options = identity(config), profile.variants.get(row, {})
    return {"method": config.method, **options} | {"code": found["method"], "weights": found["weights"]}


def about(profile: Profile, suite: str) -> dict:
    """The record's content. Raises InputError for an unknown suite and for a method that cannot be imported."""
    if suite not in suites.names():
        raise unknown("suite", suite, suites.names())
    kind, own = suites.kind(suite), methods.names()
    with one_line(ImportError, TypeError):
        found = {name: methods.find(name) for name in [*own, *map(profile.method, profile.variants)]}
    rows = {key.variant: key.reward for key in reversed(profile.cells()) if key.suite == suite}
    pixels = {name: first_line(cls.__doc__) for name, cls in PIXEL_REWARDS.items()}
    return {
        "suite": {"name": suite, "title": kind.title},
        "methods": {name: {"title": title(cls)} for name, cls in found.items()},
        "rewards": pixels | kind.learned_rewards | kind.combinations,
        "rows": {row: belongs(profile, suite, row, reward) for row, reward in sorted(rows.items())},
        "tuned": {reward: profile.tuned(reward) for reward in profile.rewards},
        "plans": plans({name: found[name] for name in own}, kind.steps),
    }


@command
def main(params: Params = Path("params.yaml"), suite: SuiteName = "mini", out: Records = Path("results")) -> None:
    """Write what suite, methods and rewards are called, and what the methods' chains look like, into the records."""
    path = out / suite / "about.json"
    write_json(path, about(Profile.read(params), suite))
    print(f"written to {path}")


if __name__ == "__main__":
    main()
