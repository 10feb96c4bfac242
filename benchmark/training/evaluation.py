"""Evaluation off the clock: the full sampler on held-out prompts and fixed noise, every reward, oracle, diversity."""

from __future__ import annotations

import dataclasses
import io
import time

import numpy as np
import pandas as pd
import torch

from ..diffusion import Executor, Plan
from ..suites import Suite

NOISE_SEED = 20_000  # of evaluations; the same for every run, so that scores are paired over methods and seeds
VARIED, VARIED_ON_CURVE, IMAGES_EACH = 32, 8, 4  # diversity: prompts, prompts at a point of a curve, images of each


@dataclasses.dataclass
class Evaluation:
    """Scores of one set of weights.

    scores     one row per image: split, prompt, a column per reward, oracle
    latents    final latents of the scored images, (N, C, h, w)
    distances  mean pairwise distance (root mean square over latents) of several images of a prompt, (P,)
    """

    scores: pd.DataFrame
    latents: torch.Tensor
    distances: torch.Tensor
    seconds: float

    @property
    def diversity(self) -> float:
        return float(self.distances.mean())

    def mean(self, column: str, split: str) -> float:
        return float(self.scores.loc[self.scores.split == split, column].mean(skipna=False))

    def first(self, prompts: int, varied: int) -> Evaluation:
        """The part that an evaluation of the first prompts alone would have been."""
        return Evaluation(self.scores[:prompts], self.latents[:prompts], self.distances[:varied], self.seconds)

    def drift(self, base: Evaluation) -> float:
        """Root mean square distance of the final latents from the base model's, from the same noise."""
        return float((self.latents - base.latents).square().mean().sqrt())

    def to_state(self) -> dict:
        """For a checkpoint: what ``torch.load(weights_only=True)`` reads back."""
        return {
            "scores": self.scores.to_csv(index=False),
            "latents": self.latents,
            "distances": self.distances,
            "seconds": self.seconds,
        }

    @classmethod
    def from_state(cls, state: dict) -> Evaluation:
        scores = pd.read_csv(io.StringIO(state["scores"]), float_precision="round_trip")
        return cls(scores, state["latents"], state["distances"], state["seconds"])


def noise(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def sample(executor: Executor, plan: Plan, embeds: torch.Tensor, latents: torch.Tensor, chunk: int) -> torch.Tensor:
    """Final latents of a plan, ``chunk`` images at a time, on the CPU."""
    parts = zip(latents.to(embeds.device).split(chunk), embeds.split(chunk), strict=True)
    return torch.cat([executor.run(plan, x, e).cpu() for x, e in parts])


@torch.no_grad()
def score(
    executor: Executor, plan: Plan, suite: Suite, rewards: list[str], texts: list[str]
) -> tuple[torch.Tensor, dict[str, list[float]]]:
    """Sample a prompt an image along ``plan``, from the noise of evaluations; final latents, and scores by name."""
    start = noise((len(texts), *executor.latent_shape), NOISE_SEED)
    final, columns = sample(executor, plan, suite.embed(texts), start, suite.chunk), {}
    for begin in range(0, len(texts), suite.chunk):
        images = executor.decode(final[begin : begin + suite.chunk].to(suite.device))
        for name, scores in score_images(suite, rewards, images, texts[begin : begin + suite.chunk]).items():
            columns.setdefault(name, []).extend(scores)
    return final, columns


@torch.no_grad()
def score_images(suite: Suite, rewards: list[str], images: torch.Tensor, texts: list[str]) -> dict[str, list[float]]:
    """Scores of images (B, 3, H, W) by reward, and the oracle's where the suite has one."""
    scores = {name: suite.reward(name)(images, texts).tolist() for name in rewards}
    return scores | ({"oracle": suite.oracle(images, texts).tolist()} if suite.oracle else {})


@torch.no_grad()
def evaluate(
    executor: Executor,
    plan: Plan,
    suite: Suite,
    rewards: list[str],
    prompts: dict[str, list[str]],
    varied: int = VARIED,
) -> Evaluation:
    """Sample ``prompts`` (split -> prompts) along ``plan`` and score the images. Nothing is entered into the ledger.

    varied: of how many prompts several images are made, for their distances.
    """
    start = time.perf_counter()
    with executor.ledger.paused():
        flat = [(split, prompt) for split, part in prompts.items() for prompt in part]
        texts = [prompt for _, prompt in flat]
        final, columns = score(executor, plan, suite, rewards, texts)
        scores = pd.DataFrame({"split": [s for s, _ in flat], "prompt": texts} | columns)

        several = [prompt for prompt in texts[:varied] for _ in range(IMAGES_EACH)]
        fresh = noise((len(several), *executor.latent_shape), NOISE_SEED + 1)
        images = sample(executor, plan, suite.embed(several), fresh, suite.chunk)
    groups = images.view(-1, IMAGES_EACH, images[0].numel())
    pairs = np.triu_indices(IMAGES_EACH, 1)
    distances = (groups[:, pairs[0]] - groups[:, pairs[1]]).square().mean(-1).sqrt().mean(1)
    return Evaluation(scores, final, distances, time.perf_counter() - start)
