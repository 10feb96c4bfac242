"""What the shortcut draws: the same prompts and noise through the base chain and the chains that stand in for it.

The top row is the base model's own 50 steps. Below it four jumps and nothing else, of the few-step model and of the
base model (naive); the chain that ShortFT trains on in its first stage, with shortcuts and with naive jumps; and the
coarse chain of `draft_coarse`. The number is the chain's error, as a share of the latents' size, over all prompts of
the probe.
"""

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from benchmark.records.results import Results

from . import style

NEEDS = "pictures and tables of the fidelity probe (benchmark.fidelity)"


def figure(results: Results) -> Figure | None:
    table, path = results.images(), results.file("fidelity", "pictures-leading.jpg")
    if table is None:
        return None
    try:
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB"))
    except OSError:
        return None
    errors = table.groupby("chain", sort=False).error.first()
    strips = np.split(pixels, len(errors)) if len(pixels) % len(errors) == 0 else []
    if not strips:
        return None
    figure = style.new(results, "What the shortcut draws", 0.4 + 0.58 * len(strips), width=6)
    figure.get_layout_engine().set(h_pad=0.01, hspace=0, w_pad=0.08)
    rows = figure.subplots(len(strips), 1, squeeze=False)[:, 0]
    for axes, part, (chain, error) in zip(rows, strips, errors.items(), strict=True):
        name = "base chain" if chain == "base" else f"{chain}\n{error:.2f}"
        style.strip(axes, part, name, bold=chain == "base")
    return figure
