r"""ShortFT: back-propagate the reward through a chain that a frozen few-step model shortens.

Guo, Cui, Bo, Huang: *ShortFT: Diffusion Model Alignment via Shortcut-based Fine-Tuning*, ICCV 2025, arXiv:2507.22604.
The authors released no code; this is an independent implementation.

The 50-step chain is cut into k = 4 segments. A few-step model, distilled to preserve the trajectory and frozen,
carries x_t over the whole stretch between two LoRA-bearing timesteps in one call, so that the reward's gradient
reaches the first segment through 8 calls instead of 50:

    981 ... 761 | 741 => 501 | 501 | 481 => 261 | 261 | 241 => 1 | 1 -> x_0          (=> is one shortcut call)
    LoRA 1               LoRA 1+2           LoRA 1+2+3         LoRA 1+2+3+4

Stacked timestep-aware LoRAs: at the timestep of LoRA i, LoRAs 1..i act together; elsewhere the base model is as it
was. Progressive training: stage i optimises LoRAs i..k, and runs the original chain, without gradient, down to the
timestep of LoRA i; shortcuts stand in only after it. Inference runs the original chain, no shortcut.

Implementation details
1. Segment 1 is the first 12 steps of 50 (981..761), LoRAs 2 and 3 sit at steps 24 and 36 (501, 261), LoRA 4 at the
   last (published timesteps). Other grids take the same indices: `trailing` gives 999..779, 519, 279, 19.
2. In segment 1 the gradient is truncated to the last `tail` steps. How far is not published ("the last steps"); ours 2.
3. Which stage gets which share of the budget is not published; ours: `shares`, equal by default.
4. Base calls use guidance 7.5, as in sampling (the guidance scale of training is not published). Whether the few-step
   model runs with guidance is the suite's: Hyper-SD's 4-step LoRA (the paper's) without, the embedded suite's with.
5. LoRAs of finished stages still act where they are on, but get no gradient (published: stage i optimises i..k).
6. `shortcut=naive` puts one guided DDIM jump of the base model in the shortcut's place (control, question Q1).
   `timestep_aware=false` trains one LoRA for all those timesteps; `progressive=false` keeps stage 1 throughout
   (the paper's Table 3).
7. `policy=shortcut` tunes the few-step model itself (the paper's Table 2): one LoRA on top of it, gradient through all
   of its own four calls, and images are made by those four calls. The options of stages and slots do not apply.
"""

from __future__ import annotations

import itertools
from typing import Literal

import torch
from pydantic import Field, field_validator

from benchmark.diffusion import END, Hop, Plan

from .interface import DirectReward

STAGES = 4
FIRST_OF_SEGMENT = (0, 12, 24, 36)  # steps of 50


class ShortFT(DirectReward):
    """ShortFT (Guo et al., ICCV 2025): gradient through a chain that a frozen few-step model shortens."""

    tail: int = Field(2, ge=1, le=12, description="steps of segment 1 that keep their gradient [not published: 2]")
    shares: tuple[float, ...] = Field(
        (0.25, 0.25, 0.25, 0.25), description="share of the budget of each stage [not published: equal]"
    )
    timestep_aware: bool = Field(True, description="one LoRA per segment, stacked; false: one for all [paper: true]")
    progressive: bool = Field(True, description="train stage by stage; false: stage 1 throughout [paper: true]")
    shortcut: Literal["few-step", "naive"] = Field(
        "few-step", description="what jumps: the few-step model, or one guided DDIM step of the base [paper: few-step]"
    )
    policy: Literal["base", "shortcut"] = Field(
        "base", description="what is tuned: the base model, or the few-step model itself [paper: base]"
    )
    checkpoint: bool = Field(False, description="recompute the denoiser in the backward pass instead of storing it")

    @field_validator("shares")
    @classmethod
    def _positive_shares(cls, shares: tuple[float, ...]) -> tuple[float, ...]:
        if len(shares) != STAGES or min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
            raise ValueError(f"expected {STAGES} shares that are not negative and add up to 1, got {list(shares)}")
        return shares

    @property
    def needs_shortcut(self) -> bool:
        return self.shortcut == "few-step" or self.policy == "shortcut"

    @property
    def slots(self) -> int:
        return STAGES if self.timestep_aware and self.policy == "base" else 1

    def bearers(self, timesteps: list[int]) -> dict[int, int]:
        """LoRA-bearing timesteps and the stage they belong to: {981: 1, ..., 761: 1, 501: 2, 261: 3, 1: 4}."""
        if len(timesteps) != 50:
            raise ValueError(f"ShortFT's segments are defined on a chain of 50 steps, not {len(timesteps)}")
        return {**dict.fromkeys(timesteps[:12], 1), timesteps[24]: 2, timesteps[36]: 3, timesteps[49]: 4}

    def slots_at(self, t: int, timesteps: list[int]) -> tuple[int, ...]:
        stage = self.bearers(timesteps).get(t, 0)
        return tuple(range(1, stage + 1)) if self.slots > 1 else (1,) * (stage > 0)

    def sampler_plan(self, timesteps: list[int]) -> Plan:
        if self.policy == "base":
            return super().sampler_plan(timesteps)
        starts = [timesteps[i] for i in FIRST_OF_SEGMENT]
        return tuple(Hop(t, s, "shortcut", slots=(1,)) for t, s in itertools.pairwise([*starts, END]))

    def stage(self, progress: float) -> int:
        """The stage, 1..4, at a share of the budget."""
        if not self.progressive:
            return 1
        passed = sum(progress >= end - 1e-9 for end in itertools.accumulate(self.shares[:-1]))
        return 1 + passed

    def trained_slots(self, progress: float) -> tuple[int, ...]:
        return tuple(range(self.stage(progress), STAGES + 1)) if self.slots > 1 else (1,)

    def plan(self, timesteps: list[int], generator: torch.Generator, progress: float) -> Plan:
        if self.policy == "shortcut":
            return tuple(hop.with_gradient(self.checkpoint) for hop in self.sampler_plan(timesteps))
        return self.stage_plan(self.stage(progress), timesteps)

    def stage_plan(self, stage: int, timesteps: list[int]) -> Plan:
        """The chain of one stage: the base chain down to LoRA ``stage``, then shortcuts between LoRA steps."""
        bearers = self.bearers(timesteps)
        chain = self.sampler_plan(timesteps)
        last = max(i for i, t in enumerate(timesteps) if bearers.get(t) == stage)
        first = last + 1 - (self.tail if stage == 1 else 1)
        plan = [*chain[:first], *(hop.with_gradient(self.checkpoint) for hop in chain[first : last + 1])]
        for index in range(last + 1, len(chain)):
            hop = chain[index]
            if bearers.get(hop.t):
                if plan[-1].s != hop.t:
                    model = "shortcut" if self.shortcut == "few-step" else "base"
                    plan.append(Hop(plan[-1].s, hop.t, model).with_gradient(self.checkpoint))
                plan.append(hop.with_gradient(self.checkpoint))
        assert plan[-1].s == END
        return tuple(plan)
