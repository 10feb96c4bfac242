"""Evaluation off the clock: the full sampler on held-out prompts and fixed noise, every reward, oracle, diversity."""

from __future__ import annotations

import dataclasses
import io
import time

import numpy as np
import pandas as pd
import torch

from .diffusion import Executor, Plan
from .ledger import Ledger
from .suites import Suite

NOISE_SEED = 20_000  # of evaluations; the same for every run, so that scores are paired over methods and seeds
CHUNK = 64
DIVERSITY = (32, 4)  # prompts, images of each


@dataclasses.dataclass
class Evaluation:
    """Scores of one set of weights.

    scores     one row per image: split, prompt, a column per reward, oracle
    latents    final latents of the scored images, (N, C, h, w)
    diversity  mean pairwise distance (root mean square over latents) of several images of a prompt
    """

    scores: pd.DataFrame
    latents: torch.Tensor
    diversity: float
    seconds: float

    def mean(self, column: str, split: str) -> float:
        return float(self.scores.loc[self.scores.split == split, column].mean(skipna=False))

    def to_state(self) -> dict:
        """For a checkpoint: what ``torch.load(weights_only=True)`` reads back."""
        return {
            "scores": self.scores.to_csv(index=False),
            "latents": self.latents,
            "diversity": self.diversity,
            "seconds": self.seconds,
        }

    @classmethod
    def from_state(cls, state: dict) -> Evaluation:
        scores = pd.read_csv(io.StringIO(state["scores"]), float_precision="round_trip")
        return cls(scores, state["latents"], state["diversity"], state["seconds"])


def noise(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def sample(executor: Executor, plan: Plan, embeds: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
    """Final latents of a plan, in chunks, on the CPU."""
    parts = zip(latents.to(embeds.device).split(CHUNK), embeds.split(CHUNK), strict=True)
    return torch.cat([executor.run(plan, x, e).cpu() for x, e in parts])


@torch.no_grad()
def evaluate(
    executor: Executor,
    plan: Plan,
    suite: Suite,
    rewards: list[str],
    prompts: dict[str, list[str]],
) -> Evaluation:
    """Sample ``prompts`` (split -> prompts) along ``plan`` and score the images. Nothing is entered into the ledger."""
    start = time.perf_counter()
    ledger, executor.ledger = executor.ledger, Ledger()
    try:
        shape = (executor.policy.unet.config.in_channels,) + (executor.policy.unet.config.sample_size,) * 2
        flat = [(split, prompt) for split, part in prompts.items() for prompt in part]
        texts = [prompt for _, prompt in flat]
        final = sample(executor, plan, suite.embed(texts), noise((len(texts), *shape), NOISE_SEED))
        columns: dict[str, list] = {name: [] for name in [*rewards, *(["oracle"] if suite.oracle else [])]}
        scorers = {name: suite.reward(name) for name in rewards}
        for begin in range(0, len(texts), CHUNK):
            images = executor.decode(final[begin : begin + CHUNK].to(suite.device))
            part = texts[begin : begin + CHUNK]
            for name, scorer in scorers.items():
                columns[name] += scorer(images, part).tolist()
            if suite.oracle:
                columns["oracle"] += suite.oracle(images, part).tolist()
        scores = pd.DataFrame({"split": [s for s, _ in flat], "prompt": texts} | columns)

        count, each = DIVERSITY
        several = [prompt for prompt in texts[:count] for _ in range(each)]
        varied = sample(executor, plan, suite.embed(several), noise((len(several), *shape), NOISE_SEED + 1))
        groups = varied.view(-1, each, varied[0].numel())
        pairs = np.triu_indices(each, 1)
        distances = (groups[:, pairs[0]] - groups[:, pairs[1]]).square().mean(-1).sqrt()
    finally:
        executor.ledger = ledger
    return Evaluation(scores, final, float(distances.mean()), time.perf_counter() - start)
