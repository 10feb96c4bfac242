"""Gain of the target reward of every variant on every reward, one panel per reward: the main matrix at a glance.

A large marker is the mean change from the base model on held-out prompts, its bar the 95% interval for new seeds and
new prompts (``statistics.crossed_interval``), of two seeds often wider than the panel; with one seed it is dotted and
speaks of prompts alone. Small points are single seeds. The number at the right is how many seeds there are (of how
many, where some are missing). Right of the line the reward rose. "not measured": the profile has such runs, the records
none; a dash: the profile has none.
"""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from benchmark.records.results import Results
from benchmark.statistics import crossed_interval

from . import style

NEEDS = "an evaluated run"


def draw_row(axes: Axes, y: int, variant: str, gains: np.ndarray, expected: int) -> None:
    """Gains (seeds, prompts) as interval, mean and single seeds."""
    look, mean = style.of(variant), crossed_interval(gains)
    style.interval(axes, y, mean.low, mean.high, color=look.colour, linewidth=1.4 if len(gains) > 1 else 1.2,
                   linestyle="-" if len(gains) > 1 else style.DOTS)  # fmt: skip
    axes.plot(mean.value, y, linestyle="", zorder=4, gid=variant, **look.point() | {"markersize": 4.5})
    seeds = gains.mean(1)
    axes.plot(seeds, np.full(len(seeds), y + 0.3), linestyle="", marker=".", markersize=2, color=look.colour, zorder=3)
    count = str(len(gains)) if len(gains) == expected else f"{len(gains)}/{expected}"
    axes.annotate(count, (1.02, y), xycoords=("axes fraction", "data"), va="center", fontsize=5.5,
                  color=style.GREY)  # fmt: skip


def gains_of(results: Results, variant: str, reward: str) -> np.ndarray | str | None:
    """Gains (seeds, prompts), or in words why there are none; None: the profile has none."""
    try:
        gains = results.gains(variant, reward)
    except ValueError:  # their mean would be of no one thing
        return "seeds have other prompts"
    return gains if gains is not None else "not measured" if results.expected(variant, reward) else None


def figure(results: Results) -> Figure | None:
    rewards, variants = results.rewards(), results.variants()
    gains = {(v, r): gains_of(results, v, r) for v in variants for r in rewards}
    if not any(isinstance(found, np.ndarray) for found in gains.values()):
        return None
    rows = -(-len(rewards) // 3)
    figure = style.new(results, "Gain of the target reward", 0.7 + rows * (0.45 + 0.165 * len(variants)))
    axes, spare = style.grid(figure, len(rewards), sharey=True)
    for panel, reward in zip(axes, rewards, strict=True):
        panel.axvline(0, color=style.GREY, linewidth=0.8, zorder=0)
        for y, variant in enumerate(variants):
            found = gains[variant, reward]
            if isinstance(found, np.ndarray):
                draw_row(panel, y, variant, found, len(results.expected(variant, reward)))
            else:
                panel.annotate(found or "\N{EN DASH}", (0.5, y), xycoords=("axes fraction", "data"), ha="center",
                               va="center", fontsize=6, color=style.GREY)  # fmt: skip
        panel.set(ylim=(len(variants) - 0.4, -0.6), yticks=range(len(variants)), yticklabels=variants)
        panel.set_title(style.short(reward))
        panel.annotate("seeds", (1.02, -0.75), xycoords=("axes fraction", "data"), fontsize=5.5, color=style.GREY,
                       va="bottom", annotation_clip=False)  # fmt: skip
        panel.tick_params(axis="y", length=0)
        panel.xaxis.set_major_locator(MaxNLocator(4))
        measured = [found for variant in variants if isinstance(found := gains[variant, reward], np.ndarray)]
        if measured:
            panel.set_xlim(style.limits([0, *(mean for found in measured for mean in found.mean(1))], 0.15))
        else:
            panel.set_xticks([])
        panel.grid(axis="y", color="#eeeeee", linewidth=0.6)
        panel.set_axisbelow(True)
    grey = {"color": style.GREY}
    handles = [
        Line2D([], [], marker="o", linewidth=1.4, label="mean, 95% interval:\nnew seeds, new prompts", **grey),
        Line2D([], [], marker="o", linestyle=style.DOTS, label="of one seed: new prompts", **grey),
        Line2D([], [], marker=".", markersize=2, linestyle="", label="a seed", **grey),
        Line2D([], [], linestyle="", label="\N{EN DASH}   not in the profile", **grey),
    ]
    style.legend(figure, handles, 4, spare, "change from the base model, held-out prompts, 95% interval")
    return figure
