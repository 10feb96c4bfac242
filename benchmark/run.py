"""One cell of the benchmark: tune the base model of a suite with a method, and say what it did.

python -m benchmark.run --method shortft --reward hps
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import torch
import typer
from accelerate import Accelerator
from diffusers import DDIMScheduler
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

import methods

from . import records, suites
from .config import InputError, RunConfig, read_prompts, resolve
from .diffusion import Executor, Policy, describe, sampler_plan
from .evaluation import Evaluation, evaluate
from .suites import Suite, SuiteError
from .trainer import LOG_COLUMNS, Diverged, Trainer

ROOT = Path(__file__).parent
console = Console(highlight=False, soft_wrap=True)


def code_fingerprint(method: str) -> str:
    """A hash of the code that a run's numbers come from: the method's file, and what every method shares."""
    shared = ["trainer.py", "evaluation.py", "ledger.py", *(f"{part}/*.py" for part in ("diffusion", "rewards"))]
    files = [path for pattern in shared for path in sorted(ROOT.glob(pattern))]
    folder = Path(methods.__file__).parent
    files += [folder / "interface.py", folder / f"{method}.py"]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]


def check_device(device: str) -> None:
    try:
        kind = torch.device(device).type
    except RuntimeError:
        raise InputError(f"unknown device {device!r}; expected cpu, cuda or cuda:N") from None
    if kind == "cuda" and not torch.cuda.is_available():
        raise InputError(f"--device {device}: this PyTorch sees no CUDA GPU; use --device cpu")
    if kind not in ("cpu", "cuda"):
        raise InputError(f"unknown device {device!r}; expected cpu, cuda or cuda:N")


def check_writable(folder: Path) -> None:
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(f"results folder {folder} cannot be written: no permission in {existing}; choose --out DIR")


def check_folder(folder: Path, identity: dict) -> None:
    """Refuse a folder that other settings or code made."""
    try:
        there = json.loads((folder / "run.json").read_text())
    except FileNotFoundError:
        return
    except ValueError:
        raise InputError(f"{folder}/run.json is corrupt; start anew with --force") from None
    for part, now in identity.items():
        if there.get(part) == now:
            continue
        change = ""
        if part == "config":
            flat_there, flat_now = (pd.json_normalize(c).iloc[0].to_dict() for c in (there.get(part, {}), now))
            names = [n for n in flat_now if str(flat_there.get(n)) != str(flat_now[n])]
            change = ": " + ", ".join(f"{n} was {flat_there.get(n)}, is {flat_now[n]}" for n in names)
        raise InputError(f"{folder} was made by other {part}{change}; start anew with --force, or choose --out DIR")


def headline(config: RunConfig, suite: Suite) -> str:
    """What runs here, and how the same is run on Stable Diffusion."""
    meaning = suite.learned_rewards.get(config.reward)
    line = f"Suite {suite.title}."
    if meaning:
        line += f" '{config.reward}' here is {meaning}."
    if config.suite == "mini":
        command = f"python -m benchmark.run --suite sd15 --method {config.method} --reward '{config.reward}'"
        here = "" if "sd15" in suites.names() else " (suite sd15 is not in this version yet)"
        line += f" Stable Diffusion 1.5: {command}{here}."
    return line


def print_list() -> None:
    for kind, rows in (
        ("Methods", {name: methods.find(name).__doc__.strip().splitlines()[0] for name in methods.names()}),
        ("Suites", {name: suites.find(name).title for name in suites.names()}),
    ):
        table = Table(title=kind, title_justify="left", show_header=False, box=None)
        for name, line in rows.items():
            table.add_row(f"[bold]{name}", line)
        console.print(table)
    for name in suites.names():
        suite = suites.find(name)
        table = Table(title=f"Rewards of {name}", title_justify="left", show_header=False, box=None)
        rows = suite.learned_rewards | {
            pixel: cls.__doc__.strip().splitlines()[0] for pixel, cls in suites.interface.PIXEL_REWARDS.items()
        }
        for reward, line in (rows | suite.combinations).items():
            table.add_row(f"[bold]{reward}", line)
        console.print(table)


def print_dry_run(config: RunConfig, folder: Path, executor_timesteps: list[int]) -> None:
    method = config.build_method()
    console.print(f"folder  {folder}")
    console.print(json.dumps(config.model_dump(mode="json"), indent=2))
    if isinstance(method, methods.DirectReward):
        seen = None
        for progress in np.linspace(0, 1, 100, endpoint=False):
            plan = method.plan(executor_timesteps, torch.Generator().manual_seed(0), float(progress))
            lines = describe(plan)
            if lines != seen:
                trained = ", ".join(map(str, method.trained_slots(float(progress))))
                console.print(f"plan from {progress:.0%} of the budget (LoRA slots that are trained: {trained})")
                console.print("\n".join(f"  {line}" for line in lines))
                seen = lines


def base_timesteps(suite: Suite, config: RunConfig) -> list[int]:
    """The base chain's timesteps, from the scheduler's configuration alone."""
    scheduler = DDIMScheduler.from_config(suite.scheduler_config(), timestep_spacing=config.settings.spacing)
    scheduler.set_timesteps(suite.steps)
    return scheduler.timesteps.tolist()


class Run:
    """One run in its folder: prepare, train, evaluate, write."""

    def __init__(self, config: RunConfig, folder: Path, root: Path, identity: dict, track: str | None, every: float):
        self.checkpoint_seconds = every
        self.config, self.folder, self.root, self.identity = config, folder, root, identity
        self.suite = suites.find(config.suite).load(config.device)
        self.method = config.build_method()
        settings = config.settings
        # The policy changes a UNet in place; the suite's own stays as it is for the shortcut's copy.
        shortcut = self.suite.shortcut if self.method.needs_shortcut else None
        self.policy = Policy(self.suite.pipeline.unet, shortcut, self.method.slots, settings.rank, config.seed)
        self.executor = Executor(
            self.policy,
            self.suite.pipeline.vae,
            self.suite.pipeline.scheduler,
            self.suite.embed([""]),
            settings.guidance_scale or self.suite.guidance_scale,
            self.suite.steps,
            settings.spacing,
        )
        prompts = (
            read_prompts(Path(config.prompts))
            if config.prompts
            else self.suite.prompts("train", settings.train_prompts)
        )
        self.accelerator = Accelerator(
            cpu=config.device == "cpu", log_with=track, project_dir=folder if track else None
        )
        if track:
            self.accelerator.init_trackers("benchmark", config=_flat(config.model_dump(mode="json")))
        reward = self.suite.reward(config.reward)
        self.trainer = Trainer(config, self.suite, self.executor, self.method, reward, prompts, self.accelerator)
        self.stop = False

    # -- evaluation

    def _evaluate(self, plan) -> Evaluation:
        count = self.config.settings.test_prompts
        prompts = {
            self.config.settings.split: self.suite.prompts(self.config.settings.split, count),
            "combinations": self.suite.prompts("combinations", max(count // 4, 1)),
        }
        rewards = self.suite.reward_names()
        if self.config.reward not in rewards:
            rewards = [*rewards, self.config.reward]
        return evaluate(self.executor, plan, self.suite, rewards, prompts)

    def before(self) -> Evaluation:
        """The base model's evaluation: made once per suite and kept beside the runs."""
        settings, suite = self.config.settings, self.suite
        key = [suite.fingerprint(), self.executor.guidance_scale, self.executor.timesteps, settings.test_prompts,
               settings.split, suite.reward(self.config.reward).version, code_fingerprint("interface"),
               torch.__version__, torch.get_num_threads(), self.config.device]  # fmt: skip
        name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:12]
        path = self.root / self.config.suite / "base" / f"{name}.pt"
        if path.exists():
            return Evaluation.from_state(torch.load(path, weights_only=True))
        result = self._evaluate(sampler_plan(self.executor.timesteps, lambda t: ()))
        path.parent.mkdir(parents=True, exist_ok=True)
        records.save_state(path, result.to_state())
        return result

    # -- training

    def _checkpoint(self) -> None:
        records.save_state(self.folder / "checkpoint.pt", self.trainer.state_dict())
        log = pd.DataFrame(self.trainer.log, columns=LOG_COLUMNS)
        records.write_text(self.folder / "log.csv", log.to_csv(index=False))

    def train(self) -> records.Status:
        trainer = self.trainer
        checkpoint = self.folder / "checkpoint.pt"
        if checkpoint.exists():
            trainer.load_state_dict(torch.load(checkpoint, weights_only=True))
            console.print(f"resumed at step {trainer.step} ({min(trainer.progress, 1):.0%} of the budget)")
        columns = (
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("step {task.fields[step]}  reward {task.fields[reward]}"),
            TimeElapsedColumn(), TimeRemainingColumn(),
        )  # fmt: skip
        saved, told, recent = trainer.seconds, trainer.progress, [row[1] for row in trainer.log[-20:]]
        try:
            with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
                task = bar.add_task("training", total=1.0, step=trainer.step, reward="")
                for row in trainer.steps():
                    recent = [*recent[-19:], row["reward"]]
                    bar.update(
                        task, completed=min(row["progress"], 1), step=row["step"], reward=f"{np.mean(recent):.4f}"
                    )
                    if not console.is_terminal and row["progress"] - told >= 0.1:
                        told = row["progress"]
                        console.print(f"{min(told, 1):4.0%}  step {row['step']}  reward {np.mean(recent):.4f}")
                    self.accelerator.log({k: v for k, v in row.items() if k != "step"}, step=row["step"])
                    if trainer.seconds - saved >= self.checkpoint_seconds or self.stop:
                        self._checkpoint()
                        saved = trainer.seconds
                    if self.stop:
                        return "interrupted"
        except Diverged as error:
            console.print(f"diverged: {error}")
            self._checkpoint()
            return "diverged"
        self._checkpoint()
        return "done"

    # -- the whole

    def summary(self, status: records.Status, before: Evaluation, after: Evaluation | None) -> records.Summary:
        held_out = self.config.settings.split

        def pair(column: str, split: str = held_out) -> tuple[float, float | None]:
            return before.mean(column, split), after and _finite(after.mean(column, split))

        def error(column: str) -> float | None:
            """Standard error of the paired difference over prompts."""
            if after is None:
                return None
            rows = before.scores.split == held_out
            return _finite(float((after.scores.loc[rows, column] - before.scores.loc[rows, column]).sem()))

        reward, trainer = self.config.reward, self.trainer
        oracle = "oracle" in before.scores
        others = [c for c in before.scores.columns[2:] if c not in (reward, "oracle")]
        return records.Summary(
            status=status, suite=self.config.suite, method=self.config.method, reward=reward, seed=self.config.seed,
            budget=self.config.budget, steps=trainer.step, seconds=trainer.seconds,
            evaluation_seconds=after.seconds if after else 0.0,
            reward_before=pair(reward)[0], reward_after=pair(reward)[1], reward_se=error(reward),
            oracle_before=pair("oracle")[0] if oracle else None,
            oracle_after=pair("oracle")[1] if oracle else None,
            oracle_se=error("oracle") if oracle else None,
            diversity_before=before.diversity, diversity_after=after and _finite(after.diversity),
            drift=after and _finite(float((after.latents - before.latents).square().mean().sqrt())),
            heldout={name: pair(name) for name in others},
            combinations={name: pair(name, "combinations") for name in [reward, *(["oracle"] * oracle)]},
            **vars_of(self.executor.ledger),
        )  # fmt: skip

    def write(self, summary: records.Summary) -> None:
        records.write_text(self.folder / "summary.json", summary.model_dump_json(indent=2) + "\n")

    def __call__(self) -> records.Summary:
        self.folder.mkdir(parents=True, exist_ok=True)
        records.write_json(self.folder / "run.json", self.identity)
        records.write_json(self.folder / "environment.json", records.environment(self.config.device))
        console.print("evaluating the base model")
        before = self.before()
        try:
            status = self.train()
            if status == "interrupted":
                summary = self.summary(status, before, None)
                self.write(summary)
                return summary
            self.policy.save_lora(self.folder / "lora")
            console.print("evaluating the tuned model")
            after = self._evaluate(self.method.sampler_plan(self.executor.timesteps))
        except Exception:
            self.write(self.summary("failed", before, None))
            records.write_text(self.folder / "error.txt", traceback.format_exc())
            raise
        scores = pd.concat([before.scores.assign(when="before"), after.scores.assign(when="after")])
        records.write_text(self.folder / "scores.csv", scores.to_csv(index=False, float_format="%.6g"))
        summary = self.summary(status, before, after)
        self.picture(before, after)
        self.write(summary)
        (self.folder / "checkpoint.pt").unlink(missing_ok=True)
        self.accelerator.end_training()
        return summary

    @torch.no_grad()
    def picture(self, before: Evaluation, after: Evaluation, count: int = 8) -> None:
        """The first held-out prompts from the same noise, before and after."""
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot as plt

        figure, axes = plt.subplots(2, count, figsize=(1.5 * count, 4.2), layout="constrained")
        for row, (label, result) in enumerate((("before", before), ("after", after))):
            images = self.executor.decode(result.latents[:count].to(self.suite.device)).permute(0, 2, 3, 1).cpu()
            for column, (axis, image) in enumerate(zip(axes[row], images.numpy(), strict=True)):
                axis.imshow(image, interpolation="nearest")
                axis.set_xticks([])
                axis.set_yticks([])
                score = result.scores[self.config.reward].iloc[column]
                axis.set_xlabel(f"{score:.3f}", fontsize=8)
                if row == 0:
                    words = result.scores.prompt.iloc[column].split()
                    lines = [" ".join(words[i : i + 4]) for i in range(0, len(words), 4)]
                    axis.set_title("\n".join(lines), fontsize=6)
            axes[row, 0].set_ylabel(label)
        config = self.config
        figure.suptitle(f"{config.method}, {config.reward}, suite {config.suite}, seed {config.seed}", fontsize=9)
        part = self.folder / ".before_after.part.png"
        figure.savefig(part, dpi=110)
        plt.close(figure)
        os.replace(part, self.folder / "before_after.png")


