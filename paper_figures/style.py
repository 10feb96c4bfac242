"""How every figure looks: one colour, marker and line per variant, the same in all of them, and titles with the suite.

Colours are Okabe and Ito's, which colour-blind readers can tell apart; markers and lines do it in grey.
"""

from __future__ import annotations

import textwrap
import zlib
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from benchmark.records.results import Results

WIDTH = 7.2  # inches, two columns of a paper
GREY, FAINT = "#666666", "#c8c8c8"

# The defaults first, so that nobody's matplotlibrc changes a byte.
mpl.style.use(
    ["default",
     {"font.family": "DejaVu Sans", "font.size": 7, "axes.titlesize": 8, "figure.titlesize": 9, "axes.linewidth": 0.6,
      "axes.spines.top": False, "axes.spines.right": False, "xtick.labelsize": 6.5, "ytick.labelsize": 6.5,
      "xtick.major.width": 0.6, "ytick.major.width": 0.6, "legend.fontsize": 6.5, "legend.frameon": False,
      "lines.markersize": 4, "svg.fonttype": "path", "svg.hashsalt": "paper_figures"}]
)  # fmt: skip


class Style(NamedTuple):
    """How a variant is drawn."""

    colour: str
    marker: str
    line: str | tuple = "-"
    width: float = 1.1
    filled: bool = True

    def point(self) -> dict:
        """Of a marker."""
        return {"color": self.colour, "marker": self.marker, "markeredgecolor": self.colour, "markeredgewidth": 0.9,
                "markerfacecolor": self.colour if self.filled else "white"}  # fmt: skip

    def curve(self) -> dict:
        """Of a line with markers."""
        return self.point() | {"linestyle": self.line, "linewidth": self.width}


BLACK, ORANGE, SKY, GREEN, BLUE, VERMILLION, PURPLE = (
    "#000000", "#e69f00", "#56b4e9", "#009e73", "#0072b2", "#d55e00", "#cc79a7",
)  # fmt: skip
YELLOW = "#b3a100"  # darkened: Okabe and Ito's is too faint for lines on white

DASHES, LONG, DOTS = (0, (4, 1.5)), (0, (8, 2)), (0, (1, 1.2))
DASH_DOT, DASH_DOT_DOT = (0, (5, 1.2, 1, 1.2)), (0, (5, 1.2, 1, 1.2, 1, 1.2))
STYLES = {
    "shortft": Style(VERMILLION, "o", "-", 2.2),
    "draft": Style(BLACK, "s", DASHES),
    "draft_coarse": Style(GREY, "D", DOTS),
    "draft_k": Style(BLUE, "^", "-"),
    "draft_lv": Style(SKY, "v", LONG),
    "alignprop": Style(GREEN, "P", DASH_DOT),
    "refl": Style(ORANGE, "X", DASHES),
    "drtune": Style(PURPLE, "<", DASH_DOT_DOT),
    "ddpo": Style(YELLOW, ">", DOTS),
    "shortft-one-lora": Style(VERMILLION, "s", DASHES, filled=False),
    "shortft-one-stage": Style(VERMILLION, "D", DOTS, filled=False),
    "shortft-few-step-policy": Style(VERMILLION, "P", DASH_DOT, filled=False),
    "shortft-naive-jumps": Style(VERMILLION, "X", LONG, filled=False),
    "shortft-rank4": Style(VERMILLION, "v", DASHES, filled=False),
    "shortft-everywhere": Style(VERMILLION, "^", DOTS, filled=False),
    "shortft-trailing": Style(VERMILLION, "o", DASH_DOT_DOT, filled=False),
    "draft_k-trailing": Style(BLUE, "^", DASH_DOT_DOT, filled=False),
    "draft_lv-trailing": Style(SKY, "v", DASH_DOT_DOT, filled=False),
}


