"""The benchmark's tables from its records: CSV (numbers), Markdown and LaTeX (to read). No torch."""

from __future__ import annotations

from pathlib import Path

from ...records.profile import Profile, ProfileError
from ...records.results import Results
from . import curves, matrix, probes
from .table import Table, write

TABLES = (
    matrix.choice, matrix.ranking, matrix.table1, matrix.table2, matrix.table3, matrix.controls, matrix.spacing,
    matrix.side_effects, curves.time_to_target, curves.equal_gain, probes.cost, probes.gpu, probes.gradients,
    probes.acting, matrix.rates, curves.settled, matrix.state,
)  # fmt: skip

__all__ = ["TABLES", "Table", "build", "open_results", "write"]


def build(results: Results) -> list[Table]:
    made = [make(results) for make in TABLES]
    return made + [matrix.published_scale(results)] * (results.suite == "sd15")


def open_results(params: Path, root: Path) -> list[Results]:
    """The results of every suite of a profile. Raises ProfileError."""
    profile = Profile.read(params)
    for suite in profile.suites:
        if not (root / suite).is_dir():
            raise ProfileError(f"{root / suite} is no folder of results; the pipeline or benchmark.sweep makes it")
    return [Results.read(root, profile, suite) for suite in profile.suites]
