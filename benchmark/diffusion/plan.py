"""A chain is a plan: a tuple of hops from noise to image."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Literal

END = 0  # the sampler's last level: alpha-bar of timestep 0 (``set_alpha_to_one=False``)
CLEAN = -1  # alpha-bar 1: a one-step prediction of the clean latents


@dataclasses.dataclass(frozen=True)
class Hop:
    """One call of a denoiser and the DDIM move it allows, from timestep ``t`` to ``s``.

    model       "base", or "shortcut", the few-step model; the executor knows the guidance of each
    slots       the LoRA slots (numbered from 1) whose updates are added to the base model's weights
    eps_grad    the noise prediction keeps its gradient
    input_grad  the denoiser sees the latents attached; the latents' own linear path is never cut
    checkpoint  the call is recomputed in the backward pass instead of stored
    eta         DDIM's stochasticity (Song et al., 2021, eq. 16); 0 is deterministic
    guidance    classifier-free guidance at the scale that the executor has for the model, if it has one
    """

    t: int
    s: int
    model: Literal["base", "shortcut"] = "base"
    slots: tuple[int, ...] = ()
    eps_grad: bool = False
    input_grad: bool = False
    checkpoint: bool = False
    eta: float = 0.0
    guidance: bool = True

    def __post_init__(self):
        if not self.t > self.s >= CLEAN:
            raise ValueError(f"a hop runs towards the image: t={self.t} must be above s={self.s} >= {CLEAN}")
        if self.input_grad and not self.eps_grad:
            raise ValueError(f"hop {self.t}->{self.s}: input_grad has no effect without eps_grad")

    def with_gradient(self, checkpoint: bool = False) -> Hop:
        """The same hop, differentiable in its weights and its input."""
        return dataclasses.replace(self, eps_grad=True, input_grad=True, checkpoint=checkpoint)

    def untuned(self, model: Literal["base", "shortcut"] | None = None) -> Hop:
        """The same move without slots or gradient, by ``model`` where one is named."""
        model = self.model if model is None else model
        return dataclasses.replace(self, model=model, slots=(), eps_grad=False, input_grad=False, checkpoint=False)


Plan = tuple[Hop, ...]


def sampler_plan(timesteps: list[int], slots_at=lambda t: (1,), eta: float = 0.0, guidance: bool = True) -> Plan:
    """The base sampler's own chain down to ``END``, without gradient.

    ``slots_at(t)`` names the slots that are on at a timestep.
    """
    ends = [*timesteps[1:], END]
    pairs = zip(timesteps, ends, strict=True)
    return tuple(Hop(t, s, slots=tuple(slots_at(t)), eta=eta, guidance=guidance) for t, s in pairs)


def describe(plan: Plan) -> list[str]:
    """The plan in words, runs of like hops joined: ``981->761  12 x base  slots 1  no gradient``."""
    names, lines = {END: "end", CLEAN: "x0"}, []
    for _, run in itertools.groupby(plan, lambda hop: dataclasses.replace(hop, t=1, s=0)):
        hop, *rest = run
        last, count = [hop, *rest][-1].s, 1 + len(rest)
        gradient = "no gradient"
        if hop.eps_grad:
            gradient = "gradient" if hop.input_grad else "gradient, input detached"
        slots = "slots " + "+".join(map(str, hop.slots)) if hop.slots else "no slot"
        extra = ", checkpointed" * hop.checkpoint + ", no guidance" * (not hop.guidance) + ", noise" * (hop.eta > 0)
        span = f"{hop.t}->{names.get(last, last)}"
        lines.append(f"{span:<10} {count:>2} x {hop.model:<8}  {slots:<13} {gradient}{extra}")
    return lines
