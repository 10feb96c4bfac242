"""What a step of a method costs, beside the denoiser, decoder and reward calls that it needs.

Steps of the trainer and the calls that one such step makes, one by one and alone, are timed in turns; the ratio of the
two is our overhead. ``step_mb`` is what the first step adds to the memory of the loaded models. ``slots`` is the time
of denoiser calls with all LoRA slots on, ``switching`` of calls that switch slots each time, over calls with none;
``books`` the share of a step that ledger and log take.
"""

import collections
import dataclasses
import itertools
import time
from functools import partial

import numpy as np
import torch

from ..diffusion.ledger import Ledger
from ..records import peak_memory_mb
from ..statistics import Interval
from ..training.workbench import Workbench


def take(bench: Workbench, steps: int) -> None:
    """Take optimiser steps."""
    collections.deque(itertools.islice(bench.trainer.steps(), steps), maxlen=0)


def make_call(bench: Workbench, part: str, images: int, key, backward: bool):
    """A function that makes one such call alone, backward pass included."""
    executor, suite, batch = bench.executor, bench.suite, bench.trainer.batch()
    latents = torch.randn((images, *executor.latent_shape), device=suite.device)
    prompts, vae = list(itertools.islice(itertools.cycle(batch.prompts), images)), suite.pipeline.vae
    if part == "denoiser":
        model, slots, _, attached = key
        merged = executor.policy.weights(executor.policy.slots[:slots], model)
        given = {name: weight.detach().requires_grad_(backward) for name, weight in merged.items()}
        embeds = suite.embed(prompts)
        inputs = [*given.values()] * backward + [latents.requires_grad_()] * attached
        forward = partial(executor.policy.call, model, latents, 501, embeds, given)
    elif part == "decoder":
        given = latents.to(vae.dtype).requires_grad_(backward)
        inputs = [given] * backward

        def forward():
            return vae.decode(given / 0.9, return_dict=False)[0]
    else:
        with torch.no_grad():
            pixels = vae.decode(latents.to(vae.dtype), return_dict=False)[0].float().clamp(-1, 1) / 2 + 0.5
        pixels.requires_grad_(backward)
        inputs, forward = [pixels] * backward, partial(bench.trainer.reward.score, pixels, prompts)

    def run() -> None:
        with torch.set_grad_enabled(backward):
            result = forward()
            if backward:
                torch.autograd.grad(result.sum(), inputs, allow_unused=True)

    return run


def seconds_of(run, wait: bool = True) -> float:
    """Seconds that ``run()`` takes; ``wait``: for the device to be done too."""
    settle = torch.cuda.synchronize if wait and torch.cuda.is_available() else lambda: None
    settle()
    start = time.perf_counter()
    run()
    settle()
    return time.perf_counter() - start


def spent(bench: Workbench, steps: int) -> tuple[dict[str, float], collections.Counter]:
    """What ``steps`` steps enter into the ledger, per step, and how often they make each kind of call."""
    ledger = bench.executor.ledger
    before = dataclasses.asdict(ledger)
    with ledger.kinds() as calls:
        take(bench, steps)
    return {name: (value - before[name]) / steps for name, value in dataclasses.asdict(ledger).items()}, calls


def bookkeeping(bench: Workbench) -> float:
    """Share of a step's seconds that its entries in ledger and log take."""
    with bench.executor.ledger.kinds() as calls:
        start = time.perf_counter()
        row = next(bench.trainer.steps())
        whole = time.perf_counter() - start
    ledger = Ledger()

    def enter() -> None:
        for (part, images, key, backward), count in calls.items():
            for _ in range(count):
                ledger.call(part, images, key, lambda: (0, 0), backward)
        bench.accelerator.log(row, step=row["step"])

    return seconds_of(enter, wait=False) / whole


def measure(bench: Workbench, steps: int, rounds: int) -> dict[str, float]:
    """Cost of one optimiser step: calls, seconds, seconds of its calls alone, peak memory."""
    trainer, device = bench.trainer, bench.config.device
    idle = peak_memory_mb(device)
    take(bench, 1)  # warm-up: the ledger measures each kind of call once
    step_mb = peak_memory_mb(device) - idle
    counted, calls = spent(bench, steps)
    alone = {kind: make_call(bench, *kind) for kind in calls}
    whole, parts = [], []
    for run in alone.values():
        run()
    for _ in range(rounds):  # in turns, so that a machine that slows down slows both
        trainer.step = 1  # the same batches, and so the same random plans, as were recorded
        whole.append(seconds_of(lambda: take(bench, steps)) / steps)
        parts.append(sum(seconds_of(alone[kind]) for kind, count in calls.items() for _ in range(count)) / steps)
    return {
        **{name: counted[f"denoiser_{name}"] for name in ("forwards", "backwards", "recomputations")},
        "operations": counted["operations"],
        **Interval(float(np.median(whole)), min(whole), max(whole)).row("seconds"),
        "alone": float(np.median(parts)),
        "ratio": float(np.median(np.array(whole) / np.array(parts))),
        "peak_mb": peak_memory_mb(device),
        "step_mb": step_mb,
        "books": bookkeeping(bench),
        **slot_ratios(bench, rounds),
    }


@torch.no_grad()
def slot_ratios(bench: Workbench, rounds: int, calls: int = 12) -> dict[str, float]:
    """Seconds of guided calls with all slots on, and of calls that switch slots every time, over calls with none on."""
    executor, batch = bench.executor, bench.trainer.batch()
    policy = executor.policy
    sets = [policy.slots[:count] for count in range(len(policy.slots) + 1)]
    orders = {"off": [()], "slots": [policy.slots], "switching": [sets[0], *sets[:0:-1]]}

    def make(order: list[tuple[int, ...]]) -> None:
        for slots, _ in zip(itertools.cycle(order), range(calls), strict=False):
            weights = policy.weights(slots)
            executor.guided("base", batch.latents, 501, batch.prompt_embeds, weights, executor.guidance_scale)

    make(sets)  # every set is merged once, as in an optimiser step
    seconds = {name: [] for name in orders}
    for _ in range(3 * rounds):
        for name, order in orders.items():
            seconds[name].append(seconds_of(lambda order=order: make(order)))
    off = np.array(seconds.pop("off"))
    return {name: float(np.median(np.array(values) / off)) for name, values in seconds.items()}
