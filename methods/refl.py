r"""ReFL: stop the chain at a random late step, predict the clean image there, and follow its reward.

Xu, Liu, Wu, Tong, Li, Ding, Tang, Dong: *ImageReward: Learning and Evaluating Human Preferences for Text-to-Image
Generation*, NeurIPS 2023, arXiv:2304.05977, algorithm 1. Sampling runs without gradient to a random step, where one
noise prediction with gradient gives the clean latents:

    x0_hat = (x_t - sigma_t eps_theta(x_t, t, c)) / alpha_t        loss = lambda * relu(margin - r(x0_hat))

Implementation details
1. A chain of 40 steps, stopped at the step with 0-based index 30..39, uniformly (published).
2. No guidance in training, and stochastic (eta = 1) steps (released code). Evaluation is guided, as for every method.
3. The released loss is 1e-3 relu(2 - r), made for ImageReward's standardised score. The margin is in the reward's
   units, so it is an option (`margin`), off by default: plain reward ascent, as for the other methods. The factor 1e-3
   balances a pre-training loss that these experiments, like the paper's comparison, leave out.
"""

from __future__ import annotations

import torch
from pydantic import Field, model_validator

from benchmark.diffusion import CLEAN, Hop, Plan, sampler_plan

from .interface import DirectReward


class ReFL(DirectReward):
    """ReFL (Xu et al., NeurIPS 2023): the reward of a one-step prediction at a random late step."""

    steps: int = Field(40, ge=2, description="length of the training chain [paper: 40]")
    earliest: int = Field(30, ge=0, description="first step, from 0, at which the chain may stop [paper: 30]")
    guidance: bool = Field(False, description="classifier-free guidance in training [released code: false]")
    margin: float | None = Field(None, description="a reward above this gives no gradient [paper: 2, ImageReward]")

    @model_validator(mode="after")
    def _earliest_is_in_the_chain(self) -> ReFL:
        if self.earliest >= self.steps:
            raise ValueError(f"earliest={self.earliest} must be below steps={self.steps}")
        return self

    @property
    def chain_steps(self) -> int:
        return self.steps

    def plan(self, timesteps: list[int], generator: torch.Generator, progress: float) -> Plan:
        stop = int(torch.randint(self.earliest, self.steps, (), generator=generator))
        chain = sampler_plan(timesteps, lambda t: self.slots_at(t, timesteps), eta=1.0, guidance=self.guidance)
        last = Hop(timesteps[stop], CLEAN, slots=chain[stop].slots, guidance=self.guidance)
        return (*chain[:stop], last.with_gradient())

    def loss(self, rewards: torch.Tensor) -> torch.Tensor:
        return -rewards.mean() if self.margin is None else torch.relu(self.margin - rewards).mean()
