"""Variance and bias of every method's gradient estimate, at the same parameters, prompts and noise.

    python -m benchmark.gradients --methods all --reward hps --jobs 2
    python -m benchmark.gradients --methods "shortft, shortft timestep_aware=false, draft_k k=5" --batches 128

The parameters are two checkpoints of one reference run of the full chain (``draft``), after a little and after more
training; never the start, where B = 0 leaves the LoRA A without gradient. Methods with more slots get the reference in
slot 1 and a little training of their own in the others. Estimates are taken before clipping, in float32.

With g_i the estimate of minibatch i (the same prompts and noise for every method):

    tr Cov = sum |g_i - mean g|^2 / (N - 1),   |mu|^2 = |mean g|^2 - tr Cov / N,   normalised variance = tr Cov / |mu|^2

The variance is split by drawing again: the method's own randomness alone, then the noise too; what is left comes from
the prompts. The cosine is with the gradient of the method's own full sampler on the same minibatch; that of the means
leaves out pairs of the same minibatch, whose noise is shared. Nothing of size N x parameters is kept: the figures come
from running sums, their bootstrap intervals from count sketches (Charikar et al. 2002) of the gradients.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import torch
import typer
from accelerate import Accelerator
from rich.console import Console
from rich.progress import track
from rich.table import Table

import methods
from methods import Batch, DirectReward, Method

from .. import records
from ..training.cell import build_executor, code_fingerprint
from ..config import InputError, RunConfig, resolve, split_variant
from ..diffusion import Executor, Plan
from ..records.protocol import PROTOCOL_VERSION
from ..statistics import bootstrap_mean, normalised_variance
from ..suites import SuiteError
from ..training.trainer import Trainer

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = Console(highlight=False)
if not console.is_terminal:
    console.width = 170

CHAIN_LENGTHS = (2, 5, 10, 20)  # of draft_k, beside 1 (draft_k itself) and 50 (draft)
CONTROLS = ("shortft shortcut=naive", "shortft timestep_aware=false")
OWN_STEPS = 12  # of training for the slots that the reference run does not have
FIRST_BATCH = 1_000_000  # minibatches that no training run sees
SKETCH = 16384


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
    """A variant for every share of the budget (in hundredths) at which the method's plan changes."""
    if not isinstance(method, DirectReward):
        return [Variant(name, method)]
    found, seen = [], None
    for progress in np.arange(100) / 100:
        plan = method.plan(executor_grid(method.chain_steps), torch.Generator().manual_seed(0), float(progress))
        if plan != seen:
            found.append(Variant(name, method, float(progress)))
            seen = plan
    return found


class Moments:
    """Running sums of paired gradient vectors g (the estimate) and r (the full chain's), N of each.

    Sketches keep dot products up to an error of about |a||b| / sqrt(SKETCH).
    """

    def __init__(self, size: int, device: torch.device | str = "cpu", seed: int = 0):
        generator = torch.Generator().manual_seed(seed)
        self._bucket = torch.randint(SKETCH, (size,), generator=generator).to(device)
        self._sign = (torch.randint(2, (size,), generator=generator, dtype=torch.int8) * 2 - 1).to(device)
        self.sums = torch.zeros(2, size, dtype=torch.float64, device=device)
        self.dots: list[tuple[float, float, float]] = []  # g.g, r.r, g.r of every minibatch
        self.sketches: list[torch.Tensor] = []  # of g and r, (2, SKETCH)

    def sketch(self, vectors: torch.Tensor) -> torch.Tensor:
        empty = torch.zeros(len(vectors), SKETCH, device=vectors.device)
        return empty.index_add_(1, self._bucket, vectors * self._sign).cpu()

    def add(self, g: torch.Tensor, r: torch.Tensor) -> None:
        pair = torch.stack([g, r])
        self.sums += pair
        self.dots.append((float(g @ g), float(r @ r), float(g @ r)))
        self.sketches.append(self.sketch(pair))

    def state(self) -> dict:
        return {"sums": self.sums, "dots": self.dots, "sketches": self.sketches}

    def load(self, state: dict) -> None:
        self.sums, self.dots, self.sketches = state["sums"], list(state["dots"]), list(state["sketches"])


