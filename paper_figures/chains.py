"""The chain of every method, drawn from its plan: which hops, which model, where the gradient flows, which LoRA slots.

A row is one training step of a method (ShortFT: one row per stage), noise on the left. An arc is one denoiser call; the
line that it bridges is the sampler's own, along which the gradient always passes.
"""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Arc

from benchmark.records.results import Results

from . import style

NEEDS = "the methods' plans (benchmark.about)"
SAVED = {"order": ("png", "svg"), "dpi": 110, "salt": "chains"}
COLOURS = {"base": style.BLUE, "shortcut": style.VERMILLION}


def draw_plan(axes: Axes, plan: list[dict], y: float, name: str) -> None:
    """One plan as a row of arcs at height ``y``."""
    axes.text(1040, y, name, ha="right", va="center", fontsize=8)
    for hop in plan:
        t, trained = hop["t"], hop["eps_grad"]
        length = t - max(hop["s"], 0)
        width, height = max(length, 6), 0.5 + 0.9 * min(length / 250, 1)
        colour, thickness = (COLOURS[hop["model"]], 1.6) if trained else (style.FAINT, 0.7)
        line = ":" if trained and not hop["input_grad"] else "-"
        arc = {"theta1": 0, "theta2": 180, "color": colour, "linestyle": line, "linewidth": thickness}
        axes.add_patch(Arc((t - width / 2, y - 0.2), width, height, **arc))
    first = next(hop["t"] for hop in plan if hop["eps_grad"])
    axes.plot([first, 0], [y - 0.2, y - 0.2], color="black", linewidth=0.8)  # the gradient's way back
    axes.plot([plan[0]["t"], first], [y - 0.2, y - 0.2], color=style.FAINT, linewidth=0.8)
    shown = None
    for hop in plan:
        if hop["slots"] and hop["slots"] != shown:
            shown = hop["slots"]
            axes.text(hop["t"], y - 0.3, "+".join(map(str, shown)), fontsize=5.5, va="top", ha="center")


def draw_rows(axes: Axes, plans: dict[str, list[dict]]) -> None:
    """Plans, the first on top."""
    for row, (name, plan) in enumerate(plans.items()):
        draw_plan(axes, plan, -row, name)
    axes.set(xlim=(1045, -20), ylim=(0.3 - len(plans), 0.7), yticks=[], xlabel="timestep")
    axes.spines[["left", "right", "top"]].set_visible(False)


def figure(results: Results) -> Figure | None:
    plans = results.about.get("plans")
    if not plans:
        return None
    figure = Figure(figsize=(9, 0.55 * len(plans) + 0.8), layout="constrained")
    axes = figure.subplots()
    draw_rows(axes, plans)
    axes.xaxis.label.set_size(10)
    axes.tick_params(labelsize=10, width=0.8)
    axes.spines.bottom.set_linewidth(0.8)
    lines = {
        "base model, gradient": {"color": COLOURS["base"]},
        "gradient to the weights, not to the input": {"color": COLOURS["base"], "linestyle": ":"},
        "few-step model, gradient": {"color": COLOURS["shortcut"]},
        "no gradient": {"color": style.FAINT},
        "the gradient's way back through the latents": {"color": "black", "linewidth": 0.8},
    }
    axes.legend(handles=style.handles(lines), ncols=3, fontsize=7, loc="lower center", bbox_to_anchor=(0.5, 1))
    return figure
