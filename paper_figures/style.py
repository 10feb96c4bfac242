"""How every figure looks: one colour, marker and line per variant, the same in all of them, and titles with the suite.

Colours are Okabe and Ito's, which colour-blind readers can tell apart; markers and lines do it in grey.
"""

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

GREY, FAINT = "#666666", "#c8c8c8"

mpl.style.use("default")  # first, so that nobody's matplotlibrc changes a byte
mpl.rc("font", family="DejaVu Sans", size=7)
mpl.rc("figure", titlesize=9)
mpl.rc("axes", titlesize=8, linewidth=0.6)
mpl.rc("axes.spines", top=False, right=False)
mpl.rc(("xtick", "ytick"), labelsize=6.5)
mpl.rc(("xtick.major", "ytick.major"), width=0.6)
mpl.rc("legend", fontsize=6.5, frameon=False)
mpl.rc("lines", markersize=4)


def fill(colour: str, filled: bool) -> dict:
    """Of a marker in one colour, filled or open."""
    return {"color": colour, "markerfacecolor": colour if filled else "white"}


class Style(NamedTuple):
    """How a variant is drawn."""

    colour: str
    marker: str
    line: str | tuple = "-"
    width: float = 1.1
    filled: bool = True

    def point(self) -> dict:
        """Of a marker."""
        edge = {"markeredgecolor": self.colour, "markeredgewidth": 0.9}
        return {"marker": self.marker} | fill(self.colour, self.filled) | edge

    def curve(self) -> dict:
        """Of a line with markers."""
        return self.point() | {"linestyle": self.line, "linewidth": self.width}


BLACK, ORANGE, SKY, GREEN, BLUE = "#000000", "#e69f00", "#56b4e9", "#009e73", "#0072b2"
VERMILLION, PURPLE = "#d55e00", "#cc79a7"
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


def short(text: str, length: int = 26) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def seeds(counts: list[int]) -> str:
    """Numbers of seeds of what is drawn together, in words."""
    low, high = min(counts), max(counts)
    return f"{low} seed{'s' * (low != 1)}" if low == high else f"{low} to {high} seeds"


def new(results: Results, title: str, height: float, width: float = 7.2) -> Figure:
    """A figure as wide as two columns of a paper; in its title the suite, which must never pass for another."""
    figure = Figure(figsize=(width, height), layout="constrained")
    named = "embedded suite mini, not Stable Diffusion" if results.suite == "mini" else f"suite {results.suite}"
    figure.suptitle(f"{title} ({named})")
    return figure


def panels(
    results: Results, title: str, count: int, margin: float, height: float, **options
) -> tuple[Figure, list[Axes], list[Axes]]:
    """A figure with ``count`` panels, three in a row, and those that the last row has left over, emptied.

    margin, height: inches of the figure beside the panels, and of each row of them.
    """
    rows = -(-count // 3)
    figure = new(results, title, margin + rows * height)
    axes = figure.subplots(rows, min(3, count), squeeze=False, **options).ravel().tolist()
    for spare in axes[count:]:
        spare.set_axis_off()
    return figure, axes[:count], axes[count:]


def legend(figure: Figure, handles: list, columns: int, spare: list[Axes] = (), label: str = "") -> None:
    """Outside the panels: where one is left over, there; else below. ``label``: of the x axes of all panels."""
    if spare:
        figure.supxlabel(label, fontsize=7)
        spare[0].legend(handles=handles, loc="center", ncols=1 if len(handles) < 12 else 2)
    else:  # matplotlib would write a label of the figure across the legend
        figure.legend(handles=handles, loc="outside lower center", ncols=columns, title=label, title_fontsize=7)


def handles(looks: dict[str, dict], **common) -> list[Line2D]:
    """The lines of a legend, from their labels and looks."""
    return [Line2D([], [], label=label, **common | look) for label, look in looks.items()]


def rows(axes: Axes, names: list[str], space: float = 0.5, grid: bool = False) -> None:
    """One row per name, the first on top, with ``space`` above and below."""
    axes.set(ylim=(len(names) - 1 + space, -space), yticks=range(len(names)), yticklabels=names)
    axes.tick_params(axis="y", length=0)
    if grid:
        axes.grid(axis="y", color="#eeeeee", linewidth=0.6)
        axes.set_axisbelow(True)


def note(axes: Axes, text: str, x: float, y: float, **options) -> None:
    """A grey word in a row: ``x`` as a share of the panel's width, ``y`` the row."""
    usual = {"ha": "center", "va": "center", "fontsize": 6, "color": GREY, "xycoords": ("axes fraction", "data")}
    axes.annotate(text, (x, y), **usual | options)


def empty(axes: Axes) -> None:
    axes.set(xticks=[], yticks=[])
    axes.text(0.5, 0.5, "not measured", ha="center", va="center", transform=axes.transAxes, color=GREY)


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


def decades(axis: Axis) -> None:
    """Few and plain numbers on a logarithmic axis, however short or long it is."""
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 300 else (1,)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_locator(NullLocator())


def save(figure: Figure, folder: Path, name: str, dpi=150, salt="paper_figures", order=("svg", "png")) -> list[Path]:
    """As vector and as pixels; without a date, so that the same records give the same bytes.

    salt, order: bytes depend on both, since ids in the SVG are hashes and a layout begins where the last one ended.
    """
    folder.mkdir(parents=True, exist_ok=True)
    options = {"svg": {"metadata": {"Date": None}}, "png": {"dpi": dpi, "metadata": {"Software": None}}}
    paths = [folder / f"{name}.{ending}" for ending in order]
    with mpl.rc_context({"svg.hashsalt": salt}):
        for path in paths:
            figure.savefig(path, **options[path.suffix[1:]])
    return paths
