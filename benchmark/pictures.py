"""Pictures of what a run did."""

from __future__ import annotations

import os
from pathlib import Path

import matplotlib
import torch

from .config import RunConfig
from .diffusion import Executor
from .evaluation import Evaluation
from .ledger import Ledger

matplotlib.use("Agg")
from matplotlib import pyplot as plt


@torch.no_grad()
def before_and_after(
    path: Path, executor: Executor, before: Evaluation, after: Evaluation, config: RunConfig, count: int = 8
) -> None:
    """The first held-out prompts from the same noise before and after, each with its reward."""
    ledger, executor.ledger = executor.ledger, Ledger()
    figure, axes = plt.subplots(2, count, figsize=(1.5 * count, 4.2), layout="constrained")
    for row, (label, result) in enumerate((("before", before), ("after", after))):
        latents = result.latents[:count].to(executor.policy.unet.device)
        images = executor.decode(latents).permute(0, 2, 3, 1).cpu().numpy()
        for column, (axis, image) in enumerate(zip(axes[row], images, strict=True)):
            axis.imshow(image, interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_xlabel(f"{result.scores[config.reward].iloc[column]:.3f}", fontsize=8)
            if row == 0:
                words = result.scores.prompt.iloc[column].split()
                axis.set_title("\n".join(" ".join(words[i : i + 4]) for i in range(0, len(words), 4)), fontsize=6)
        axes[row, 0].set_ylabel(label)
    executor.ledger = ledger
    figure.suptitle(f"{config.method}, {config.reward}, suite {config.suite}, seed {config.seed}", fontsize=9)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    figure.savefig(part, dpi=110, format="png")
    plt.close(figure)
    os.replace(part, path)