def of(variant: str) -> Style:
    """A variant's style; one that has none gets its method's colour and, by its name, a marker and line."""
    if variant in STYLES:
        return STYLES[variant]
    number, method = zlib.crc32(variant.encode()), variant.replace(" ", "-").split("-")[0]
    colour = STYLES[method].colour if method in STYLES else (GREY, GREEN, BLUE, PURPLE)[number % 4]
    return Style(colour, "hpd*8"[number // 4 % 5], (LONG, DASHES, DASH_DOT)[number // 20 % 3], filled=False)


def suite(results: Results) -> str:
    """What the figures are of, in words: the embedded suite must never pass for Stable Diffusion."""
    return "embedded suite mini, not Stable Diffusion" if results.suite == "mini" else f"suite {results.suite}"


def short(text: str, length: int = 26) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def seeds(counts: list[int]) -> str:
    """Numbers of seeds of what is drawn together, in words."""
    low, high = min(counts), max(counts)
    return f"{low} seed{'s' * (low != 1)}" if low == high else f"{low} to {high} seeds"


def new(results: Results, title: str, height: float, width: float = WIDTH) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(f"{title} ({suite(results)})")
    return figure


def grid(figure: Figure, count: int, columns: int = 3, **options) -> tuple[list[Axes], list[Axes]]:
    """Panels in rows, and those that the last row has left over, emptied."""
    columns = min(columns, count)
    axes = figure.subplots(-(-count // columns), columns, squeeze=False, **options).ravel().tolist()
    for spare in axes[count:]:
        spare.set_axis_off()
    return axes[:count], axes[count:]


def legend(figure: Figure, handles: list, columns: int, spare: list[Axes] = (), label: str = "") -> None:
    """Outside the panels: where one is left over, there; else below. ``label``: of the x axes of all panels."""
    if spare:
        figure.supxlabel(label, fontsize=7)
        spare[0].legend(handles=handles, loc="center", ncols=1 if len(handles) < 12 else 2)
    else:  # matplotlib would write a label of the figure across the legend
        figure.legend(handles=handles, loc="outside lower center", ncols=columns, title=label, title_fontsize=7)


def variant_handles(variants: list[str], labels: dict[str, str] = {}) -> list[Line2D]:  # noqa: B006
    return [Line2D([], [], label=labels.get(name, name), **of(name).curve()) for name in variants]


def empty(axes: Axes, text: str = "not measured") -> None:
    axes.set(xticks=[], yticks=[])
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, color=GREY)


def strip(axes: Axes, pixels: np.ndarray, name: str, bold: bool) -> None:
    """A row of square images, edge to edge in ``pixels`` (side, n side, 3), with its name on the left."""
    count = pixels.shape[1] // pixels.shape[0]
    axes.imshow(pixels, interpolation="nearest", extent=(0, count, 0, 1), aspect="equal")
    axes.spines[:].set_visible(False)
    axes.set(xticks=[], yticks=[])
    axes.vlines(range(1, count), 0, 1, color="white", linewidth=1.5)
    axes.text(-0.08, 0.5, name, ha="right", va="center", fontsize=6.5, fontweight="bold" if bold else "normal")


def interval(axes: Axes, y: float, low: float, high: float, **options) -> None:
    axes.plot([low, high], [y, y], **{"linewidth": 1, "marker": "", "zorder": 1} | options)


def limits(values, margin: float = 0.25) -> tuple[float, float]:
    """Ends of an axis around some values: of two seeds an interval may be many times as wide, and runs off it."""
    low, high = np.nanmin(values), np.nanmax(values)
    space = margin * ((high - low) or abs(high) or 1)
    return low - space, high + space


def finite_limit(values, factor: float = 3) -> float:
    """Where to draw what is infinite: beyond the largest finite value."""
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    return factor * values.max() if len(values) else 1.0


def wrap(text: str, width: int, lines: int) -> str:
    return "\n".join(textwrap.wrap(text, width, max_lines=lines, placeholder="…"))


def decades(axis: Axis) -> None:
    """Few and plain numbers on a logarithmic axis, however short or long it is."""
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 300 else (1,)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_locator(NullLocator())


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """As vector and as pixels; without a date, so that the same records give the same bytes."""
    paths = [folder / f"{name}.svg", folder / f"{name}.png"]
    figure.savefig(paths[0], metadata={"Date": None})
    figure.savefig(paths[1], dpi=150, metadata={"Software": None})
    return paths
