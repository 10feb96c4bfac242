r"""AlignProp: back-propagate the reward through the full chain, truncated at random.

Prabhudesai, Goyal, Pathak, Fragkiadaki: *Aligning Text-to-Image Diffusion Models with Reward Backpropagation*, 2023,
arXiv:2310.03739. The whole chain is differentiable in its latents, but only some noise predictions keep their gradient.

    x_{i+1} = a_i x_i + b_i eps_i,    eps_i := stop_grad(eps_i) unless hop i is kept

Three algorithms go by this name, so `truncation` is an option:

    per-step   hop i (0-based) draws u_i uniformly from 0..50 and is kept if i >= u_i: with probability (i+1)/51
               (the original release, and TRL 0.9.6 to 0.23.1)
    gaussian   one cut ~ N(42, 5), drawn again until it lies in [1, 50); hops from the cut on are kept
               (the repository's later code)
    fixed      the last `k` hops are kept (the paper's memory-saving variant with k = 1)

Implementation details
1. Every denoiser call with gradient is checkpointed (published).
2. eta = 0 and guidance 7.5, as in the original release; TRL and the later code use eta = 1 and 5 (`eta` is an option).
3. The original scales its loss by 0.01; AdamW does not feel a constant factor, and clipping is the same for all
   methods here, so it is left out.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field

from benchmark.diffusion import Plan, sampler_plan

from .interface import DirectReward


class AlignProp(DirectReward):
    """AlignProp (Prabhudesai et al., 2023): gradient through the full chain, truncated at random."""

    truncation: Literal["per-step", "gaussian", "fixed"] = Field(
        "per-step", description="which noise predictions keep their gradient [original release: per-step]"
    )
    k: int = Field(1, ge=1, description="hops kept where truncation=fixed [paper: 1]")
    eta: float = Field(0.0, ge=0, le=1, description="stochasticity of the training chain [original: 0; TRL: 1]")
    checkpoint: bool = Field(True, description="recompute the denoiser in the backward pass [paper: true]")

    def plan(self, timesteps: list[int], generator: torch.Generator, progress: float) -> Plan:
        kept = self.kept(len(timesteps), generator)
        chain = sampler_plan(timesteps, lambda t: self.slots_at(t, timesteps), self.eta)
        return tuple(hop.with_gradient(self.checkpoint) if keep else hop for hop, keep in zip(chain, kept, strict=True))

    def kept(self, length: int, generator: torch.Generator) -> list[bool]:
        """Which hops keep the gradient of their noise prediction."""
        if self.truncation == "per-step":
            draws = torch.randint(length + 1, (length,), generator=generator).tolist()
            return [i >= draw for i, draw in enumerate(draws)]
        cut = length - self.k
        if self.truncation == "gaussian":
            cut = 0
            while not 1 <= cut < length:
                cut = int(42 / 50 * length + 5 / 50 * length * torch.randn((), generator=generator).item())
        elif cut < 0:
            raise ValueError(f"k={self.k} is longer than the chain of {length} steps")
        return [i >= cut for i in range(length)]
