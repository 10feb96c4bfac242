"""Does the shortcut keep to the base chain? Claim C5, question Q1; one row per spacing of the sampler.

Left: relative error of the latents after one jump of the few-step model (filled) and one DDIM jump of the base model
(open) over each stretch that ShortFT skips, then of images made by four jumps alone and by ShortFT's whole chain. Left
is closer to the base chain. Right, a panel per reward: mean change of an image's score from the base chain's image, for
each shortened chain; at the line it leaves the reward alone, beside it ShortFT trains on a chain that looks better or
worse than what it samples. Bars are 95% bootstrap intervals over prompts.
"""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from benchmark.records.results import Results

from . import style

NEEDS = "the fidelity probe's tables (benchmark.fidelity)"
KINDS = {"shortcut": (style.VERMILLION, True), "naive": (style.BLUE, False)}


def draw_jumps(axes: Axes, table: pd.DataFrame) -> None:
    for y, row in enumerate(table.itertuples()):
        for (kind, (colour, filled)), shift in zip(KINDS.items(), (-0.13, 0.13), strict=True):
            low, high = getattr(row, f"{kind}_low"), getattr(row, f"{kind}_high")
            style.interval(axes, y + shift, low, high, color=colour)
            axes.plot(getattr(row, kind), y + shift, linestyle="", marker="o" if filled else "s", color=colour,
                      markerfacecolor=colour if filled else "white", gid=f"{kind} {row.stretch}")  # fmt: skip
    axes.set(ylim=(len(table) - 0.5, -0.5), yticks=range(len(table)), yticklabels=table.stretch, xlim=(0, None))
    axes.set_yticklabels([name.replace("->", " → ") for name in table.stretch])


def colour_of(chain: str) -> tuple[str, bool]:
    if "naive" in chain:
        return KINDS["naive"]
    return (style.GREY, False) if chain == "coarse" else KINDS["shortcut"]


def draw_changes(axes: Axes, table: pd.DataFrame, names: bool) -> None:
    axes.axvline(0, color=style.GREY, linewidth=0.8, zorder=0)
    for y, row in enumerate(table.itertuples()):
        colour, filled = colour_of(row.chain)
        style.interval(axes, y, row.change_low, row.change_high, color=colour)
        marker = "D" if row.chain == "coarse" else "o" if filled else "s"
        axes.plot(row.change, y, linestyle="", marker=marker, markersize=3.5, color=colour,
                  markerfacecolor=colour if filled else "white")  # fmt: skip
    axes.set(ylim=(len(table) - 0.5, -0.5), yticks=range(len(table)), yticklabels=table.chain if names else [])
    axes.set_title(style.short(table.reward.iloc[0], 16), fontsize=7, pad=2)
    axes.xaxis.set_major_locator(MaxNLocator(3, symmetric=True))


def figure(results: Results) -> Figure | None:
    tables = [(spacing, results.jumps(spacing), results.images(spacing)) for spacing in ("leading", "trailing")]
    tables = [row for row in tables if row[1] is not None or row[2] is not None]
    if not tables:
        return None
    changes = [[] if images is None else [t for _, t in images[images.chain != "base"].groupby("reward", sort=False)]
               for _, _, images in tables]  # fmt: skip
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
    for axes in figure.axes:
        axes.tick_params(axis="y", length=0)
    marks = (
        ("few-step model", style.VERMILLION, "o", True),
        ("one DDIM jump of the base model", style.BLUE, "s", False),
        ("coarse DDIM chain", style.GREY, "D", False),
    )
    handles = [Line2D([], [], color=colour, marker=marker, linewidth=1, label=label,
                      markerfacecolor=colour if filled else "white")
               for label, colour, marker, filled in marks]  # fmt: skip
    style.legend(figure, handles, 3)
    return figure
