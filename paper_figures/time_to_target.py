"""Who gets sooner to where the other ends: claim C2, one panel per reward.

Two questions of every pair, as ratios of compute, the other method's over ShortFT's, so that right of 1 ShortFT is
cheaper (``Results.efficiency``: verdict and figure cannot differ). Circles: the other's whole run over what
each seed of ShortFT needs to reach, and keep to the next evaluation, the other's mean final reward. Squares: what each
seed of the other needs to reach ShortFT's mean final reward, over ShortFT's whole run. Large marks are geometric means.
Open marks are bounds, a mean's with what bounds its seeds: of a seed that never got there, or was there at the first
evaluation, the true ratio lies on the arrow's side. A method without a clear gain sets no target. The dashed lines at
2.1 and 3.8 are the range that a summary of the paper claims for the first question, and no source of the paper does.
"""

import itertools

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmark.records.results import Results
from benchmark.statistics import Efficiency

from . import curves, style

NEEDS = "curve.csv of shortft and of another plain method on the same reward"
CLAIMED = (2.1, 3.8)


def draw_question(panel: Axes, y: float, found: Efficiency, colour: str, marker: str, inverted: bool) -> None:
    """The seeds and the geometric mean of one question."""
    ratios = 1 / found.ratios if inverted else found.ratios
    sides = np.isinf(found.upper).astype(int) - found.never  # 1: the true ratio is larger, -1: smaller
    sides = -sides if inverted else sides
    heights = y + np.linspace(-0.12, 0.12, len(ratios)) if len(ratios) > 1 else np.array([y])
    plain = {"linestyle": "", "marker": marker}
    for bound in (False, True):
        chosen = (sides != 0) == bound
        look = plain | style.fill(colour, not bound) | {"markersize": 2.5, "markeredgewidth": 0.7, "zorder": 3}
        panel.plot(ratios[chosen], heights[chosen], gid="bound" if bound else "reached", **look)
    mean, side = found.mean(inverted)
    if side:
        arrow = {"arrowstyle": "<-", "color": colour, "lw": 0.9, "shrinkA": 0, "shrinkB": 2}
        panel.annotate("", (mean, y), (12 * side, 0), textcoords="offset points", arrowprops=arrow)
    look = plain | style.fill(colour, not sides.any()) | {"markersize": 5.5, "markeredgewidth": 0.8, "zorder": 4}
    panel.plot(mean, y, gid="mean", markeredgecolor="black", **look)


def figure(results: Results) -> Figure | None:
    others = [method for method in curves.plain_methods(results) if method != "shortft"]
    rewards, ask = results.rewards(), results.efficiency
    pairs = itertools.product(rewards, others)
    found = {(r, other): (ask("shortft", other, r), ask(other, "shortft", r)) for r, other in pairs}
    found = {pair: answers for pair, answers in found.items() if all(answers)}
    if not found:
        return None
    title, height = "Compute to where the other ends: the other's over ShortFT's", 0.6 + 0.22 * len(others)
    figure, axes, spare = style.panels(results, title, len(rewards), 1.2, height, sharey=True, sharex=True)
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
                style.note(panel, "not measured", 0.5, y, backgroundcolor="white")
                continue
            (forth, back), colour = found[reward, other], style.of(other).colour
            counts += [len(forth.ratios), len(back.ratios)]
            if forth.gained:
                draw_question(panel, y - 0.2, forth, colour, "o", inverted=False)
            else:
                style.note(panel, "no clear gain", 0.98, y - 0.2, ha="right", fontsize=5.5)
            if back.gained:
                draw_question(panel, y + 0.2, back, colour, "s", inverted=True)
        panel.set_title(f"{style.short(reward)}, {style.seeds(counts)}")
    axes[0].set_xscale("log")  # shared
    for number, panel in enumerate(axes):
        style.rows(panel, others)
        panel.tick_params(axis="x", labelbottom=number + 3 >= len(axes))  # the lowest of every column
        for y in range(1, len(others)):
            panel.axhline(y - 0.5, color="#eeeeee", lw=0.6, zorder=0)
    ratios = np.concatenate([x for forth, back in found.values() for x in (forth.ratios, 1 / back.ratios)])
    axes[0].set_xlim(min(0.4, 0.6 * ratios.min()), max(4.5, 1.6 * ratios.max()))
    style.decades(axes[0].xaxis)
    label = "ratio of operations, no finer than the evaluations (right of 1: ShortFT is cheaper)"
    circle = {"marker": "o", "linestyle": "", "markeredgecolor": "black"}
    bound = "open, arrow: a bound, never there\nor there at the first evaluation"
    looks = {
        "ShortFT to where the other ends": circle,
        "the other to where ShortFT ends": circle | {"marker": "s"},
        "small: one seed, large: geometric mean": {"marker": "o", "linestyle": "", "markersize": 2.5},
        bound: circle | {"markerfacecolor": "white"},
        "1: equal compute": {"linewidth": 0.8},
        "2.1 and 3.8: claimed\nin a summary of the paper": {"linewidth": 0.8, "linestyle": style.DASHES},
    }
    style.legend(figure, style.handles(looks, color=style.GREY), 3, spare, label)
    return figure
