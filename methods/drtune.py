r"""DRTune: cut the gradient at the denoiser's input, train a few steps of the whole chain, stop early.

Wu, Hao, Zhang, Sun, Li, Zhao, Li: *Deep Reward Supervisions for Tuning Text-to-Image Diffusion Models*, ECCV 2024,
arXiv:2405.00760. Every denoiser call sees detached latents, so the gradient runs down the linear path of the sampler
alone, from the image to each trained step, and neither explodes nor needs the denoiser's Jacobian:

    x_{i+1} = a_i x_i + b_i eps_theta(stop_grad(x_i), t_i),   eps with gradient at K trained steps only

Implementation details
1. T = 50 steps, K = 5 trained steps, equally spaced with a random phase (published).
2. Early stop: t_min is uniform over the last M = 20 steps; the clean latents are predicted there in one step
   (published). The prediction keeps its gradient only if its step is one of the trained ones: the rule of step 1 is not
   suspended (our reading).
3. `m=0` never stops early. Guidance 7.5, as in sampling; eta = 0.
"""

from __future__ import annotations

import dataclasses

import torch
from pydantic import Field

from benchmark.diffusion import CLEAN, Plan

from .interface import DirectReward


class DRTune(DirectReward):
    """DRTune (Wu et al., ECCV 2024): K steps of the whole chain, gradient down the sampler's linear path."""

    k: int = Field(5, ge=1, description="trained steps, equally spaced with a random phase [paper: 5]")
    m: int = Field(20, ge=0, description="the chain stops at random in its last m steps; 0: never [paper: 20]")

    def plan(self, timesteps: list[int], generator: torch.Generator, progress: float) -> Plan:
        length = len(timesteps)
        if max(self.k, self.m) > length:
            raise ValueError(f"k={self.k} and m={self.m} must not exceed the chain's {length} steps")
        stride = length // self.k
        phase = int(torch.randint(stride + length % self.k, (), generator=generator))
        trained = {phase + stride * i for i in range(self.k)}
        plan = [dataclasses.replace(hop, eps_grad=i in trained) for i, hop in enumerate(self.sampler_plan(timesteps))]
        if self.m:
            stop = length - self.m + int(torch.randint(self.m, (), generator=generator))
            plan[stop:] = [dataclasses.replace(plan[stop], s=CLEAN)]
        return tuple(plan)
