"""Pictures of what a run did."""

from pathlib import Path

import matplotlib
import numpy as np
import torch
from PIL import Image

from .. import records
from ..diffusion import Executor
from ..records import SAMPLES
from .evaluation import Evaluation
from .workbench import Workbench

matplotlib.use("Agg")
from matplotlib import pyplot as plt


@torch.no_grad()
def images_of(executor: Executor, result: Evaluation, count: int) -> np.ndarray:
    """The first images of an evaluation, (count, H, W, 3) in [0, 1]; nothing is entered into the ledger."""
    with executor.ledger.paused():
        images = executor.decode(result.latents[:count].to(executor.policy.unet.device))
    return images.permute(0, 2, 3, 1).cpu().numpy()


def thumbnails(path: Path, executor: Executor, before: Evaluation, after: Evaluation, count: int = SAMPLES) -> None:
    """The first held-out prompts from the same noise: base model above, tuned below, edge to edge."""
    rows = [np.concatenate(list(images_of(executor, result, count)), axis=1) for result in (before, after)]
    save_jpeg(path, np.concatenate(rows))


def save_jpeg(path: Path, pixels: np.ndarray) -> None:
    """Write pixels (H, W, 3) in [0, 1], whole or not at all."""
    grid = Image.fromarray((pixels * 255).round().astype(np.uint8))
    with records.whole(path) as part:
        grid.save(part, format="JPEG", quality=90, subsampling=0)


def before_and_after(path: Path, bench: Workbench, before: Evaluation, after: Evaluation, count: int = SAMPLES) -> None:
    """The first held-out prompts from the same noise before and after, each with its reward."""
    config = bench.config
    figure, axes = plt.subplots(2, count, figsize=(1.5 * count, 4.2), layout="constrained")
    for row, (label, result) in enumerate((("before", before), ("after", after))):
        images = images_of(bench.executor, result, count)
        for column, (axis, image) in enumerate(zip(axes[row], images, strict=True)):
            axis.imshow(image, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            axis.set_xlabel(f"{result.scores[config.reward].iloc[column]:.3f}", fontsize=8)
            if row == 0:
                words = result.scores.prompt.iloc[column].split()
                axis.set_title("\n".join(" ".join(words[i : i + 4]) for i in range(0, len(words), 4)), fontsize=6)
        axes[row, 0].set_ylabel(label)
    figure.suptitle(f"{config.method}, {config.reward}, suite {config.suite}, seed {config.seed}", fontsize=9)
    with records.whole(path) as part:
        figure.savefig(part, dpi=110, format="png")
    plt.close(figure)