def figures(parts: list[Moments]) -> dict[str, float]:
    """Norm, variance and bias over the parameters of all ``parts`` together, with bootstrap intervals over minibatches.

    Where the mean cannot be told from zero (the estimate of its square is not positive) the normalised variance is
    infinite and the norm of the mean NaN. ``full_normalised_variance`` is that of the full chain of the same sampler:
    the same function of the same parameters, on the same minibatches.
    """
    gg, rr, gr = np.array([part.dots for part in parts]).sum(0).T
    count = len(gg)
    products = [(part.sums @ part.sums.T).cpu().numpy() for part in parts]
    sums = np.sum(products, axis=0)
    # Sums over pairs of different minibatches: the square of the sum less the squares.
    mean_g, mean_r, mean_gr = sums[0, 0] - gg.sum(), sums[1, 1] - rr.sum(), sums[0, 1] - gr.sum()
    variance = (gg.sum() - sums[0, 0] / count) / (count - 1)
    square = mean_g / (count * (count - 1))
    stacked = [torch.stack(part.sketches, dim=1) for part in parts]
    ratios = []
    for which, squares in enumerate((gg, rr)):
        gram = sum((s[which] @ s[which].T).double() for s in stacked).numpy()
        np.fill_diagonal(gram, squares)
        ratios.append(normalised_variance(gram))
    ratio, full = ratios
    full_variance, full_square = (rr.sum() - sums[1, 1] / count) / (count - 1), mean_r / (count * (count - 1))
    cosine = np.divide(gr, np.sqrt(gg * rr), out=np.full(count, np.nan), where=gg * rr > 0)
    alignment = bootstrap_mean(cosine)
    signal = mean_g > 0 and mean_r > 0
    norm = bootstrap_mean(np.sqrt(gg))
    return {
        "norm": norm.value,
        "norm_low": norm.low,
        "norm_high": norm.high,
        "mean_norm": float(np.sqrt(square)) if square > 0 else float("nan"),
        "variance": float(variance),
        "normalised_variance": float(variance / square) if square > 0 else float("inf"),
        "normalised_variance_low": ratio.low,
        "normalised_variance_high": ratio.high,
        "full_normalised_variance": float(full_variance / full_square) if full_square > 0 else float("inf"),
        "full_normalised_variance_low": full.low,
        "full_normalised_variance_high": full.high,
        "cosine": alignment.value,
        "cosine_low": alignment.low,
        "cosine_high": alignment.high,
        "cosine_of_means": float(mean_gr / np.sqrt(mean_g * mean_r)) if signal else float("nan"),
    }


class Probe:
    """One policy (slots and where they act), its full chain, and the variants that share them."""

    def __init__(self, config: RunConfig, variants: list[Variant], reference: dict, device: str):
        self.variants, self.config = variants, config
        self.suite = config.load_suite(device)
        method = variants[0].method
        shortcut = any(variant.method.needs_shortcut for variant in variants)
        self.executor = build_executor(self.suite, config.settings, method.slots, shortcut, config.seed)
        prompts = self.suite.prompts("train", config.settings.train_prompts)
        self.suite.embed(prompts)
        self.trainer = trainer(config, self.suite, self.executor, method, prompts, device)
        policy = self.executor.policy
        if method.slots > 1:
            policy.load_state_dict(reference)
            for _ in self.trainer.steps():
                pass
        policy.load_state_dict(reference)  # slot 1 as all others have it
        self.full: Plan = tuple(hop.with_gradient() for hop in method.sampler_plan(self.executor.timesteps))
        sizes = {slot: sum(p.numel() for p in policy.slot_parameters(slot)) for slot in policy.slots}
        self.moments = {
            (variant.label, slot): Moments(sizes[slot], self.suite.device)
            for variant in variants
            for slot in variant.trained()
        }
        self.redrawn: dict[str, list[tuple[float, float]]] = {variant.label: [] for variant in variants}
        self.operations: dict[str, float] = {}
        self.done = 0

    def batch(self, index: int, progress: float) -> Batch:
        self.trainer.step = FIRST_BATCH + index
        return dataclasses.replace(self.trainer.batch(), progress=progress)

    def collect(self, updates) -> dict[int, torch.Tensor]:
        """The mean of the estimates that ``updates`` yields, by slot."""
        policy, count = self.executor.policy, 0
        for parameter in policy.parameters():
            parameter.grad = None
        for _ in updates:
            count += 1
        return {
            slot: torch.cat(
                [
                    (torch.zeros_like(p) if p.grad is None else p.grad / count).flatten()
                    for p in policy.slot_parameters(slot)
                ]
            )
            for slot in policy.slots
        }

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
                other = self.batch(-1 - self.done, variant.progress)
                own = 0.0
                if not torch.equal(state, batch.generator.get_state()):  # it has randomness of its own
                    fresh = dataclasses.replace(self.batch(self.done, variant.progress), generator=other.generator)
                    own = self._half_square(variant, drawn, self.estimate(variant, fresh))
                    other = self.batch(-100_000 - self.done, variant.progress)
                fresh = dataclasses.replace(
                    self.batch(self.done, variant.progress), latents=other.latents, generator=other.generator
                )
                self.redrawn[variant.label].append(
                    (own, self._half_square(variant, drawn, self.estimate(variant, fresh)))
                )
        self.done += 1

    @staticmethod
    def _half_square(variant: Variant, a: dict, b: dict) -> float:
        return sum(float((a[slot] - b[slot]).double().square().sum()) for slot in variant.trained()) / 2

    def rows(self) -> list[dict]:
        """The figures of every variant, over all its parameters and over each slot."""
        rows = []
        for variant in self.variants:
            parts = {slot: self.moments[variant.label, slot] for slot in variant.trained()}
            whole = figures(list(parts.values()))
            rows.append(
                {"method": variant.name, "progress": variant.progress, "slot": "all", "batches": self.done}
                | whole
                | split(self.redrawn[variant.label], whole["variance"])
                | {"tflop": self.operations[variant.label] / 1e12}
            )
            rows[-1]["variance_x_tflop"] = rows[-1]["normalised_variance"] * rows[-1]["tflop"]
            if len(parts) > 1:
                rows += [
                    {"method": variant.name, "progress": variant.progress, "slot": slot, "batches": self.done}
                    | figures([part])
                    for slot, part in parts.items()
                ]
        return rows

    def state(self) -> dict:
        return {
            "done": self.done, "operations": self.operations, "redrawn": self.redrawn,
            "moments": {f"{label}|{slot}": m.state() for (label, slot), m in self.moments.items()},
        }  # fmt: skip

    def load(self, state: dict) -> None:
        self.done, self.operations, self.redrawn = state["done"], state["operations"], state["redrawn"]
        for (label, slot), moments in self.moments.items():
            moments.load(state["moments"][f"{label}|{slot}"])


