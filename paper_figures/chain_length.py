"""Norm and normalised variance of the gradient against the number K of last steps it passes through (claim C4).

K = 1 is DRaFT-1, K = 50 the full chain (``draft``), the rest DRaFT-K; both axes are logarithmic, so that a slope is a
power of K. One line per checkpoint of the reference run; bars are 95% bootstrap intervals over minibatches, with an
arrow where they have no end. A missing point of the variance: the mean gradient cannot be told from zero there, the
number is infinite.
"""

import re

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.markers import CARETUP
from matplotlib.ticker import NullLocator

from benchmark.records.results import Results

from . import style

NEEDS = "the gradient probe's table (benchmark.gradients) with draft, draft_k and draft_k k=..."


def chain_length(method: str) -> int | None:
    """Steps that the gradient passes through; None for a method that this figure is not of."""
    if found := re.fullmatch(r"draft_k k=(\d+)", method):
        return int(found[1])
    return {"draft_k": 1, "draft": 50}.get(method)


def by_length(table: pd.DataFrame) -> pd.DataFrame:
    table = table[(table.slot == "all") & (table.progress == 0)]
    table = table.assign(k=[chain_length(method) for method in table.method]).dropna(subset="k")
    return table.sort_values(["reference_step", "k"])


def figure(results: Results) -> Figure | None:
    if results.gradients is None:
        return None
    table = by_length(results.gradients)
    if table.k.nunique() < 2:
        return None
    figure = style.new(results, f"Gradient along the chain on {style.short(results.profile.gradients.reward)}", 2.7)
    steps = sorted(table.reference_step.unique())
    looks = [(style.BLUE, "o", "-"), (style.VERMILLION, "s", style.DASHES), (style.BLACK, "^", style.DOTS)]
    names = (("norm", "norm of a minibatch's gradient"), ("normalised_variance", "normalised variance"))
    for axes, (column, name) in zip(figure.subplots(1, 2), names, strict=True):
        edge = style.finite_limit(table[[column, f"{column}_high"]], 1.5)
        for step, (colour, marker, line) in zip(steps, looks, strict=False):
            part = table[table.reference_step == step]
            part = part[np.isfinite(part[column])]
            ends = part[[f"{column}_low", f"{column}_high"]].clip(upper=edge).to_numpy().T
            look = {"color": colour, "marker": marker, "linestyle": line, "linewidth": 1.2, "capsize": 2}
            bars, label = np.abs(ends - part[column].to_numpy()), f"after {step} steps of the reference run"
            axes.errorbar(part.k, part[column], bars, label=label, **look)
            beyond = part.k[part[f"{column}_high"] > edge]
            axes.plot(beyond, np.full(len(beyond), edge), linestyle="", marker=CARETUP, color=colour)
        axes.set(xscale="log", yscale="log", xlabel="K, steps with gradient", ylabel=name)
        lengths = sorted(table.k.unique().astype(int))
        axes.set_xticks(lengths, lengths)
        axes.xaxis.set_minor_locator(NullLocator())
        style.decades(axes.yaxis)
        axes.grid(color="#eeeeee", linewidth=0.6)
    style.legend(figure, axes.get_legend_handles_labels()[0], 3)
    return figure
