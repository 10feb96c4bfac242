r"""DRaFT-K: back-propagate the reward through the last K steps of sampling.

Clark, Vicol, Swersky, Fleet: *Directly Fine-Tuning Diffusion Models on Differentiable Rewards*, ICLR 2024,
arXiv:2309.17400, section 4.2. The chain runs without gradient down to its last K hops; the reward's gradient flows
through the decoder and those hops into the LoRA.

    theta <- theta + eta * grad_theta r(x_0),   with x_K detached:   d x_K / d theta := 0

Implementation details
1. K = 1 by default, the paper's choice for DRaFT-1 (published).
2. Guidance 7.5 with gradient through both halves, as in sampling (published: w = 7.5, eta = 0).
3. The LoRA is on at every step, also at those without gradient, so training sees the chain that sampling runs
   (published: the LoRA is applied throughout).
"""

from __future__ import annotations

import torch
from pydantic import Field

from benchmark.diffusion import Plan

from .interface import DirectReward


class DraftK(DirectReward):
    """DRaFT-K (Clark et al., ICLR 2024): gradient through the last K steps of the full chain."""

    k: int = Field(1, ge=1, description="length of the back-propagated end of the chain, in steps [paper: 1]")
    checkpoint: bool = Field(False, description="recompute the denoiser in the backward pass instead of storing it")

    def plan(self, timesteps: list[int], generator: torch.Generator, progress: float) -> Plan:
        chain = self.sampler_plan(timesteps)
        if self.k > len(chain):
            raise ValueError(f"k={self.k} is longer than the chain of {len(chain)} steps")
        return (*chain[: -self.k], *(hop.with_gradient(self.checkpoint) for hop in chain[-self.k :]))