def split(redrawn: list[tuple[float, float]], total: float) -> dict[str, float]:
    """Shares of the variance: the method's own randomness, the noise, the prompts. They add up to one.

    redrawn: of each minibatch half the squared change of the estimate when the method's randomness is drawn again, and
    when the noise is drawn again too: unbiased estimates of the variance from the first, and from both.
    """
    if not redrawn or not total > 0:
        return dict.fromkeys(("from_method", "from_noise", "from_prompts"), float("nan"))
    own, both = np.mean(redrawn, axis=0)
    return {"from_method": own / total, "from_noise": (both - own) / total, "from_prompts": (total - both) / total}


def trainer(config: RunConfig, suite, executor: Executor, method: Method, prompts: list[str], device: str) -> Trainer:
    return Trainer(
        config, suite, executor, method, suite.reward(config.reward), prompts, Accelerator(cpu=device == "cpu")
    )


def reference_checkpoints(config: RunConfig, steps: list[int], cache: Path, device: str) -> list[dict]:
    """The policy's state after each number of steps of the reference run; kept in ``cache``."""
    wanted = [cache / f"reference-{count}.pt" for count in steps]
    if not all(path.exists() for path in wanted):
        suite = config.load_suite(device)
        method = config.build_method()
        executor = build_executor(suite, config.settings, method.slots, method.needs_shortcut, config.seed)
        prompts = suite.prompts("train", config.settings.train_prompts)
        suite.embed(prompts)
        run = trainer(config, suite, executor, method, prompts, device)
        for _ in track(run.steps(), total=max(steps), description=f"reference run, {config.method}", console=console):
            if run.step in steps:
                records.save_state(cache / f"reference-{run.step}.pt", executor.policy.state_dict())
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


def groups(variants: list[tuple[str, RunConfig]], executor_grid, timesteps: list[int]) -> list[list[Variant]]:
    """Variants that share a policy: as many slots, which act at the same timesteps."""
    grouped: dict[tuple, list[Variant]] = {}
    for name, config in variants:
        method = config.build_method()
        key = (method.slots, method.sampler_plan(timesteps))
        grouped.setdefault(key, []).extend(phases(name, method, executor_grid))
    return list(grouped.values())


def print_table(rows: pd.DataFrame, title: str) -> None:
    table = Table(title=title)
    columns = ("method", "from", "slot", "norm", "normalised variance", "x TFLOP", "own", "noise", "prompts", "cosine",
               "of means")  # fmt: skip
    for column in columns:
        table.add_column(column, justify="left" if column == "method" else "right")
    for row in rows.to_dict("records"):
        interval = f"{row['normalised_variance_low']:.3g} to {row['normalised_variance_high']:.3g}"
        table.add_row(
            row["method"], f"{row['progress']:.0%}", str(row["slot"]), f"{row['norm']:.3g}",
            f"{row['normalised_variance']:.3g} ({interval})",
            *(f"{row[c]:.2f}" for c in ("variance_x_tflop", "from_method", "from_noise", "from_prompts")),
            f"{row['cosine']:+.3f}", f"{row['cosine_of_means']:+.3f}",
        )  # fmt: skip
    console.print(table)


