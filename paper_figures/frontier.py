"""What a gain of the target reward costs: change of the oracle, of held-out rewards and of diversity against it.

A small point is a run, a large one the mean of a variant's runs. Up and right is better: more reward, and less of the
rest lost. Means on the Pareto frontier, which no other mean beats in one and matches in the other, are ringed and
joined. Left of the line at zero the rest got worse while the reward rose: reward hacking. Held-out rewards have
different scales, so each one's change is divided by the standard deviation of the base model's scores over prompts
before they are averaged.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
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


def figure(results: Results, reward: str | None = None) -> Figure | None:
    reward = reward or results.rewards()[0]
    table = points(results, reward)
    if table.empty:
        return None
    variants = list(dict.fromkeys(table.variant))
    counts = style.seeds(table.groupby("variant").size().tolist())
    figure = style.new(results, f"Gain of {style.short(reward)} and what it costs, {counts}", 3.4)
    for axes, (column, label) in zip(figure.subplots(1, 3, sharey=True), PANELS.items(), strict=True):
        axes.set_xlabel(label)
        known = table.dropna(subset=[column, "gain"])
        if known.empty:
            axes.text(0.5, 0.5, "not measured", ha="center", transform=axes.transAxes, color=style.GREY)
            continue
        axes.axvline(0, color=style.GREY, linewidth=0.8, zorder=0)
        means = known.groupby("variant", sort=False)[[column, "gain"]].mean()
        best = means[statistics.frontier(means.to_numpy())].sort_values(column)
        axes.plot(best[column], best.gain, color="black", linewidth=0.8, zorder=2, gid="frontier")
        axes.plot(best[column], best.gain, linestyle="", marker="o", markersize=10, markerfacecolor="none",
                  markeredgecolor="black", markeredgewidth=0.8, zorder=5)  # fmt: skip
        for variant in reversed(variants):
            if variant in means.index:
                look, runs = style.of(variant).point(), known[known.variant == variant]
                axes.plot(runs[column], runs.gain, linestyle="", zorder=1, **look
                          | {"markersize": 2.2, "alpha": 0.45, "markeredgewidth": 0.5})  # fmt: skip
                axes.plot(*means.loc[variant], linestyle="", zorder=4, **look | {"markersize": 5.5}, gid=variant)
        axes.margins(0.1)
        axes.xaxis.set_major_locator(MaxNLocator(4))
    figure.axes[0].set_ylabel(f"gain of {style.short(reward)}")
    handles = style.variant_handles(variants)
    for handle in handles:
        handle.set_linestyle("")
    style.legend(figure, handles, min(5, int(np.ceil(len(handles) / 2))))
    return figure
