"""What a gain of the target reward costs: change of the oracle, of held-out rewards and of diversity, row by reward.

A small point is a run, a large one the mean of a variant's runs. Up and right is better: more reward, and less of the
rest lost. Means on the Pareto frontier, which no other mean beats in one and matches in the other, are ringed and
joined. Left of the line at zero the rest got worse while the reward rose: reward hacking. Held-out rewards have
different scales, so each one's change is divided by the standard deviation of the base model's scores over prompts
before they are averaged. Diversity is of latents: of a model that has collapsed into blank pictures it can be large.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from benchmark import statistics
from benchmark.results import Results

from . import style

NEEDS = "an evaluated run on the reward"
PANELS = {
    "oracle": "change of the oracle",
    "heldout": "change of held-out rewards,\nin SDs of the base's scores",
    "diversity": "change of diversity",
}


def heldout_change(runs: pd.DataFrame, deviations: pd.Series) -> pd.Series:
    """Mean change over the rewards that were not trained, each in standard deviations."""
    names = [c.split(".")[1] for c in runs.columns if c.startswith("heldout.") and c.endswith(".after")]
    changes = {n: (runs[f"heldout.{n}.after"] - runs[f"heldout.{n}.before"]) / deviations[n]
               for n in names if n in deviations}  # fmt: skip
    return pd.DataFrame(changes, index=runs.index).mean(axis=1)


def points(results: Results, reward: str) -> pd.DataFrame:
    """One row per run: variant, gain, oracle, heldout, diversity (changes)."""
    tables = [results.of(variant, reward) for variant in results.variants()]
    runs = pd.concat([table for table in tables if len(table)] or [pd.DataFrame()], ignore_index=True)
    if runs.empty:
        return runs
    scores = pd.read_csv(Path(runs.folder[0]) / "scores.csv")
    deviations = scores[(scores.split == "test") & (scores.when == "before")].std(numeric_only=True)
    return pd.DataFrame(
        {"variant": runs.variant, "gain": runs.reward_after - runs.reward_before,
         "oracle": runs.oracle_after.astype(float) - runs.oracle_before.astype(float),
         "heldout": heldout_change(runs, deviations), "diversity": runs.diversity_after - runs.diversity_before}
    )  # fmt: skip


def figure(results: Results) -> Figure | None:
    tables = {reward: table for reward in results.rewards() if len(table := points(results, reward))}
    if not tables:
        return None
    variants = [v for v in results.variants() if any(v in set(table.variant) for table in tables.values())]
    figure = style.new(results, "Gain of the target reward and what it costs", 1.1 + 2.1 * len(tables))
    grid = figure.subplots(len(tables), len(PANELS), sharey="row", squeeze=False)
    for row, (reward, table) in zip(grid, tables.items(), strict=True):
        for axes, column in zip(row, PANELS, strict=True):
            draw(axes, table.dropna(subset=[column, "gain"]), column, variants)
        counts = style.seeds(table.groupby("variant").size().tolist())
        row[0].set_ylabel(f"gain of {style.short(reward)}, {counts}")
    for axes, label in zip(grid[-1], PANELS.values(), strict=True):
        axes.set_xlabel(label)
    handles = style.variant_handles(variants)
    for handle in handles:
        handle.set_linestyle("")
    style.legend(figure, handles, min(5, int(np.ceil(len(handles) / 2))))
    return figure


def draw(axes: Axes, known: pd.DataFrame, column: str, variants: list[str]) -> None:
    """One panel: runs, means and their frontier."""
    if known.empty:
        axes.text(0.5, 0.5, "not measured", ha="center", transform=axes.transAxes, color=style.GREY)
        return
    axes.axvline(0, color=style.GREY, linewidth=0.8, zorder=0)
    means = known.groupby("variant", sort=False)[[column, "gain"]].mean()
    best = means[statistics.frontier(means.to_numpy())].sort_values(column)
    axes.plot(best[column], best.gain, color="black", linewidth=0.8, zorder=2, gid="frontier")
    axes.plot(best[column], best.gain, linestyle="", marker="o", markersize=9, markerfacecolor="none",
              markeredgecolor="black", markeredgewidth=0.6, zorder=5)  # fmt: skip
    for variant in reversed(variants):
        if variant in means.index:
            look, runs = style.of(variant).point(), known[known.variant == variant]
            axes.plot(runs[column], runs.gain, linestyle="", zorder=1, **look
                      | {"markersize": 2.2, "alpha": 0.45, "markeredgewidth": 0.5})  # fmt: skip
            axes.plot(*means.loc[variant], linestyle="", zorder=4, **look | {"markersize": 5}, gid=variant)
    axes.margins(0.1)
    axes.xaxis.set_major_locator(MaxNLocator(4))