@app.command()
def main(
    names: Annotated[
        str, typer.Option("--methods", help="'all', or methods with options: 'shortft, draft_k k=5'.")
    ] = "all",
    reward: Annotated[str, typer.Option(help="As of benchmark.run; it must be differentiable.")] = "hps",
    suite: Annotated[str, typer.Option(help="As of benchmark.run.")] = "mini",
    batches: Annotated[int, typer.Option(min=3, help="Minibatches per method.")] = 128,
    redraws: Annotated[int, typer.Option(min=0, help="Of these, how many also split the variance.")] = 32,
    at: Annotated[str, typer.Option(help="Steps of the reference run at its checkpoints.")] = "20,100",
    reference: Annotated[str, typer.Option(help="Method of the reference run, with one slot.")] = "draft",
    set_: Annotated[list[str] | None, typer.Option("--set", help="A setting of every run: batch=8.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    out: Annotated[Path, typer.Option(help="Figures go to OUT/<suite>/gradients/<reward>.csv.")] = Path("runs"),
    force: Annotated[bool, typer.Option("--force", help="Start anew.")] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Policies at a time, on a CPU; the cores are shared.")] = 1,
) -> None:
    """Measure variance, bias and cost of gradient estimates. Interrupted, the same command goes on."""
    try:
        steps = [int(text) for text in at.split(",") if text.strip().isdigit() and int(text) > 0]
        if not steps or len(steps) != len(at.split(",")):
            raise InputError(f"--at {at!r} is not a list of positive numbers of steps, such as 20,100")
        variants = parse(names, suite, reward, device)
        base = resolve(suite, reference, reward, 0, f"{max(steps)}step", device, None, set_ or [])
        base.build_suite().check(reward)
        if base.build_method().slots != 1:
            raise InputError(f"--reference {reference} has more than one LoRA slot; the reference run needs one")
        variants = [
            (
                name,
                config.model_copy(
                    update={"settings": base.settings, "suite_options": base.suite_options | config.suite_options}
                ),
            )
            for name, config in variants
        ]
    except (InputError, SuiteError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    folder = out / suite / "gradients"
    cache = folder / "work" / _key(base, variants)
    if force:
        shutil.rmtree(cache, ignore_errors=True)
    cache.mkdir(parents=True, exist_ok=True)
    checkpoints = reference_checkpoints(base, steps, cache, device)
    executor, tasks = _grid_of(base, device), []
    for step, state in zip(steps, checkpoints, strict=True):
        for index, group in enumerate(groups(variants, executor.grid, executor.timesteps)):
            config = next(c for n, c in variants if n == group[0].name)
            tasks.append((step, state, config, group, cache / f"probe-{step}-{index}.pt", batches, redraws, device,
                          jobs > 1))  # fmt: skip
    if jobs == 1:
        made = [probed(*task) for task in tasks]
    else:
        threads = (max(torch.get_num_threads() // jobs, 1),)
        with ProcessPoolExecutor(jobs, get_context("spawn"), torch.set_num_threads, threads) as pool:
            made = [future.result() for future in [pool.submit(probed, *task) for task in tasks]]
    rows = [row for part in made for row in part]
    frame = pd.DataFrame(rows)
    name = base.folder(Path()).parts[1]
    records.write_text(folder / f"{name}.csv", frame.to_csv(index=False, float_format="%.6g"))
    settings = {"protocol": PROTOCOL_VERSION, "weights": base.build_suite().fingerprint(True),
                "random_weights": base.build_suite().random_weights,
                "batches": batches, "redraws": redraws, "reference": base.model_dump(mode="json"),
                **records.environment(device)}  # fmt: skip
    records.write_json(folder / f"{name}.json", settings)
    for step, part in frame.groupby("reference_step"):
        print_table(part, f"gradient estimates, suite {suite}, {reward}, reference run after {step} steps")
    console.print(f"written to {folder / name}.csv")


def probed(
    step: int,
    state: dict,
    config: RunConfig,
    group: list[Variant],
    path: Path,
    batches: int,
    redraws: int,
    device: str,
    quiet: bool,
) -> list[dict]:
    """The figures of the variants of one policy at one checkpoint; ``path`` keeps what is done."""
    probe = Probe(config, group, state, device)
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


def _key(base: RunConfig, variants: list[tuple[str, RunConfig]]) -> str:
    """What partial results belong to."""
    identity = [base.model_dump(mode="json"), [c.model_dump(mode="json") for _, c in variants], code_fingerprint(),
                [path.read_text() for path in (Path(__file__), *(methods.source(c.method) for _, c in variants))],
                base.build_suite().fingerprint(True)]  # fmt: skip
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:12]


def _grid_of(config: RunConfig, device: str) -> Executor:
    """An executor without slots, for its grids of timesteps."""
    suite = config.load_suite(device)
    return build_executor(suite, config.settings, 0, False, config.seed)


if __name__ == "__main__":
    app()
