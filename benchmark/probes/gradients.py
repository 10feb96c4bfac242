"""Variance and bias of every method's gradient estimate, at the same parameters, prompts and noise.

The parameters are two checkpoints of one reference run of the full chain (``draft``), after a little and after more
training; never the start, where B = 0 leaves the LoRA A without gradient. Methods with more slots get the reference in
slot 1 and a little training of their own in the others. Estimates are taken before clipping, in float32.

The variance is split by drawing again: the method's own randomness alone, then the noise too; what is left comes from
the prompts. The cosine is with the gradient of the method's own full sampler on the same minibatch; that of the means
leaves out pairs of the same minibatch, whose noise is shared.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import torch
from rich.progress import track

import methods
from methods import Batch, DirectReward, Method

from .. import records
from ..cli import console
from ..config import RunConfig, resolve, split_variant
from ..diffusion import Plan
from ..errors import InputError
from ..training.identity import code_fingerprint
from ..training.workbench import Workbench
from .moments import Moments, numbers, split

CHAIN_LENGTHS = (2, 5, 10, 20)  # of draft_k, beside 1 (draft_k itself) and 50 (draft)
CONTROLS = ("shortft shortcut=naive", "shortft timestep_aware=false")
OWN_STEPS = 12  # of training for the slots that the reference run does not have
FIRST_BATCH = 1_000_000  # minibatches that no training run sees


@dataclasses.dataclass(frozen=True)
class Variant:
    """A method with options, in the phase of its training that begins at ``progress``."""

    name: str
    method: Method
    progress: float = 0.0

    @property
    def label(self) -> str:
        return self.name + (f" from {self.progress:.0%}" if self.progress else "")

    def trained(self) -> tuple[int, ...]:
        return self.method.trained_slots(self.progress) if isinstance(self.method, DirectReward) else (1,)


def phases(name: str, method: Method, executor_grid) -> list[Variant]:
    """A variant for every share of the budget at which the method's plan changes."""
    if not isinstance(method, DirectReward):
        return [Variant(name, method)]
    return [Variant(name, method, progress) for progress, _ in method.phases(executor_grid(method.chain_steps))]


class Probe:
    """One policy (slots and where they act), its full chain, and the variants that share them."""

    def __init__(self, config: RunConfig, variants: list[Variant], reference: dict):
        self.variants = variants
        bench = Workbench(config, shortcut=any(variant.method.needs_shortcut for variant in variants))
        self.executor, self.trainer, method = bench.executor, bench.trainer, bench.method
        policy = self.executor.policy
        if method.slots > 1:
            policy.load_state_dict(reference)
            for _ in self.trainer.steps():
                pass
        policy.load_state_dict(reference)  # slot 1 as all others have it
        self.full: Plan = tuple(hop.with_gradient() for hop in method.sampler_plan(self.executor.timesteps))
        sizes = {slot: sum(p.numel() for p in policy.slot_parameters(slot)) for slot in policy.slots}
        pairs = [(variant.label, slot) for variant in variants for slot in variant.trained()]
        self.moments = {(label, slot): Moments(sizes[slot], bench.suite.device) for label, slot in pairs}
        self.redrawn: dict[str, list[tuple[float, float]]] = {variant.label: [] for variant in variants}
        self.operations: dict[str, float] = {}
        self.done = 0

    def batch(self, index: int, progress: float) -> Batch:
        self.trainer.step = FIRST_BATCH + index
        return dataclasses.replace(self.trainer.batch(), progress=progress)

    def collect(self, updates) -> dict[int, torch.Tensor]:
        """The mean of the estimates that ``updates`` yields, by slot."""
        policy = self.executor.policy
        for parameter in policy.parameters():
            parameter.grad = None
        count = sum(1 for _ in updates)

        def mean(parameter: torch.nn.Parameter) -> torch.Tensor:
            found = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad / count
            return found.flatten()

        return {slot: torch.cat([mean(p) for p in policy.slot_parameters(slot)]) for slot in policy.slots}

    def full_gradient(self, batch: Batch) -> dict[int, torch.Tensor]:
        """The gradient of minus the mean reward through the whole sampler, by slot."""

        def once():
            policy = self.executor.policy
            policy.train_slots(policy.slots)
            images = self.executor.decode(self.executor.run(self.full, batch.latents, batch.prompt_embeds))
            policy.backward(-self.trainer.reward(images, batch.prompts).mean())
            yield

        return self.collect(once())

    def estimate(self, variant: Variant, batch: Batch) -> dict[int, torch.Tensor]:
        return self.collect(variant.method.updates(self.executor, batch, self.trainer.reward))

    def step(self, redraw: bool) -> None:
        """Add one minibatch; ``redraw``: split its variance too."""
        full = self.full_gradient(self.batch(self.done, 0.0))
        ledger = self.executor.ledger
        for variant in self.variants:
            batch = self.batch(self.done, variant.progress)
            before, state = ledger.operations, batch.generator.get_state()
            drawn = self.estimate(variant, batch)
            self.operations[variant.label] = ledger.operations - before
            for slot in variant.trained():
                self.moments[variant.label, slot].add(drawn[slot], full[slot])
            if redraw:
                random = not torch.equal(state, batch.generator.get_state())
                self.redrawn[variant.label].append(self._redraw(variant, drawn, random))
        self.done += 1

    def _redraw(self, variant: Variant, drawn: dict, random: bool) -> tuple[float, float]:
        """Half the squared change of an estimate when the method's randomness is drawn anew, and when the noise is too.

        random: whether the method has randomness of its own.
        """
        again, own = self.batch(self.done, variant.progress), 0.0
        other = self.batch(-1 - self.done, variant.progress)
        if random:
            fresh = dataclasses.replace(again, generator=other.generator)
            own = self._half_square(variant, drawn, self.estimate(variant, fresh))
            other = self.batch(-100_000 - self.done, variant.progress)
        fresh = dataclasses.replace(again, latents=other.latents, generator=other.generator)
        return own, self._half_square(variant, drawn, self.estimate(variant, fresh))

    @staticmethod
    def _half_square(variant: Variant, a: dict, b: dict) -> float:
        return sum(float((a[slot] - b[slot]).double().square().sum()) for slot in variant.trained()) / 2

    def rows(self) -> list[dict]:
        """The numbers of every variant, over all its parameters and over each slot."""
        rows = []
        for variant in self.variants:
            parts = {slot: self.moments[variant.label, slot] for slot in variant.trained()}
            about = {"method": variant.name, "progress": variant.progress}
            whole, tflop = numbers(list(parts.values())), self.operations[variant.label] / 1e12
            row = about | {"slot": "all", "batches": self.done} | whole
            row |= split(self.redrawn[variant.label], whole["variance"]) | {"tflop": tflop}
            rows.append(row | {"variance_x_tflop": row["normalised_variance"] * tflop})
            for slot, part in parts.items() if len(parts) > 1 else ():
                rows.append(about | {"slot": slot, "batches": self.done} | numbers([part]))
        return rows

    def state(self) -> dict:
        moments = {f"{label}|{slot}": m.state() for (label, slot), m in self.moments.items()}
        return {"done": self.done, "operations": self.operations, "redrawn": self.redrawn, "moments": moments}

    def load(self, state: dict) -> None:
        self.done, self.operations, self.redrawn = state["done"], state["operations"], state["redrawn"]
        for (label, slot), moments in self.moments.items():
            moments.load(state["moments"][f"{label}|{slot}"])


