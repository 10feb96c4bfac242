"""Does the shortcut keep to the base chain? Claim C5, question Q1; one row per spacing of the sampler.

Left: relative error of the latents after one jump of the few-step model (filled) and one DDIM jump of the base model
(open) over each stretch that ShortFT skips, then of images made by four jumps alone and by ShortFT's whole chain. Left
is closer to the base chain. Right, a panel per reward: mean change of an image's score from the base chain's image, for
each shortened chain; at the line it leaves the reward alone, beside it ShortFT trains on a chain that looks better or
worse than what it samples. Bars are 95% bootstrap intervals over prompts.
"""

import itertools

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from benchmark.records.results import Results

from . import style

NEEDS = "the fidelity probe's tables (benchmark.fidelity)"
LOOKS = {
    "shortcut": {"marker": "o"} | style.fill(style.VERMILLION, True),
    "naive": {"marker": "s"} | style.fill(style.BLUE, False),
    "coarse": {"marker": "D"} | style.fill(style.GREY, False),
}
WORDS = ("few-step model", "one DDIM jump of the base model", "coarse DDIM chain")


def draw_jumps(axes: Axes, table: pd.DataFrame) -> None:
    for (row, stretch), kind in itertools.product(enumerate(table.itertuples()), ("shortcut", "naive")):
        value, low, high = (getattr(stretch, kind + end) for end in ("", "_low", "_high"))
        y, look = row + (-0.13 if kind == "shortcut" else 0.13), LOOKS[kind]
        style.interval(axes, y, low, high, color=look["color"])
        axes.plot(value, y, linestyle="", gid=f"{kind} {stretch.stretch}", **look)
    style.rows(axes, [name.replace("->", " → ") for name in table.stretch])
    axes.set_xlim(0, None)


def draw_changes(axes: Axes, table: pd.DataFrame, names: bool) -> None:
    axes.axvline(0, color=style.GREY, linewidth=0.8, zorder=0)
    for y, row in enumerate(table.itertuples()):
        look = LOOKS["naive" if "naive" in row.chain else "coarse" if row.chain == "coarse" else "shortcut"]
        style.interval(axes, y, row.change_low, row.change_high, color=look["color"])
        axes.plot(row.change, y, linestyle="", markersize=3.5, **look)
    style.rows(axes, list(table.chain) if names else [""] * len(table))
    axes.set_title(style.short(table.reward.iloc[0], 16), fontsize=7, pad=2)
    axes.xaxis.set_major_locator(MaxNLocator(3, symmetric=True))


def by_reward(images: pd.DataFrame | None) -> list[pd.DataFrame]:
    """The shortened chains' rows, a table per reward."""
    return [] if images is None else [part for _, part in images[images.chain != "base"].groupby("reward", sort=False)]


def figure(results: Results) -> Figure | None:
    tables = [(spacing, results.jumps(spacing), results.images(spacing)) for spacing in ("leading", "trailing")]
    tables = [row for row in tables if row[1] is not None or row[2] is not None]
    if not tables:
        return None
    changes = [by_reward(images) for _, _, images in tables]
    high = max(1, *(-(-len(rewards) // 3) for rewards in changes))  # rows of panels beside one of jumps
    figure = style.new(results, "Fidelity of the shortcut", 0.6 + 1.35 * max(high, 2) * len(tables))
    # One grid, no figures within the figure: their layout is not the same to the last digit in every process.
    grid = figure.add_gridspec(high * len(tables), 4, width_ratios=[1.4, 1, 1, 1])
    for number, ((spacing, jumps, _), rewards) in enumerate(zip(tables, changes, strict=True)):
        axes = figure.add_subplot(grid[number * high : (number + 1) * high, 0])
        axes.set_title(f"{spacing} spacing: error of jumps", fontsize=7)
        if jumps is None or jumps.empty:
            style.empty(axes)
        else:
            draw_jumps(axes, jumps)
            axes.set_xlabel("error of the latents, share of their size")
        for place, table in enumerate(rewards):
            panel = figure.add_subplot(grid[number * high + place // 3, 1 + place % 3])
            draw_changes(panel, table, place % 3 == 0)
            if place == len(rewards) - 1 - (len(rewards) - 1) % 3 // 2:  # middle of the last row
                panel.set_xlabel("change of the score of images, to the base chain's")
        if not rewards:
            style.empty(figure.add_subplot(grid[number * high : (number + 1) * high, 1:]))
    looks = dict(zip(WORDS, LOOKS.values(), strict=True))
    style.legend(figure, style.handles(looks, linewidth=1), 3)
    return figure
