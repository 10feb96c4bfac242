"""The trainer: batches, optimiser, clipping, budget, log. It knows no method by name."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator

import numpy as np
import torch
from accelerate import Accelerator

from methods import Batch, Method

from ..config import Budget, RunConfig
from ..diffusion import Executor
from ..errors import InputError
from ..rewards import Reward
from ..suites import Suite
from .counted import Counted

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

    def __init__(
        self,
        config: RunConfig,
        suite: Suite,
        executor: Executor,
        method: Method,
        reward: Reward,
        prompts: list[str],
        accelerator: Accelerator,
    ):
        settings = config.settings
        self.config, self.suite, self.executor, self.method = config, suite, executor, method
        self.reward = Counted(reward, executor.ledger, suite.precision)
        self.prompts, self.accelerator = prompts, accelerator
        self.budget = Budget.parse(config.budget)
        processes, whole = accelerator.num_processes, settings.batch
        each = settings.micro_batch or max(whole // processes, 1)
        if whole % (processes * each):
            raise InputError(f"batch={whole} does not divide into {processes} processes x {each} prompts; set another")
        self.parts = whole // (processes * each)
        self.optimizer = torch.optim.AdamW(
            executor.policy.parameters(),
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            eps=settings.adam_epsilon,
            fused=True,  # the default's loop over many small tensors costs several times as much
        )
        self.step, self.seconds = 0, 0.0
        self.log: list[list[float]] = []

    @property
    def progress(self) -> float:
        """Share of the budget that is spent; 1 or more when the run is over."""
        ledger = self.executor.ledger
        processes = self.accelerator.num_processes
        return self.budget.share_spent(
            ledger.operations * processes, self.seconds, ledger.images * processes, self.step
        )

    def batch(self) -> Batch:
        """The batch of the current step: this process's part of it."""
        (batch,) = self.batches(1)
        return batch

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
            made.append(
                Batch(prompts, self.suite.embed(prompts), latents[part].to(self.suite.device), generator, self.progress)
            )
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
                if self.accelerator.num_processes > 1:
                    for parameter in parameters:
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
        return {
            "policy": self.executor.policy.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ledger": dataclasses.asdict(self.executor.ledger),
            "step": self.step,
            "seconds": self.seconds,
            "log": self.log,
        }

    def load_state_dict(self, state: dict) -> None:
        self.executor.policy.load_state_dict(state["policy"])
        self.optimizer.load_state_dict(state["optimizer"])
        for name, value in state["ledger"].items():
            setattr(self.executor.ledger, name, value)
        self.step, self.seconds, self.log = state["step"], state["seconds"], state["log"]