def reference_checkpoints(config: RunConfig, steps: list[int], cache: Path) -> list[dict]:
    """The policy's state after each number of steps of the reference run; kept in ``cache``."""
    wanted = [cache / f"reference-{count}.pt" for count in steps]
    if not all(path.exists() for path in wanted):
        bench = Workbench(config)
        run = bench.trainer
        for _ in track(run.steps(), total=max(steps), description=f"reference run, {config.method}", console=console):
            if run.step in steps:
                records.save_state(cache / f"reference-{run.step}.pt", bench.policy.state_dict())
    return [torch.load(path, weights_only=True) for path in wanted]


def parse(names: str, suite: str, reward: str, device: str) -> list[tuple[str, RunConfig]]:
    """Variants of a command line: ``all``, or ``method name=value ...`` separated by commas."""
    if names == "all":
        wanted = [*methods.names(), *(f"draft_k k={k}" for k in CHAIN_LENGTHS), *CONTROLS]
    else:
        wanted = [" ".join(part.split()) for part in names.split(",") if part.strip()]
    if not wanted:
        raise InputError("--methods names no method; expected 'all' or a list such as 'shortft, draft_k k=5'")
    found = []
    for name in dict.fromkeys(wanted):
        method, options = split_variant(name)
        found.append((name, resolve(suite, method, reward, 0, f"{OWN_STEPS}step", device, None, options)))
    return found


def groups(variants: Iterable[tuple[str, RunConfig]], executor) -> list[list[Variant]]:
    """Variants that share a policy: as many slots, which act at the same timesteps."""
    grouped: dict[tuple, list[Variant]] = {}
    for name, config in variants:
        method = config.build_method()
        key = (method.slots, method.sampler_plan(executor.timesteps))
        grouped.setdefault(key, []).extend(phases(name, method, executor.grid))
    return list(grouped.values())


def probed(
    step: int, state: dict, config: RunConfig, group: list[Variant], path: Path, batches: int, redraws: int, quiet: bool
) -> list[dict]:
    """The numbers of the variants of one policy at one checkpoint; ``path`` keeps what is done."""
    probe = Probe(config, group, state)
    if path.exists():
        probe.load(torch.load(path, weights_only=True))
    title = f"step {step}, {len(group)} estimates from {group[0].name}"
    for _ in track(range(probe.done, batches), description=title, console=console, disable=quiet):
        probe.step(probe.done < redraws)
        if probe.done % 4 == 0 or probe.done == batches:
            records.save_state(path, probe.state())
    if quiet:
        console.print(f"{title}: {probe.done} minibatches")
    return [{"reference_step": step} | row for row in probe.rows()]


def key(base: RunConfig, variants: list[tuple[str, RunConfig]]) -> str:
    """What partial results belong to."""
    files = [*Path(__file__).parent.glob("*.py"), *(p for _, c in variants for p in methods.sources(c.method))]
    identity = [base.model_dump(mode="json"), [c.model_dump(mode="json") for _, c in variants], code_fingerprint()]
    identity += [[path.read_text() for path in sorted(set(files))], base.build_suite().fingerprint(True)]
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:12]
