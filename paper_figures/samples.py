"""The same prompts and the same noise, one row per variant: how a tuned model's images differ from the base model's.

From the run of the first seed of each variant on one reward (``samples.jpg``: the first held-out prompts in order, not
chosen), and below, of each other reward, the method that gained most. The base model's row stands above; variants that
sample with trailing spacing have a base row of their own. The number at the left is that run's gain of the reward over
all held-out prompts, the one in a picture its oracle: how much of the prompt it shows, 0 to 1.
"""

import textwrap
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from benchmark.records.results import Results

from . import style

NEEDS = "samples.jpg of a run on the reward"
SIDE = 48  # pixels of an image at most: the vector file embeds them all
BOX = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.8}


def strips(folder: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """Rows of images before and after, (SIDE, n SIDE, 3) each; None where there is no picture."""
    try:
        with Image.open(folder / "samples.jpg") as picture:
            picture = picture.convert("RGB")
    except OSError:
        return None
    height = min(2 * SIDE, picture.height)
    picture = picture.resize((round(picture.width * height / picture.height), height), Image.Resampling.LANCZOS)
    pixels = np.asarray(picture)
    return pixels[: height // 2], pixels[height // 2 :]


class Row(NamedTuple):
    """A run's images, or the base model's beside them; ``oracles`` is empty where the suite has none."""

    name: str
    pixels: np.ndarray
    oracles: list[float]
    prompts: list[str]
    spacing: str
    tuned: bool


def row(run, name: str, tuned: bool) -> Row | None:
    """A row of a run; None where it has no picture."""
    if (pair := strips(Path(run.folder))) is None:
        return None
    scores = pd.read_csv(Path(run.folder) / "scores.csv")
    scores = scores[(scores.split == "test") & (scores.when == ("after" if tuned else "before"))]
    oracles = scores.oracle.tolist() if "oracle" in scores else []
    return Row(name, pair[tuned], oracles, scores.prompt.tolist(), run.spacing, tuned)


def figure(results: Results, reward: str | None = None) -> Figure | None:
    reward = reward or results.rewards()[0]
    rows, bases = [], set()

    def add(run, name: str) -> None:
        base = "base model" + f", {run.spacing}" * (run.spacing != "leading")
        gain = f"{run.reward_after - run.reward_before:+.3f}"
        tuned = row(run, name + f", seed {run.seed}" * bool(run.seed) + f"\n{gain}", True)
        if tuned is None:
            return
        if base not in bases:
            rows.append(row(run, base, False))
            bases.add(base)
        rows.append(tuned)

    for run in (run for variant in results.variants() for run in first_of(results, variant, reward)):
        add(run, run.variant)
    rows.sort(key=lambda row: (row.spacing != "leading", row.spacing, row.tuned))  # each base above its variants
    for other in results.rewards():
        runs = [run for method in results.profile.methods() for run in first_of(results, method, other)]
        if other != reward and runs and rows:
            best = max(runs, key=lambda run: run.reward_after - run.reward_before)
            add(best, f"on {style.short(other, 18)}:\n{best.variant}")
    if not rows:
        return None
    count = rows[0].pixels.shape[1] // rows[0].pixels.shape[0]
    title = f"Same prompts, same noise, tuned on {style.short(reward)}"
    figure = style.new(results, title, 1 + 0.58 * len(rows), width=6)
    figure.get_layout_engine().set(h_pad=0.01, hspace=0, w_pad=0.08, rect=(0, 0, 1, 1 - 0.22 / figure.get_figheight()))
    figure.suptitle(figure.get_suptitle(), y=1 - 0.06 / figure.get_figheight(), va="top")  # clear of the prompts
    panels = figure.subplots(len(rows), 1, squeeze=False)[:, 0]
    for axes, shown in zip(panels, rows, strict=True):
        style.strip(axes, shown.pixels, shown.name, bold=not shown.tuned)
        for column, oracle in enumerate(shown.oracles[:count]):
            axes.text(column + 0.95, 0.06, f"{oracle:.2g}", ha="right", va="bottom", fontsize=4.5, bbox=BOX)
    for column, prompt in enumerate(rows[0].prompts[:count]):
        lines = textwrap.wrap(prompt, 14, max_lines=7, placeholder="…")
        figure.axes[0].text(column + 0.5, 1.06, "\n".join(lines), ha="center", va="bottom", fontsize=5)
    return figure


def first_of(results: Results, variant: str, reward: str):
    """The run of a variant's first seed, or nothing."""
    return results.of(variant, reward).head(1).rename(columns={"settings.spacing": "spacing"}).itertuples()
