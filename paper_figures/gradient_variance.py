"""Variance and direction of every method's gradient estimate, at the same parameters, prompts and noise (claim C3).

Left the normalised variance, tr Cov / |mu|^2 of minibatch gradients (log axis; left is less noise), right the mean
cosine with the gradient through the full chain on the same minibatch (1 is the same direction). Filled markers: the
reference run's first checkpoint; open ones: its last. Bars are 95% bootstrap intervals over minibatches. An arrow at
the right edge: the number (then there is no point) or its interval's end is infinite, since the mean gradient cannot be
told from zero. "from 25%": ShortFT's later stages; all other rows are estimates at the start of training's schedule.
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmark.records.results import Results

from . import style

NEEDS = "the gradient probe's table (benchmark.gradients)"


def label(row) -> str:
    """As ``benchmark.gradients`` prints it."""
    return row.method + (f" from {row.progress:.0%}" if row.progress else "")


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """The whole gradient of every method in its first phase, ShortFT's other stages after it, options beside theirs."""
    table = table[(table.slot == "all") & ((table.progress == 0) | (table.method == "shortft"))]
    table = table.assign(label=[label(row) for row in table.itertuples()])
    bases = [name.split()[0] for name in table.method]
    order = sorted(dict.fromkeys(table.method), key=lambda name: bases.index(name.split()[0]))
    return table.assign(place=table.method.map(order.index)).sort_values(["place", "progress"], kind="stable")


def estimates(axes: Axes, table: pd.DataFrame, column: str, edge: float | None = None) -> None:
    """A point and an interval per row and checkpoint; what is infinite becomes an arrow at ``edge``."""
    names, steps = list(dict.fromkeys(table.label)), sorted(table.reference_step.unique())
    for row in table.itertuples():
        first = row.reference_step == steps[0]
        y = names.index(row.label) + (0 if len(steps) == 1 else -0.17 if first else 0.17)
        look = style.of(row.method)
        value, low, high = (getattr(row, column + end) for end in ("", "_low", "_high"))
        if np.isnan(value):
            continue
        ends = [min(x, edge) if edge else x for x in (low, high)]
        style.interval(axes, y, *ends, color=look.colour)
        if edge and high > edge:
            axes.plot(edge, y, marker=9, color=look.colour, markersize=4, clip_on=False)  # caret to the right
        if not edge or value <= edge:
            point = look.point() | style.fill(look.colour, first) | {"markersize": 6 if look.marker in "PX" else 4}
            axes.plot(value, y, linestyle="", gid=f"{row.label} {row.reference_step}", **point)
    style.rows(axes, names, 0.6, grid=True)


def figure(results: Results) -> Figure | None:
    table = None if results.gradients is None else shown(results.gradients)
    if table is None or table.empty:
        return None
    reward, steps = results.profile.gradients.reward, sorted(table.reference_step.unique())
    figure = style.new(results, f"Gradient estimates on {style.short(reward)}", 1.1 + 0.19 * table.label.nunique())
    left, right = figure.subplots(1, 2, sharey=True)
    edge = style.finite_limit(table.normalised_variance)
    estimates(left, table, "normalised_variance", edge)
    left.set(xscale="log", xlabel="normalised variance, tr Cov / |mean|²")
    style.decades(left.xaxis)
    estimates(right, table, "cosine")
    right.set(xlabel="cosine with the full chain's gradient", xlim=(min(-0.05, table.cosine_low.min() - 0.05), 1.03))
    right.axvline(0, color=style.GREY, linewidth=0.8, zorder=0)
    looks = {f"after {step} steps of the reference run": style.fill(style.GREY, step == steps[0]) for step in steps}
    style.legend(figure, style.handles(looks, marker="o", linewidth=1), 2)
    return figure
