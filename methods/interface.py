"""What a method is: a way to make gradient estimates of the reward from prompts and noise. Nothing else differs."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Iterator
from typing import ClassVar

import torch
from pydantic import BaseModel, ConfigDict

from benchmark.diffusion import Executor, Plan, sampler_plan

Reward = Callable[[torch.Tensor, list[str]], torch.Tensor]  # images (B, 3, H, W) in [0, 1], prompts -> (B,)


@dataclasses.dataclass(frozen=True)
class Batch:
    """What one step starts from: the same for every method with the same seed.

    latents    initial noise (B, C, h, w)
    generator  source of the method's own randomness
    progress   share of the run's budget that is spent, in [0, 1)
    """

    prompts: list[str]
    prompt_embeds: torch.Tensor
    latents: torch.Tensor
    generator: torch.Generator
    progress: float


@dataclasses.dataclass(frozen=True)
class Update:
    """One gradient estimate, now in the ``.grad`` of the policy's parameters, and the mean reward behind it."""

    reward: float


class Method(BaseModel, abc.ABC):
    """A method's fields are its options, with defaults and descriptions; ``--set name=value`` overrides one."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    needs_gradient: ClassVar[bool] = True  # whether the reward must be differentiable

    @property
    def needs_shortcut(self) -> bool:
        """Whether the suite's few-step model takes part in training."""
        return False

    @property
    def slots(self) -> int:
        """How many LoRA slots the policy gets."""
        return 1

    def slots_at(self, t: int, timesteps: list[int]) -> tuple[int, ...]:
        """The slots that are on at timestep ``t`` of the base chain when images are sampled."""
        return (1,)

    def sampler_plan(self, timesteps: list[int]) -> Plan:
        """The full chain with which the tuned model is evaluated."""
        return sampler_plan(timesteps, lambda t: self.slots_at(t, timesteps))

    @property
    def chain_steps(self) -> int | None:
        """Length of the chain that training runs; None: the sampler's."""
        return None

    @abc.abstractmethod
    def updates(self, executor: Executor, batch: Batch, reward: Reward) -> Iterator[Update]:
        """Yield after each gradient estimate; the trainer then clips, steps and zeroes."""


class DirectReward(Method):
    """Methods that back-propagate a differentiable reward through a plan of hops: one estimate per batch."""

    @abc.abstractmethod
    def plan(self, timesteps: list[int], generator: torch.Generator, progress: float) -> Plan:
        """The chain of one step, and where its gradient flows."""

    def phases(self, timesteps: list[int]) -> Iterator[tuple[float, Plan]]:
        """Shares of the budget, in hundredths, at which the plan changes, and the plan from there on."""
        seen = None
        for hundredth in range(100):
            plan = self.plan(timesteps, torch.Generator().manual_seed(0), hundredth / 100)
            if plan != seen:
                yield hundredth / 100, plan
                seen = plan

    def trained_slots(self, progress: float) -> tuple[int, ...]:
        """The slots that get gradient now."""
        return tuple(range(1, self.slots + 1))

    def loss(self, rewards: torch.Tensor) -> torch.Tensor:
        """What is minimised, from the rewards (B,)."""
        return -rewards.mean()

    def updates(self, executor: Executor, batch: Batch, reward: Reward) -> Iterator[Update]:
        executor.policy.train_slots(self.trained_slots(batch.progress))
        plan = self.plan(executor.grid(self.chain_steps), batch.generator, batch.progress)
        latents = executor.run(plan, batch.latents, batch.prompt_embeds, batch.generator)
        rewards = reward(executor.decode(latents), batch.prompts)
        executor.policy.backward(self.loss(rewards))
        yield Update(rewards.mean().item())
