"""The chain of every method, drawn from its plan: which hops, which model, where the gradient flows, which LoRA slots.

    python -m paper_figures.chains          writes paper_figures/chains.png and .svg

A row is one training step of a method (ShortFT: one row per stage), noise on the left. An arc is one denoiser call; the
line that it bridges is the sampler's own, along which the gradient always passes.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import torch
from matplotlib.lines import Line2D
from matplotlib.patches import Arc

import methods
from benchmark.diffusion import Plan

HERE = Path(__file__).parent
COLOURS = {"base": "#0072b2", "shortcut": "#d55e00"}  # of Okabe and Ito's palette, apart in grey too
FAINT = "#c8c8c8"


def draw_plan(axes: plt.Axes, plan: Plan, y: float, name: str) -> None:
    """One plan as a row of arcs at height ``y``."""
    axes.text(1040, y, name, ha="right", va="center", fontsize=8)
    for hop in plan:
        end = max(hop.s, 0)
        height = 0.25 + 0.45 * min((hop.t - end) / 250, 1)
        colour = COLOURS[hop.model] if hop.eps_grad else FAINT
        style = "-" if hop.input_grad or not hop.eps_grad else ":"
        width = max(hop.t - end, 6)
        axes.add_patch(
            Arc((hop.t - width / 2, y - 0.2), width, 2 * height, theta1=0, theta2=180, color=colour, ls=style,
                lw=1.6 if hop.eps_grad else 0.7)
        )  # fmt: skip
    first = next(hop for hop in plan if hop.eps_grad)
    axes.plot([first.t, 0], [y - 0.2, y - 0.2], color="black", lw=0.8)  # the gradient's way back
    axes.plot([plan[0].t, first.t], [y - 0.2, y - 0.2], color=FAINT, lw=0.8)
    shown = None
    for hop in plan:
        if hop.slots != shown and hop.slots:
            axes.text(hop.t, y - 0.3, "+".join(map(str, hop.slots)), fontsize=5.5, va="top", ha="center")
        shown = hop.slots or shown


def rows() -> list[tuple[str, Plan]]:
    """Every method's plan on the 50-step grid, options at their defaults; a policy gradient has none."""
    plans = []
    for name in methods.names():
        method = methods.find(name)()
        if not isinstance(method, methods.DirectReward):
            continue
        steps = method.chain_steps or 50
        timesteps = [1000 // steps * i + 1 for i in reversed(range(steps))]
        stages = {method.plan(timesteps, torch.Generator().manual_seed(0), p / 8): p for p in reversed(range(8))}
        stages = dict(reversed(stages.items())) if name == "shortft" else {list(stages)[-1]: 0}
        for number, plan in enumerate(stages, 1):
            plans.append((f"{name} {number}" if len(stages) > 1 else name, plan))
    return plans


def draw(plans: list[tuple[str, Plan]]) -> plt.Figure:
    drawing, axes = plt.subplots(figsize=(9, 0.55 * len(plans) + 0.8), layout="constrained")
    for row, (name, plan) in enumerate(plans):
        draw_plan(axes, plan, -row, name)
    axes.set(xlim=(1045, -20), ylim=(0.3 - len(plans), 0.7), xlabel="timestep", yticks=[])
    axes.spines[["left", "right", "top"]].set_visible(False)
    lines = [
        ("base model, gradient", {"color": COLOURS["base"]}),
        ("gradient to the weights, not to the input", {"color": COLOURS["base"], "ls": ":"}),
        ("few-step model, gradient", {"color": COLOURS["shortcut"]}),
        ("no gradient", {"color": FAINT}),
        ("the gradient's way back through the latents", {"color": "black", "lw": 0.8}),
    ]
    axes.legend(
        [Line2D([], [], **style) for _, style in lines], [label for label, _ in lines], ncols=3, fontsize=7,
        frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0),
    )  # fmt: skip
    return drawing


def main() -> None:
    drawing = draw(rows())
    mpl.rcParams["svg.hashsalt"] = "chains"
    drawing.savefig(HERE / "chains.png", dpi=110, metadata={"Software": None})
    drawing.savefig(HERE / "chains.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
