"""What every training stage shares: its options, and AdamW on one cycle of the learning rate with clipped gradients."""

from collections.abc import Callable, Iterable
from typing import Annotated

import numpy as np
import torch
import typer

Iterations = Annotated[int, typer.Option(help="Optimiser steps.")]
Batch = Annotated[int, typer.Option(help="Batch size.")]
Rate = Annotated[float, typer.Option(help="Peak learning rate; warm-up, then cosine to zero.")]
Guidance = Annotated[float, typer.Option(help="Guidance scale of the base model's samples.")]
Device = Annotated[str, typer.Option(help="cpu, cuda or cuda:0.")]
Seed = Annotated[int, typer.Option(help="Of weights, batches and noise.")]


class Training:
    """Optimiser, schedule and, where ``average_decay`` is given, a moving average of the parameters.

    The average's decay starts small, (n+1)/(n+10) after n steps, and grows to ``average_decay``.
    """

    def __init__(
        self,
        parameters: Iterable[torch.nn.Parameter],
        rate: float,
        iterations: int,
        weight_decay: float = 0.0,
        warmup: float = 0.05,
        cycle_momentum: bool = True,
        average_decay: float | None = None,
    ):
        self.parameters = list(parameters)
        self.optimiser = torch.optim.AdamW(self.parameters, lr=rate, betas=(0.9, 0.99), weight_decay=weight_decay)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimiser, rate, total_steps=iterations, pct_start=warmup, cycle_momentum=cycle_momentum
        )
        self.average_decay = average_decay
        self.average = [] if average_decay is None else [p.detach().clone() for p in self.parameters]
        self.steps = 0
        self.losses: list[float] = []  # of the steps since the start, or since a snapshot was read

    def step(self, loss: torch.Tensor, backward: Callable[[torch.Tensor], None] = torch.Tensor.backward) -> None:
        """One optimiser step down the gradient of ``loss``."""
        self.optimiser.zero_grad()
        backward(loss)
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimiser.step()
        self.schedule.step()
        if self.average_decay is not None:
            decay = min(self.average_decay, (self.steps + 1) / (self.steps + 10))
            with torch.no_grad():
                torch._foreach_lerp_(self.average, self.parameters, 1 - decay)
        self.steps += 1
        self.losses.append(loss.item())

    def last_loss(self, steps: int = 500) -> float:
        """The mean loss of the last steps."""
        return float(np.mean(self.losses[-steps:]))

    @torch.no_grad()
    def use_average(self) -> None:
        """Give the parameters the values of their moving average: the end of a training."""
        for parameter, value in zip(self.parameters, self.average, strict=True):
            parameter.copy_(value)

    def state_dict(self) -> dict:
        """Everything but the parameters themselves."""
        state = {name: getattr(self, name).state_dict() for name in ("optimiser", "schedule")}
        return state | {"average": self.average, "steps": self.steps}

    def load_state_dict(self, state: dict) -> None:
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
        self.average, self.steps = state["average"], state["steps"]
