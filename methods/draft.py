r"""DRaFT: back-propagate the reward through the whole of sampling.

Clark, Vicol, Swersky, Fleet: *Directly Fine-Tuning Diffusion Models on Differentiable Rewards*, ICLR 2024,
arXiv:2309.17400, section 4.1. The gradient of the reward runs through the decoder and every step of the chain into
the LoRA; checkpointing pays for the memory with one more forward pass per step.

    theta <- theta + eta * grad_theta r(x_0(theta, c, x_T))

Implementation details
1. All 50 steps keep their gradient, guidance 7.5 with gradient through both halves (published: w = 7.5, eta = 0).
2. Each denoiser call is checkpointed (published). With `checkpoint=false` every activation of the chain is stored.
"""

from __future__ import annotations

import torch
from pydantic import Field

from benchmark.diffusion import Plan

from .interface import DirectReward


class Draft(DirectReward):
    """DRaFT (Clark et al., ICLR 2024): gradient through all steps of the full chain."""

    checkpoint: bool = Field(True, description="recompute the denoiser in the backward pass [paper: true]")

    def plan(self, timesteps: list[int], generator: torch.Generator, progress: float) -> Plan:
        return tuple(hop.with_gradient(self.checkpoint) for hop in self.sampler_plan(timesteps))
