r"""DRaFT-LV: DRaFT-1 with the variance of its gradient lowered by noising the image again.

Clark, Vicol, Swersky, Fleet: *Directly Fine-Tuning Diffusion Models on Differentiable Rewards*, ICLR 2024,
arXiv:2309.17400, section 4.3. Sampling is expensive and DRaFT-1 uses only its last step. So the finished latents are
noised to the last timestep n times more, each is denoised by one more step with gradient, and the gradients averaged:

    x_1^(j) = alpha_1 x_0 + sigma_1 z_j,  x_0 detached        g = 1/(1+n) sum_j grad_theta r(x_0^(j)),  j = 0..n

with x_0^(0) the chain's own last step.

Implementation details
1. n = 2 (published), guidance 7.5 and eta = 0 as in sampling.
2. The fresh z_j are the method's own randomness; the 1+n images go through decoder and reward in one batch.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from pydantic import Field

from benchmark.diffusion import Executor, Plan

from .interface import Batch, DirectReward, Reward, Update


class DraftLV(DirectReward):
    """DRaFT-LV (Clark et al., ICLR 2024): the last step, averaged over fresh noisings of the finished image."""

    n: int = Field(2, ge=0, description="fresh noisings of each finished image [paper: 2]")

    def plan(self, timesteps: list[int], generator: torch.Generator, progress: float) -> Plan:
        *chain, last = self.sampler_plan(timesteps)
        return (*chain, last.with_gradient())

    def updates(self, executor: Executor, batch: Batch, reward: Reward) -> Iterator[Update]:
        executor.policy.train_slots((1,))
        plan = self.plan(executor.timesteps, batch.generator, batch.progress)
        ends = [executor.run(plan, batch.latents, batch.prompt_embeds)]
        finished = ends[0].detach()
        for _ in range(self.n):
            noised = executor.add_noise(finished, plan[-1].t, batch.generator)
            ends.append(executor.run(plan[-1:], noised, batch.prompt_embeds))
        rewards = reward(executor.decode(torch.cat(ends)), batch.prompts * len(ends))
        executor.policy.backward(-rewards.mean())
        yield Update(rewards[: len(batch.prompts)].mean().item())
