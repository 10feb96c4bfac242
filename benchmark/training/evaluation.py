"""Evaluation off the clock: the full sampler on held-out prompts and fixed noise, every reward, oracle, diversity."""

from __future__ import annotations

import dataclasses
import io
import time

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..diffusion import Executor, Plan
from ..suites import Suite
from .workbench import Workbench

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
    latents: Tensor
    distances: Tensor
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
        return vars(self) | {"scores": self.scores.to_csv(index=False)}

    @classmethod
    def from_state(cls, state: dict) -> Evaluation:
        scores = pd.read_csv(io.StringIO(state["scores"]), float_precision="round_trip")
        return cls(**state | {"scores": scores})


def noise(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def sample(executor: Executor, plan: Plan, embeds: Tensor, latents: Tensor, chunk: int) -> Tensor:
    """Final latents of a plan, ``chunk`` images at a time, on the CPU."""
    parts = zip(latents.to(embeds.device).split(chunk), embeds.split(chunk), strict=True)
    return torch.cat([executor.run(plan, x, e).cpu() for x, e in parts])


@torch.no_grad()
def score(bench: Workbench, plan: Plan, rewards: list[str], texts: list[str]) -> tuple[Tensor, dict[str, list[float]]]:
    """Sample a prompt an image along ``plan``, from the noise of evaluations; final latents, and scores by name."""
    executor, suite = bench.executor, bench.suite
    start = noise((len(texts), *executor.latent_shape), NOISE_SEED)
    final, columns = sample(executor, plan, suite.embed(texts), start, suite.chunk), {}
    for begin in range(0, len(texts), suite.chunk):
        images = executor.decode(final[begin : begin + suite.chunk].to(suite.device))
        for name, scores in score_images(suite, rewards, images, texts[begin : begin + suite.chunk]).items():
            columns.setdefault(name, []).extend(scores)
    return final, columns


@torch.no_grad()
def score_images(suite: Suite, rewards: list[str], images: Tensor, texts: list[str]) -> dict[str, list[float]]:
    """Scores of images (B, 3, H, W) by reward, and the oracle's where the suite has one."""
    scores = {name: suite.reward(name)(images, texts).tolist() for name in rewards}
    return scores | ({"oracle": suite.oracle(images, texts).tolist()} if suite.oracle else {})


@torch.no_grad()
def evaluate(
    bench: Workbench, plan: Plan, rewards: list[str], prompts: dict[str, list[str]], varied: int = VARIED
) -> Evaluation:
    """Sample ``prompts`` (split -> prompts) along ``plan`` and score the images. Nothing is entered into the ledger.

    varied: of how many prompts several images are made, for their distances.
    """
    start, executor, suite = time.perf_counter(), bench.executor, bench.suite
    scores = pd.DataFrame([(split, text) for split in prompts for text in prompts[split]], columns=["split", "prompt"])
    with executor.ledger.paused():
        final, columns = score(bench, plan, rewards, list(scores.prompt))
        several = [prompt for prompt in scores.prompt[:varied] for _ in range(IMAGES_EACH)]
        fresh = noise((len(several), *executor.latent_shape), NOISE_SEED + 1)
        images = sample(executor, plan, suite.embed(several), fresh, suite.chunk)
    groups = images.view(-1, IMAGES_EACH, images[0].numel())
    pairs = np.triu_indices(IMAGES_EACH, 1)
    distances = (groups[:, pairs[0]] - groups[:, pairs[1]]).square().mean(-1).sqrt().mean(1)
    return Evaluation(scores.assign(**columns), final, distances, time.perf_counter() - start)
