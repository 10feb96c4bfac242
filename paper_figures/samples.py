"""The same prompts and the same noise, one row per variant: how a tuned model's images differ from the base model's.

From the run of the first seed of each variant on one reward (``samples.jpg``: the first held-out prompts in order, not
chosen). The base model's row stands above; variants that sample with trailing spacing have a base row of their own. The
number at the left is that run's gain of the reward over all held-out prompts.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from benchmark.results import Results

from . import style

NEEDS = "samples.jpg of a run on the reward"
SIDE = 48  # pixels of an image at most: the vector file embeds them all


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


def figure(results: Results, reward: str | None = None) -> Figure | None:
    reward = reward or results.rewards()[0]
    rows, bases, prompts = [], set(), None
    for variant in results.variants():
        for run in results.of(variant, reward).head(1).rename(columns={"settings.spacing": "spacing"}).itertuples():
            pair, spacing = strips(Path(run.folder)), run.spacing
            if pair is None:
                continue
            if prompts is None:
                scores = pd.read_csv(Path(run.folder) / "scores.csv")
                prompts = scores.prompt[(scores.split == "test") & (scores.when == "before")].tolist()
            if spacing not in bases:
                rows.append(("base model" + (f", {spacing}" if spacing != "leading" else ""), pair[0], spacing, 0))
                bases.add(spacing)
            name = variant + (f", seed {run.seed}" if run.seed else "")
            rows.append((f"{name}\n{run.reward_after - run.reward_before:+.3f}", pair[1], spacing, 1))
    if not rows:
        return None
    rows.sort(key=lambda row: (row[2] != "leading", row[2], row[3]))  # each base above its variants
    count = rows[0][1].shape[1] // rows[0][1].shape[0]
    title = f"Same prompts, same noise, tuned on {style.short(reward)}"
    figure = style.new(results, title, 1 + 0.58 * len(rows), width=6)
    figure.get_layout_engine().set(h_pad=0.01, hspace=0, w_pad=0.08, rect=(0, 0, 1, 1 - 0.22 / figure.get_figheight()))
    figure.suptitle(figure.get_suptitle(), y=1 - 0.06 / figure.get_figheight(), va="top")  # clear of the prompts
    for axes, (name, pixels, _, tuned) in zip(figure.subplots(len(rows), 1, squeeze=False)[:, 0], rows, strict=True):
        style.strip(axes, pixels, name, bold=not tuned)
    for column, prompt in enumerate(prompts[:count]):
        figure.axes[0].text(column + 0.5, 1.06, style.wrap(prompt, 14, 7), ha="center", va="bottom", fontsize=5)
    return figure