def vars_of(ledger) -> dict[str, int]:
    return {name: value for name, value in vars(ledger).items() if not name.startswith("_")}


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _flat(config: dict, prefix: str = "") -> dict:
    flat = {}
    for name, value in config.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value if isinstance(value, str | int | float | bool) else str(value)
    return flat


def print_summary(summary: records.Summary, folder: Path) -> None:
    """The run in a small table."""
    table = Table(title=f"{summary.method} on {summary.reward}, suite {summary.suite}, seed {summary.seed}")
    for column in ("held-out prompts", "before", "after", "change"):
        table.add_column(column, justify="left" if column == "held-out prompts" else "right")

    def row(name: str, before: float | None, after: float | None, error: float | None = None) -> None:
        if before is None:
            return
        change = "" if after is None else f"{after - before:+.4f}" + (f" ± {error:.4f}" if error is not None else "")
        table.add_row(name, f"{before:.4f}", "" if after is None else f"{after:.4f}", change)

    row(f"reward ({summary.reward})", summary.reward_before, summary.reward_after, summary.reward_se)
    row("oracle of truth", summary.oracle_before, summary.oracle_after, summary.oracle_se)
    row("diversity", summary.diversity_before, summary.diversity_after)
    for name, (before, after) in summary.heldout.items():
        row(f"other reward: {name}", before, after)
    for name, (before, after) in summary.combinations.items():
        row(f"unseen combinations: {name}", before, after)
    console.print(table)
    console.print(
        f"{summary.status}: {summary.steps} steps, {summary.seconds:.0f} s, {summary.operations / 1e12:.1f} TFLOP, "
        f"{summary.images} images, {summary.denoiser_forwards} denoiser forwards, "
        f"{summary.denoiser_backwards} backwards (± is the standard error over prompts)"
    )
    console.print(f"folder  {folder}")


