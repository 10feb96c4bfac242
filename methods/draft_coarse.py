"""Control: the full gradient through a coarse DDIM chain of the base model, with no few-step model at all.

Not from a paper. If the few-step model is what makes ShortFT work, then ShortFT must beat this: the same reward,
back-propagated through all of a chain that is short because it takes large DDIM steps (question Q1).

Implementation details
1. The chain is every fifth step of the base grid, from its first, and the base grid's last step: 981, 881, ..., 81, 1
   for 50 steps (our choice; the last step is kept so that the chain ends as the base chain does).
2. All calls have gradient; guidance as in sampling. Evaluated, like every method, with the 50-step sampler.
"""

from __future__ import annotations

import torch
from pydantic import Field

from benchmark.diffusion import Plan, sampler_plan

from .interface import DirectReward


class DraftCoarse(DirectReward):
    """Control: full back-propagation through a coarse chain of large DDIM steps of the base model."""

    stride: int = Field(5, ge=2, description="every how many-th step of the base grid is kept [ours: 5]")
    checkpoint: bool = Field(False, description="recompute the denoiser in the backward pass instead of storing it")

    def plan(self, timesteps: list[int], generator: torch.Generator, progress: float) -> Plan:
        kept = timesteps[:: self.stride]
        if kept[-1] != timesteps[-1]:
            kept = [*kept, timesteps[-1]]
        return tuple(hop.with_gradient(self.checkpoint) for hop in sampler_plan(kept))
