"""One figure for each method's page: a training step above, the target reward along the budget below.

Above, a row is one training step, noise on the left (as in ``chains``). Below, the method's mean over seeds with its
95% t interval, reward by reward, among the other methods' in grey, all on the curves' held-out prompts.
"""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmark.records.results import Results

from . import chains, curves, style

NEEDS = "curve.csv of at least one run of a plain method"


def draw_curves(axes: Axes, results: Results, method: str, reward: str) -> None:
    for other in sorted(curves.plain_methods(results), key=lambda name: name == method):  # its own on top
        if len(curve := results.curve(other, reward)):
            line = curves.band(curve.assign(x=curve.operations / 1e12), reward, "x")
            look = {"color": style.FAINT, "linewidth": 0.8}
            if other == method:
                look = style.of(method).curve() | {"markersize": 3}
                axes.fill_between(line.x, line.low, line.high, color=style.of(method).colour, alpha=0.15, lw=0)
            axes.plot(line.x, line["mean"], **look)
    axes.set_title(style.short(reward))
    axes.set_xlim(left=0)


def figures(results: Results) -> dict[str, Figure]:
    """By method; none where there are no curves."""
    made, rewards = {}, results.rewards()
    for method in curves.plain_methods(results) if len(results.curves) else ():
        plans = {name: plan for name, plan in results.about.get("plans", {}).items() if name.split()[0] == method}
        figure = style.new(results, method, 2.1 + 0.45 * len(plans))
        top, bottom = figure.subfigures(2, 1, height_ratios=[0.3 + 0.45 * len(plans), 1.5])
        if plans:
            chains.draw_rows(top.subplots(), plans)
        panels = bottom.subplots(1, len(rewards), squeeze=False)[0]
        for axes, reward in zip(panels, rewards, strict=True):
            draw_curves(axes, results, method, reward)
        bottom.supxlabel("operations, TFLOP", fontsize=7)
        made[method] = figure
    return made
