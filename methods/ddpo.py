r"""DDPO: policy gradient on the denoising chain as a Markov decision process; the reward needs no gradient.

Black, Janner, Du, Kostrikov, Levine: *Training Diffusion Models with Reinforcement Learning*, ICLR 2024,
arXiv:2305.13301, DDPO_IS (importance sampling). Each stochastic DDIM step is an action with a Gaussian density,

    log p_theta(x_s | x_t, c) = log N(x_s; a x_t + b eps_theta(x_t, t, c), std^2),

and the stored transitions are trained on with PPO's clipped ratio rho = p_theta / p_old and the advantage A:

    loss = mean over images and steps of  max(-A rho, -A clip(rho, 1 - c, 1 + c))

Implementation details
1. eta = 1 and all 50 steps trained (published); guidance as in sampling, in training too (published: with w = 5).
2. Log-densities are means over the latents' dimensions, as in the released code: rho stays near 1 and c = 1e-4 fits.
3. A is the reward minus its prompt's mean over the standard deviation of all rewards, cut to +-5. The released code
   keeps a buffer of past rewards per prompt (32, used from 16 on); here every prompt of a batch is sampled `samples`
   times at once, which needs no memory across steps.
4. One batch gives `minibatches` updates (released: 2 to 4 of 256 samples); in the first, rho is exactly 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import torch
from pydantic import Field

from benchmark.diffusion import Executor, Hop, sampler_plan

from .interface import Batch, Method, Reward, Update


def log_density(x: torch.Tensor, mean: torch.Tensor, std: float) -> torch.Tensor:
    """Log of the Gaussian density of x (B, C, h, w), averaged over dimensions, (B,)."""
    return torch.distributions.Normal(mean, std).log_prob(x).mean(dim=(1, 2, 3))


class DDPO(Method):
    """DDPO (Black et al., ICLR 2024): PPO on the stochastic chain, for rewards with or without a gradient."""

    needs_gradient: ClassVar[bool] = False

    samples: int = Field(4, ge=2, description="images of each prompt in a batch [ours: 4]")
    minibatches: int = Field(2, ge=1, description="updates per batch, at most `samples` [released code: 2 to 4]")
    clip: float = Field(1e-4, gt=0, description="range of the ratio, 1 +- clip [released code: 1e-4]")
    advantage_clip: float = Field(5.0, gt=0, description="largest advantage [released code: 5]")

    def updates(self, executor: Executor, batch: Batch, reward: Reward) -> Iterator[Update]:
        executor.policy.train_slots((1,))
        plan = sampler_plan(executor.timesteps, lambda t: (1,), eta=1.0)
        prompts, embeds = batch.prompts * self.samples, batch.prompt_embeds.repeat(self.samples, 1, 1)
        shape = (len(prompts) - len(batch.prompts), *batch.latents.shape[1:])
        fresh = torch.randn(shape, generator=batch.generator, dtype=batch.latents.dtype)
        states, old = [torch.cat([batch.latents, fresh.to(batch.latents.device)])], []
        with torch.no_grad():
            for hop in plan:
                mean, std = self._step(executor, hop, states[-1], embeds)
                z = torch.randn(mean.shape, generator=batch.generator, dtype=mean.dtype).to(mean.device)
                states.append(mean + std * z)
                old.append(log_density(states[-1], mean, std))
            rewards = reward(executor.decode(states[-1]), prompts)
        advantages = self.advantages(rewards)

        for part in torch.randperm(len(prompts), generator=batch.generator).to(embeds.device).chunk(self.minibatches):
            for i, hop in enumerate(plan):
                kept = Hop(hop.t, hop.s, slots=hop.slots, eps_grad=True, eta=hop.eta)
                mean, std = self._step(executor, kept, states[i][part], embeds[part])
                new = log_density(states[i + 1][part], mean, std)
                loss = self.surrogate(new - old[i][part], advantages[part]).mean() / len(plan)
                executor.policy.backward(loss, keep_merged=True)
            executor.policy.refresh()
            yield Update(rewards.mean().item())

    @staticmethod
    def _step(executor: Executor, hop: Hop, latents: torch.Tensor, embeds: torch.Tensor) -> tuple[torch.Tensor, float]:
        a, b, std = executor.move_coefficients(hop)
        return a * latents + b * executor.predict(hop, latents, embeds), std

    def advantages(self, rewards: torch.Tensor) -> torch.Tensor:
        """Advantages (samples * prompts,) of rewards in the same order: sample by sample, all prompts each."""
        by_prompt = rewards.view(self.samples, -1)
        centred = by_prompt - by_prompt.mean(0, keepdim=True)
        return (centred.flatten() / (rewards.std() + 1e-8)).clamp(-self.advantage_clip, self.advantage_clip)

    def surrogate(self, log_ratio: torch.Tensor, advantages: torch.Tensor) -> torch.Tensor:
        """PPO's clipped objective, as a loss per image (B,)."""
        ratio = log_ratio.exp()
        return torch.maximum(-advantages * ratio, -advantages * ratio.clamp(1 - self.clip, 1 + self.clip))