def main(
    method: Annotated[str, typer.Option(help="Which method; --list names them.")] = "shortft",
    reward: Annotated[str, typer.Option(help="A reward, or a sum such as '10*pickscore + 2*hps'.")] = "hps",
    suite: Annotated[str, typer.Option(help="Base model, rewards and prompts; --list names them.")] = "mini",
    seed: Annotated[int, typer.Option(help="Seed of LoRA, prompts, noise and the method's randomness.")] = 0,
    budget: Annotated[
        str | None, typer.Option(help="5TFLOP, 120s, 2000img or 40step; the suite's standard budget by default.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="name=value: a setting of the run or an option of the method.")
    ] = None,
    prompts: Annotated[
        str | None, typer.Option(help="Text file of training prompts, one per line, instead of the suite's.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    out: Annotated[Path, typer.Option(help="Where runs go: OUT/suite/reward/method/seed-N.")] = Path("runs"),
    track: Annotated[
        str | None, typer.Option(help="Also log to a tracker of accelerate: tensorboard, wandb, dvclive.")
    ] = None,
    checkpoint_seconds: Annotated[
        float, typer.Option(help="Seconds of training between checkpoints; changes no result.")
    ] = 20.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the resolved run and its plan, and stop.")] = False,
    list_: Annotated[bool, typer.Option("--list", help="List methods, rewards and suites, and stop.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Start anew, whatever the folder holds.")] = False,
) -> None:
    """Tune a text-to-image diffusion model towards a reward, and measure it on held-out prompts.

    The same command again resumes an interrupted run, or says that it is done.
    """
    try:
        if list_:
            print_list()
            raise typer.Exit(0)
        config = resolve(suite, method, reward, seed, budget, device, prompts, set_ or [])
        code = launch(config, out, track, checkpoint_seconds, dry_run, force)
    except (InputError, SuiteError) as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    raise typer.Exit(code)


def launch(
    config: RunConfig,
    out: Path,
    track: str | None = None,
    checkpoint_seconds: float = 20.0,
    dry_run: bool = False,
    force: bool = False,
) -> int:
    """Check, then run, resume or show a configuration; the exit code."""
    check_device(config.device)
    if config.prompts:
        read_prompts(Path(config.prompts))
    if track not in (None, "tensorboard", "wandb", "dvclive"):
        raise InputError(f"unknown tracker {track!r}; expected tensorboard, wandb or dvclive")
    chosen = suites.find(config.suite)
    chosen.check()
    folder = config.folder(out)
    console.print(headline(config, chosen))
    if dry_run:
        print_dry_run(config, folder, base_timesteps(chosen, config))
        return 0
    check_writable(folder)
    identity = {
        "config": config.model_dump(mode="json"),
        "code": code_fingerprint(config.method),
        "weights": chosen.fingerprint(),
    }
    if force:
        for name in ("run.json", "summary.json", "checkpoint.pt"):
            (folder / name).unlink(missing_ok=True)
    check_folder(folder, identity)
    summary_file = folder / "summary.json"
    if summary_file.exists():
        summary = records.Summary.model_validate_json(summary_file.read_text())
        if summary.status in ("done", "diverged"):
            print_summary(summary, folder)
            console.print("this run is done; --force starts it anew")
            return 0
    run = Run(config, folder, out, identity, track, checkpoint_seconds)

    def stop(signum, frame):
        if run.stop:
            raise KeyboardInterrupt
        run.stop = True
        console.print("stopping after this step; once more stops at once")

    previous = [signal.signal(s, stop) for s in (signal.SIGINT, signal.SIGTERM)]
    try:
        summary = run()
    except KeyboardInterrupt:
        console.print(f"interrupted; the same command goes on from the last checkpoint in {folder}")
        return 130
    except Exception as error:
        print(f"error: the run failed ({type(error).__name__}: {error}); see {folder}/error.txt", file=sys.stderr)
        return 1
    finally:
        for s, handler in zip((signal.SIGINT, signal.SIGTERM), previous, strict=True):
            signal.signal(s, handler)
    print_summary(summary, folder)
    if summary.status == "interrupted":
        console.print("the same command goes on from here")
        return 130
    return 0


if __name__ == "__main__":
    typer.run(main)
