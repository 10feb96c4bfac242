"""At which steps of the sampler a tuned LoRA earns its reward: the same weights, switched on at some steps alone.

A row is a LoRA (seed 0), a column a set of the sampler's 50 steps at which it is on; the number is the change of the
target reward on held-out prompts, darker where it is larger. ShortFT's own LoRAs act at 15 steps, so its first columns
agree; "shortft's 15" says what another method's LoRA is worth under that restriction.
"""

import numpy as np
from matplotlib.figure import Figure

from benchmark.records.results import Results

from . import style

NEEDS = "the table of benchmark.placement"


def figure(results: Results) -> Figure | None:
    tables = {reward: results.placement(reward) for reward in results.rewards()}
    tables = {reward: table for reward, table in tables.items() if table is not None and len(table)}
    if not tables:
        return None
    rows = max(table.variant.nunique() for table in tables.values())
    figure = style.new(results, "Where along the chain a LoRA earns its reward", 0.9 + len(tables) * (0.3 + 0.2 * rows))
    for axes, (reward, table) in zip(figure.subplots(len(tables), squeeze=False)[:, 0], tables.items(), strict=True):
        gains = table.pivot(index="variant", columns="steps", values="gain")
        gains = gains.loc[table.variant.unique(), table.steps.unique()]
        largest = gains.max().max()
        axes.imshow(gains, cmap="Greys", vmin=0, vmax=1.4 * largest, aspect="auto")  # the darkest still carries text
        for (y, x), gain in np.ndenumerate(gains):
            colour = "white" if gain > 0.85 * largest else "black"
            axes.text(x, y, f"{gain:+.3f}", ha="center", va="center", fontsize=6.5, color=colour)
        axes.set_xticks(range(len(gains.columns)), gains.columns)
        axes.set_yticks(range(len(gains)), gains.index)
        axes.axvline(2.5, color="white", linewidth=3)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        axes.set_title(style.short(reward))
        axes.set_xlabel("steps of the sampler, of 50, at which the LoRA is on")
    return figure
