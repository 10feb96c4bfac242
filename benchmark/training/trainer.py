"""The trainer: batches, optimiser, clipping, budget, log. It knows no method by name."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch

from methods import Batch

from ..config import Budget
from ..errors import InputError
from .counted import Counted

if TYPE_CHECKING:
    from .workbench import Workbench

LOG_COLUMNS = ("step", "reward", "grad_norm", "progress", "operations", "images", "seconds")


class Diverged(Exception):
    """The loss or the gradient is no longer a finite number; the last finite parameters are kept."""


def _generator(*entropy: int) -> torch.Generator:
    """An independent stream of random numbers for every tuple of integers."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1))


class Trainer:
    """Optimises a policy by a method's gradient estimates until the budget is spent.

    Prompts, noise and the method's own randomness of a step depend on (seed, step) alone, so a run that was
    interrupted goes on exactly as if it had not been. ``seconds`` counts steps only, not evaluation or checkpoints.
    """

    def __init__(self, bench: Workbench):
        self.config, self.suite, self.executor, self.method = bench.config, bench.suite, bench.executor, bench.method
        self.reward = Counted(bench.suite.reward(bench.config.reward), bench.executor.ledger, bench.suite.precision)
        self.prompts, self.accelerator, settings = bench.prompts, bench.accelerator, bench.config.settings
        self.budget = Budget.parse(bench.config.budget)
        processes, whole = self.accelerator.num_processes, settings.batch
        each = settings.micro_batch or max(whole // processes, 1)
        if whole % (processes * each):
            raise InputError(f"batch={whole} does not divide into {processes} processes x {each} prompts; set another")
        self.parts = whole // (processes * each)
        options = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay, "eps": settings.adam_epsilon}
        # Not fused, the loop over many small tensors costs several times as much.
        self.optimizer = torch.optim.AdamW(bench.policy.parameters(), **options, fused=True)
        self.step, self.seconds = 0, 0.0
        self.log: list[list[float]] = []

    @property
    def progress(self) -> float:
        """Share of the budget that is spent; 1 or more when the run is over."""
        ledger, processes = self.executor.ledger, self.accelerator.num_processes
        operations, images = ledger.operations * processes, ledger.images * processes
        return self.budget.share_spent(operations, self.seconds, images, self.step)

    def batch(self) -> Batch:
        """The batch of the current step: this process's part of it."""
        return self.batches(1)[0]

    def batches(self, parts: int) -> list[Batch]:
        """This process's part of the batch of the current step, in so many parts.

        Each part has its own stream of the method's randomness, as each process has.
        """
        seed, size = self.config.seed, self.config.settings.batch
        index = torch.randint(len(self.prompts), (size,), generator=_generator(seed, self.step, 0))
        latents = torch.randn((size, *self.executor.latent_shape), generator=_generator(seed, self.step, 1))
        made, first = [], self.accelerator.process_index * parts
        for number in range(first, first + parts):
            part = slice(number, None, self.accelerator.num_processes * parts)
            prompts = [self.prompts[i] for i in index.tolist()][part]
            generator = _generator(seed, self.step, 2, number)
            embeds, start = self.suite.embed(prompts), latents[part].to(self.suite.device)
            made.append(Batch(prompts, embeds, start, generator, self.progress))
        return made

    def _updates(self) -> Iterator[float]:
        """Gradient estimates of one step, the mean over its parts in ``.grad``; yields each one's mean reward."""
        parts = self.batches(self.parts)
        estimates = [self.method.updates(self.executor, part, self.reward) for part in parts]
        for updates in zip(*estimates, strict=True):
            if len(parts) > 1:
                gradients = [p.grad for p in self.executor.policy.parameters() if p.grad is not None]
                torch._foreach_div_(gradients, len(parts))
            yield sum(update.reward for update in updates) / len(parts)

    def _shared(self, value: float) -> float:
        """The mean over processes, so that all of them stop at the same step."""
        if self.accelerator.num_processes == 1:
            return value
        return self.accelerator.reduce(torch.tensor(value, device=self.accelerator.device), "mean").item()

    def steps(self) -> Iterator[dict[str, float]]:
        """Train; yield a row of the log after every optimiser step. Raises Diverged."""
        policy = self.executor.policy
        parameters = policy.parameters()
        while self.progress < 1:
            start = time.perf_counter()
            rows = []
            for reward in self._updates():
                for parameter in parameters if self.accelerator.num_processes > 1 else ():
                    if parameter.grad is not None:
                        parameter.grad = self.accelerator.reduce(parameter.grad, "mean")
                norm = float(torch.nn.utils.clip_grad_norm_(parameters, self.config.settings.clip_norm))
                if not (math.isfinite(norm) and math.isfinite(reward)):
                    raise Diverged(f"step {self.step}: reward {reward}, gradient norm {norm}")
                self.optimizer.step()
                self.optimizer.zero_grad(set_to_none=True)
                policy.refresh()
                rows.append((self._shared(reward), norm))
            self.step += 1
            self.seconds += self._shared(time.perf_counter() - start)
            reward, norm = np.mean(rows, axis=0).tolist()
            ledger = self.executor.ledger
            row = (self.step, reward, norm, self.progress, ledger.operations, ledger.images, self.seconds)
            self.log.append(list(row))
            yield dict(zip(LOG_COLUMNS, row, strict=True))

    def state_dict(self) -> dict:
        state = {"policy": self.executor.policy.state_dict(), "optimizer": self.optimizer.state_dict()}
        state |= {"ledger": dataclasses.asdict(self.executor.ledger)}
        return state | {"step": self.step, "seconds": self.seconds, "log": self.log}

    def load_state_dict(self, state: dict) -> None:
        self.executor.policy.load_state_dict(state["policy"])
        self.optimizer.load_state_dict(state["optimizer"])
        for name, value in state["ledger"].items():
            setattr(self.executor.ledger, name, value)
        self.step, self.seconds, self.log = state["step"], state["seconds"], state["log"]
