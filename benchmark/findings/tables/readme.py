"""What a README has of the results, between marks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from ...records.profile import ProfileError
from ...records import write_text
from ...records.results import Results
from .matrix import cell_row, choice, interval_of, seeds_of
from .probes import cost, gpu
from .table import NOT_MEASURED, piped

MARKS = "<!-- {} -->", "<!-- end of {} -->"


def progress(results: Results) -> list[str]:
    """How much of the matrix is there, in a sentence."""
    cells = pd.DataFrame([key for key in results.profile.cells() if key.suite == results.suite])
    expected = cells.reward.value_counts()
    here = results.runs.reward.value_counts() if len(results.runs) else {}
    parts = ", ".join(f"`{reward}` {here.get(reward, 0)} of {expected[reward]}" for reward in results.rewards())
    return [f"{len(results.runs)} of {len(cells)} cells of the standard matrix are there: {parts}."]


def summary(results: Results) -> list[str]:
    """Cost, gain and oracle of every method, the largest gain of the first reward first, in a few columns."""
    rewards = [reward for reward in results.rewards() if len(results.runs) and (results.runs.reward == reward).any()]
    found = {(m, r): cell_row(results, m, r) for m in results.profile.methods() for r in rewards}
    costs = cost(results).frame.set_index("method") if results.cost is not None else pd.DataFrame()

    def price(variant: str, name: str) -> str:
        known = variant in costs.index and np.isfinite(costs.loc[variant, name])
        return f"{costs.loc[variant, name]:.0f}" if known else ""

    rows = [["method", "run, s", "few-step model, s", "peak MB"]]
    rows[0] += [head for reward in rewards for head in (f"{reward}, gain", "oracle")]
    rows.append(["---"] * len(rows[0]))

    def gain(variant: str) -> float:
        row = found[variant, rewards[0]] if rewards else None
        return row["gain"] if row else -np.inf

    for variant in sorted(results.profile.methods(), key=gain, reverse=True):
        line = [f"`{variant}`", *(price(variant, name) for name in ("run_seconds", "few_step_seconds", "peak_mb"))]
        for reward in rewards:
            if (row := found[variant, reward]) is None:
                line += [NOT_MEASURED, ""]
                continue
            line += [f"{interval_of(row, 'gain')} ({seeds_of(results, variant, reward)})", interval_of(row, "oracle")]
        rows.append(line)
    return piped(rows)


def blocks(results: Results, verdicts: list[dict]) -> dict[str, list[str]]:
    """What stands between the marks, by their names."""
    return {"choice": choice(results).lines(), "state": progress(results),
            "results": summary(results), "cost": cost(results).lines(),
            "gpu": gpu(results).lines()}  # fmt: skip


def into_readme(readme: Path, parts: dict[str, list[str]]) -> None:
    """Put lines between the marks that bear their names in a text file. Raises ProfileError where it has no marks."""
    text = readme.read_text(encoding="utf-8")
    for name, lines in parts.items():
        first, last = (mark.format(name) for mark in MARKS)
        if not text.count(first) == text.count(last) == 1:
            raise ProfileError(f"{readme} must have the lines {first} and {last} once each")
        text = "\n".join([text.split(first)[0] + first, *lines, last]) + text.split(last)[1]
    write_text(readme, text)
