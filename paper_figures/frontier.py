"""What a gain of the target reward costs: change of the oracle, of held-out rewards and of diversity, row by reward.

Means of a variant's runs with 95% intervals: of gain and oracle for new seeds and prompts, of the others over seeds
(none of a single one; of two often wider than the panel). Up and right is better: more reward, and less of the rest
lost. Means that no other mean beats in one and matches in the other are ringed and joined, whatever their intervals.
Left of the line at zero the rest got worse while the reward rose: reward hacking. Held-out rewards have different
scales, so each one's change is divided by the standard deviation of the base model's scores over prompts before they
are averaged. Diversity is of latents and means nothing once a model has collapsed: there, variants whose oracle has
fallen below half of the base model's are left out.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from benchmark import statistics
from benchmark.records.results import Results

from . import style

NEEDS = "an evaluated run on the reward"
PANELS = {
    "oracle": "change of the oracle",
    "heldout": "change of held-out rewards,\nin SDs of the base's scores",
    "diversity": "change of diversity",
}
RING = {"color": "black", "marker": "o", "markersize": 9, "markerfacecolor": "none", "markeredgewidth": 0.6}


def heldout_change(runs: pd.DataFrame, deviations: pd.Series) -> pd.Series:
    """Mean change over the rewards that were not trained, each in standard deviations."""
    names = [c.split(".")[1] for c in runs.columns if c.startswith("heldout.") and c.endswith(".after")]
    changes = {n: runs[f"heldout.{n}.after"] - runs[f"heldout.{n}.before"] for n in names if n in deviations}
    return (pd.DataFrame(changes, index=runs.index) / deviations[list(changes)]).mean(axis=1)


def points(results: Results, reward: str) -> pd.DataFrame:
    """One row per variant: changes with the ends of their intervals, (gain, gain_low, gain_high), (oracle, ...), ..."""
    rows = []
    for variant in results.variants():
        runs = results.of(variant, reward)
        if runs.empty:
            continue
        scores = pd.read_csv(Path(runs.folder[0]) / "scores.csv")
        deviations = scores[(scores.split == "test") & (scores.when == "before")].std(numeric_only=True)
        seen = {
            "gain": results.gains(variant, reward),
            "oracle": results.gains(variant, reward, "oracle"),
            "heldout": heldout_change(runs, deviations).to_numpy()[:, None],
            "diversity": (runs.diversity_after - runs.diversity_before).to_numpy(float)[:, None],
        }
        row = {"variant": variant, "seeds": len(runs)}
        for name, changes in seen.items():
            if changes is None or np.isnan(changes).any():
                continue
            interval = statistics.crossed_interval(changes) if changes.size > 1 else [changes.item()] * 3
            row |= dict(zip((name, f"{name}_low", f"{name}_high"), interval, strict=True))
        if "oracle" in row and (runs.oracle_after.mean() < runs.oracle_before.mean() / 2):
            row = {name: value for name, value in row.items() if not name.startswith("diversity")}
        rows.append(row)
    return pd.DataFrame(rows)


def figure(results: Results) -> Figure | None:
    tables = {reward: table for reward in results.rewards() if len(table := points(results, reward))}
    if not tables:
        return None
    variants = [v for v in results.variants() if any(v in set(table.variant) for table in tables.values())]
    figure = style.new(results, "Gain of the target reward and what it costs", 1.2 + 2.1 * len(tables))
    grid = figure.subplots(len(tables), len(PANELS), sharey="row", squeeze=False)
    for row, (reward, table) in zip(grid, tables.items(), strict=True):
        for axes, column in zip(row, PANELS, strict=True):
            draw(axes, table, column)
        row[0].set_ylabel(f"gain of {style.short(reward)}, {style.seeds(table.seeds.tolist())}")
    for axes, label in zip(grid[-1], PANELS.values(), strict=True):
        axes.set_xlabel(label)
    looks = {variant: style.of(variant).point() | {"linestyle": ""} for variant in variants}
    looks["no mean beats it\nin one and matches it in the other"] = RING | {"linewidth": 0.8}
    style.legend(figure, style.handles(looks), min(5, -(-len(looks) // 2)))
    return figure


def draw(axes: Axes, table: pd.DataFrame, column: str) -> None:
    """One panel: means with intervals, and their frontier."""
    known = table.dropna(subset=[column, "gain"]) if {column, "gain"} <= set(table) else table[:0]
    if known.empty:
        axes.text(0.5, 0.5, "not measured", ha="center", transform=axes.transAxes, color=style.GREY)
        return
    axes.axvline(0, color=style.GREY, linewidth=0.8, zorder=0)
    best = known[statistics.frontier(known[[column, "gain"]].to_numpy())].sort_values(column)
    axes.plot(best[column], best.gain, color="black", linewidth=0.8, zorder=2, gid="frontier")
    axes.plot(best[column], best.gain, linestyle="", zorder=5, **RING)
    for row in known[::-1].to_dict("records"):
        look = style.of(row["variant"])
        ends = {"color": look.colour, "linewidth": 0.7, "alpha": 0.6, "zorder": 1}
        axes.plot([row[f"{column}_low"], row[f"{column}_high"]], [row["gain"]] * 2, **ends)
        axes.plot([row[column]] * 2, [row["gain_low"], row["gain_high"]], **ends)
        axes.plot(row[column], row["gain"], ls="", zorder=4, gid=row["variant"], **look.point() | {"markersize": 5})
    if left_out := len(table) - len(known):
        axes.set_title(f"{left_out} collapsed left out" if column == "diversity" else "", fontsize=6, color=style.GREY)
    axes.set(xlim=style.limits([*known[column], 0]), ylim=style.limits([*table.gain, 0]))
    axes.xaxis.set_major_locator(MaxNLocator(4))
