"""Gain of the target reward of every variant on every reward, one panel per reward: the main matrix at a glance.

A large marker is the mean change from the base model on held-out prompts, its bar the 95% interval for new seeds and
new prompts (``statistics.crossed_interval``), of two seeds often wider than the panel; with one seed it is dotted and
speaks of prompts alone. Small points are single seeds. The number at the right is how many seeds there are (of how
many, where some are missing). Right of the line the reward rose. "not measured": the profile has such runs, the records
none; a dash: the profile has none.
"""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from benchmark.records.results import Results
from benchmark.statistics import crossed_interval

from . import style

NEEDS = "an evaluated run"


def draw_row(axes: Axes, y: int, variant: str, gains: np.ndarray, expected: int) -> None:
    """Gains (seeds, prompts) as interval, mean and single seeds."""
    look, mean = style.of(variant), crossed_interval(gains)
    width, line = (1.4, "-") if len(gains) > 1 else (1.2, style.DOTS)
    style.interval(axes, y, mean.low, mean.high, color=look.colour, linewidth=width, linestyle=line)
    axes.plot(mean.value, y, linestyle="", zorder=4, gid=variant, **look.point() | {"markersize": 4.5})
    seeds = gains.mean(1)
    axes.plot(seeds, np.full(len(seeds), y + 0.3), linestyle="", marker=".", markersize=2, color=look.colour, zorder=3)
    count = str(len(gains)) if len(gains) == expected else f"{len(gains)}/{expected}"
    style.note(axes, count, 1.02, y, ha="left", fontsize=5.5)


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
    title, height = "Gain of the target reward", 0.45 + 0.165 * len(variants)
    figure, axes, spare = style.panels(results, title, len(rewards), 0.7, height, sharey=True)
    for panel, reward in zip(axes, rewards, strict=True):
        panel.axvline(0, color=style.GREY, linewidth=0.8, zorder=0)
        for y, variant in enumerate(variants):
            found = gains[variant, reward]
            if isinstance(found, np.ndarray):
                draw_row(panel, y, variant, found, len(results.expected(variant, reward)))
            else:
                style.note(panel, found or "\N{EN DASH}", 0.5, y)
        style.rows(panel, variants, 0.6, grid=True)
        panel.set_title(style.short(reward))
        style.note(panel, "seeds", 1.02, -0.75, ha="left", va="bottom", fontsize=5.5, annotation_clip=False)
        panel.xaxis.set_major_locator(MaxNLocator(4))
        measured = [found for variant in variants if isinstance(found := gains[variant, reward], np.ndarray)]
        if measured:
            panel.set_xlim(style.limits([0, *(mean for found in measured for mean in found.mean(1))], 0.15))
        else:
            panel.set_xticks([])
    looks = {
        "mean, 95% interval:\nnew seeds, new prompts": {"marker": "o", "linewidth": 1.4},
        "of one seed: new prompts": {"marker": "o", "linestyle": style.DOTS},
        "a seed": {"marker": ".", "markersize": 2, "linestyle": ""},
        "\N{EN DASH}   not in the profile": {"linestyle": ""},
    }
    label = "change from the base model, held-out prompts, 95% interval"
    style.legend(figure, style.handles(looks, color=style.GREY), 4, spare, label)
    return figure
