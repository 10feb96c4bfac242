"""The benchmark's tables from its records: CSV (numbers), Markdown and LaTeX (to read). No torch."""

import functools
from pathlib import Path

from ...records.profile import Profile, ProfileError
from ...records.results import Results
from . import curves, matrix, probes
from .table import Table, write

PAPER = (matrix.table1, matrix.table2, matrix.table3)
ENDS = (matrix.choice, matrix.ranking, *PAPER, matrix.controls, matrix.spacing, matrix.side_effects)
PROBES = (probes.cost, probes.gpu, probes.gradients, probes.acting)
TABLES = (*ENDS, curves.time_to_target, curves.equal_gain, *PROBES, matrix.rates, curves.settled, matrix.state)
NAMES = [make.__name__ for make in TABLES]

__all__ = ["NAMES", "Table", "build", "open_results", "table", "write"]


@functools.lru_cache(maxsize=64)
def table(results: Results, name: str) -> Table:
    """One of the tables by its name; made once."""
    return dict(zip(NAMES, TABLES, strict=True))[name](results)


def build(results: Results) -> list[Table]:
    """All tables of a suite."""
    made = [table(results, name) for name in NAMES]
    return made + [matrix.published_scale(results)] * (results.suite == "sd15")


def open_results(params: Path, root: Path) -> list[Results]:
    """The results of every suite of a profile. Raises ProfileError."""
    profile = Profile.read(params)
    for suite in profile.suites:
        if not (root / suite).is_dir():
            raise ProfileError(f"{root / suite} is no folder of results; the pipeline or benchmark.sweep makes it")
    return [Results.read(root, profile, suite) for suite in profile.suites]
