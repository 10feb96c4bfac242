"""How much less compute ShortFT needs to get where another method ends: claim C2, one panel per reward.

Compute of the other's whole run over what ShortFT needs to reach, and keep to the next evaluation, the other's mean
final reward (``benchmark.claims.efficiency``, so that verdict and figure cannot differ). Right of 1 ShortFT is cheaper.
A point is one seed of ShortFT, open with an arrow where that seed never got there: its ratio is at most that. The
diamond is the geometric mean, open too where any seed is such a bound. The finest answer is the first evaluation after
the start. The dashed lines at 2.1 and 3.8 are the range that a summary of the paper claims; it stands in no source of
the paper.
"""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from benchmark.claims import efficiency
from benchmark.results import Results

from . import curves, style

NEEDS = "curve.csv of shortft and of another plain method on the same reward"
CLAIMED = (2.1, 3.8)


def figure(results: Results) -> Figure | None:
    others = [method for method in curves.plain_methods(results) if method != "shortft"]
    found = {}
    for reward in results.rewards():
        for other in others:
            ratios = efficiency(results, "shortft", other, reward)
            if ratios is not None:
                found[reward, other] = ratios
    if not found:
        return None
    rewards = results.rewards()
    rows = -(-len(rewards) // 3)
    figure = style.new(results, "Compute to the same reward, the other's over ShortFT's",
                       1.2 + rows * (0.6 + 0.17 * len(others)))  # fmt: skip
    axes, spare = style.grid(figure, len(rewards), sharey=True, sharex=True)
    for panel, reward in zip(axes, rewards, strict=True):
        if not any(r == reward for r, _ in found):
            panel.set_title(style.short(reward))
            panel.text(0.5, 0.5, "not measured", ha="center", transform=panel.transAxes, color=style.GREY)
            continue
        for value, line in ((1, "-"), *((end, style.DASHES) for end in CLAIMED)):
            panel.axvline(value, color=style.GREY, linestyle=line, linewidth=0.8, zorder=0)
        counts = []
        for y, other in enumerate(others):
            if (reward, other) not in found:
                panel.annotate("not measured", (0.5, y), xycoords=("axes fraction", "data"), ha="center", va="center",
                               fontsize=6, color=style.GREY, backgroundcolor="white")  # fmt: skip
                continue
            (ratios, censored), look = found[reward, other], style.of(other)
            counts.append(len(ratios))
            heights = y + np.linspace(-0.22, 0.22, len(ratios)) if len(ratios) > 1 else np.array([y])
            for bound in (False, True):
                chosen = censored == bound
                panel.plot(ratios[chosen], heights[chosen], color=look.colour, marker="o", markersize=3, linestyle="",
                           markerfacecolor="white" if bound else look.colour, zorder=3,
                           gid="censored" if bound else "reached")  # fmt: skip
            for ratio, height in zip(ratios[censored], heights[censored], strict=True):
                panel.annotate("", (ratio, height), (-9, 0), textcoords="offset points",
                               arrowprops={"arrowstyle": "<-", "color": look.colour, "lw": 0.7, "shrinkA": 0,
                                           "shrinkB": 2})  # fmt: skip
            panel.plot(np.exp(np.log(ratios).mean()), y, marker="D", markersize=6, linestyle="", color=look.colour,
                       markerfacecolor="white" if censored.any() else look.colour, markeredgecolor="black",
                       markeredgewidth=0.8, zorder=4, gid="mean")  # fmt: skip
        panel.set_title(f"{style.short(reward)}, {style.seeds(counts)} of ShortFT")
    axes[0].set(xscale="log", ylim=(len(others) - 0.5, -0.5), yticks=range(len(others)), yticklabels=others)  # shared
    for panel in axes:
        panel.tick_params(axis="y", length=0)
    ratios = np.concatenate([r for r, _ in found.values()])
    low, high = min(0.7, 0.75 * ratios.min()), max(4.5, 1.25 * ratios.max())
    axes[0].set_xlim(low, high)
    style.decades(axes[0].xaxis)
    label = "ratio of operations, no finer than the evaluations (right of 1: ShortFT is cheaper)"
    plain, bound = {"linestyle": "", "color": style.GREY}, {"markerfacecolor": "white"}
    handles = [
        Line2D([], [], marker="o", markersize=3, label="one seed of ShortFT", **plain),
        Line2D([], [], marker="o", markersize=3, label="← one that never got there: at most this", **plain, **bound),
        Line2D([], [], marker="D", markeredgecolor="black", label="geometric mean", **plain),
        Line2D([], [], marker="D", markeredgecolor="black", label="the same, at most", **plain, **bound),
        Line2D([], [], color=style.GREY, lw=0.8, label="1: equal compute"),
        Line2D([], [], color=style.GREY, lw=0.8, linestyle=style.DASHES,
               label="2.1 and 3.8: claimed\nin a summary of the paper"),
    ]  # fmt: skip
    style.legend(figure, handles, 3, spare, label)
    return figure
