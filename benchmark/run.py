"""One cell of the benchmark: tune the base model of a suite with a method, and say what it did.

python -m benchmark.run --method shortft --reward hps
"""

import inspect
import json
import os
import signal
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import pandas as pd
import torch
from diffusers import DDIMScheduler
from rich.markup import escape
from typer import Option

import methods

from . import records, suites
from .cli import Budgets, Device, Overrides, RewardName, SuiteName, command, console, show
from .config import RunConfig, check_device, read_prompts, resolve, resolve_cell
from .diffusion import describe
from .errors import InputError, one_line
from .records.profile import Profile
from .rewards import PIXEL_REWARDS
from .suites import Suite
from .training.cell import Cell
from .training.identity import finished, identity


def check(config: RunConfig, track: str | None) -> Suite:
    """Refuse what is not there or makes no sense, before anything is loaded; the suite."""
    check_device(config.device)
    if config.prompts is not None:
        read_prompts(Path(config.prompts))
    if track not in (None, "tensorboard", "wandb", "dvclive"):
        raise InputError(f"unknown tracker {track!r}; expected tensorboard, wandb or dvclive")
    if track and find_spec(track) is None:
        raise InputError(f"--track {track}: the package {track} is not installed; pip install {track}")
    suite, method = config.build_suite(), config.build_method()
    suite.check(config.reward, method.needs_shortcut)
    if isinstance(method, methods.DirectReward):  # options that only together, or only with this chain, are wrong
        with one_line(ValueError, prefix=f"--set, {config.method}: "):
            method.plan(training_timesteps(suite, config), torch.Generator().manual_seed(0), 0.0)
    return suite


def check_writable(folder: Path) -> None:
    try:
        existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
        writable = existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
        problem = "" if writable else f"no permission in {existing}"
    except OSError as error:
        problem = error.strerror
    if problem:
        raise InputError(f"results folder {folder} cannot be written: {problem}; choose --out DIR")


def check_folder(folder: Path, checkpoint: Path, now: dict, device: str) -> None:
    """Refuse a folder that other settings or code made, or a half-done run of other arithmetic.

    Where its records were taken away, the checkpoint says what the run was.
    """
    there = records.read_json(folder / "run.json")
    if there is None and checkpoint.exists():
        there = torch.load(checkpoint, weights_only=True)["identity"]
    if there is None:
        return
    anew, change = "start anew with --force, or choose --out DIR", ""
    other = next((part for part in now if there.get(part) != now[part]), None)
    if other == "config":
        was, new = (pd.json_normalize(c).iloc[0].to_dict() for c in (there.get(other) or {}, now[other]))
        names = [name for name in new if str(was.get(name)) != str(new[name])]
        change = ": " + ", ".join(f"{name} was {was.get(name)}, is {new[name]}" for name in names)
    if other:
        raise InputError(f"{folder} was made by other {other}{change}; {anew}")
    before = records.read_json(folder / "environment.json")
    current = records.environment(device) if before and checkpoint.exists() else {}
    for what in ("device", "threads") if current else ():
        if before.get(what) != current[what]:
            raise InputError(f"{folder} was begun with {what} {before.get(what)}, not {current[what]}; {anew}")


def headline(config: RunConfig, suite: Suite) -> str:
    """What runs here, and how the same is run on Stable Diffusion."""
    line = f"Suite {suite.title}."
    if config.reward in suite.learned_rewards:
        line += f" '{config.reward}' here is {suite.learned_rewards[config.reward]}."
    if suite.random_weights:
        line += " Some of its weights are random: its numbers mean nothing, and tables leave it out."
    if config.suite == "mini":
        line += " Stable Diffusion 1.5: "
        line += f"python -m benchmark.run --suite sd15 --method {config.method} --reward '{config.reward}'."
    return line


def print_list() -> None:
    chosen = {name: suites.find(name) for name in suites.names()}
    tables = {"Methods": {name: inspect.getdoc(methods.find(name)).partition("\n")[0] for name in methods.names()}}
    tables |= {"Suites": {name: suite.title for name, suite in chosen.items()}}
    pixels = {name: inspect.getdoc(cls).partition("\n")[0] for name, cls in PIXEL_REWARDS.items()}
    tables |= {f"Rewards of {name}": s.learned_rewards | pixels | s.combinations for name, s in chosen.items()}
    for title, rows in tables.items():
        show(title, pd.DataFrame(list(rows.items())), head=False)


def print_method(name: str, cls: type[methods.Method]) -> None:
    """What a method is, from its file, and its options."""
    console.print((inspect.getmodule(cls).__doc__ or cls.__doc__ or "").strip(), markup=False)
    rows = [(option, str(f.default), escape(f.description or "")) for option, f in cls.model_fields.items()]
    columns = ["name", "default", "what it is [where the default comes from]"]
    show(f"Options of {name}: --set name=value", pd.DataFrame(rows, columns=columns))


def print_dry_run(config: RunConfig, folder: Path, timesteps: list[int]) -> None:
    method = config.build_method()
    console.print(f"folder  {folder}")
    console.print(json.dumps(config.model_dump(mode="json"), indent=2))
    for progress, plan in method.phases(timesteps) if isinstance(method, methods.DirectReward) else ():
        trained = ", ".join(map(str, method.trained_slots(progress)))
        console.print(f"plan from {progress:.0%} of the budget (LoRA slots that are trained: {trained})")
        console.print("\n".join(f"  {line}" for line in describe(plan)))


def training_timesteps(suite: Suite, config: RunConfig) -> list[int]:
    """The timesteps of the method's training chain, from the scheduler's configuration alone."""
    scheduler = DDIMScheduler.from_config(suite.scheduler_config(), timestep_spacing=config.settings.spacing)
    scheduler.set_timesteps(config.build_method().chain_steps or suite.steps)
    return scheduler.timesteps.tolist()


def print_summary(summary: records.Summary, folder: Path, artifacts: Path) -> None:
    """The run in a small table."""
    seen = {f"reward ({summary.reward})": (summary.reward_before, summary.reward_after, summary.reward_se)}
    seen |= {"oracle of truth": (summary.oracle_before, summary.oracle_after, summary.oracle_se)}
    seen |= {"diversity": (summary.diversity_before, summary.diversity_after)}
    kinds = {"other reward": "heldout", "unseen combinations": "combinations", "training prompts": "training"}
    seen |= {f"{kind}: {n}": pair for kind, field in kinds.items() for n, pair in getattr(summary, field).items()}
    rows = []
    for name, (before, after, *error) in seen.items():
        if before is not None:
            change = "" if after is None else f"{after - before:+.4f}"
            change += "".join(f" ± {e:.4f}" for e in error if e is not None)
            rows.append({"held-out prompts": name, "before": before, "after": after, "change": change})
    title = f"{summary.method} on {summary.reward}, suite {summary.suite}, seed {summary.seed}"
    show(title, pd.DataFrame(rows), {"before": ".4f", "after": ".4f", "change": ""})
    spent = f"{summary.steps} steps, {summary.seconds:.0f} s, {summary.operations / 1e12:.1f} TFLOP"
    calls = f"{summary.denoiser_forwards} denoiser forwards, {summary.denoiser_backwards} backwards"
    spent += f", {summary.images} images, {calls}"
    console.print(f"{summary.status}: {spent} (± is the standard error over prompts)")
    console.print(f"folder  {folder}\nLoRA and pictures  {artifacts}")


@command
def main(
    method: Annotated[str, Option(help="--list names them; or your own, as package.module:Class.")] = "shortft",
    reward: RewardName = "hps",
    suite: SuiteName = "mini",
    model: Annotated[str | None, Option(help="A diffusers folder as base model, where the suite lets you.")] = None,
    seed: Annotated[int, Option(help="Seed of LoRA, prompts, noise and the method's randomness.")] = 0,
    budget: Budgets = None,
    set_: Overrides = None,
    prompts: Annotated[str | None, Option(help="Text file of training prompts, one per line.")] = None,
    device: Device = "cpu",
    out: Annotated[Path, Option(help="Where runs go: OUT/suite/reward/method/seed-N.")] = Path("runs"),
    track: Annotated[str | None, Option(help="Also log to a tracker: tensorboard, wandb or dvclive.")] = None,
    checkpoint_seconds: Annotated[float, Option(help="Training between checkpoints; changes no result.")] = 20.0,
    dry_run: Annotated[bool, Option("--dry-run", help="Print the resolved run and its plan, and stop.")] = False,
    help_method: Annotated[bool, Option("--help-method", help="Explain --method and its options, and stop.")] = False,
    list_: Annotated[bool, Option("--list", help="List methods, rewards and suites, and stop.")] = False,
    force: Annotated[bool, Option("--force", help="Start anew, whatever the folder holds.")] = False,
    replace: Annotated[bool, Option("--replace", help="Start anew where the folder holds another run.")] = False,
    params: Annotated[Path | None, Option(help="A profile: --method may be its variant; its budget and rate.")] = None,
) -> int:
    """Tune a text-to-image diffusion model towards a reward, and measure it on held-out prompts.

    The same command again resumes an interrupted run, or says that it is done.
    """
    if list_:
        print_list()
        return 0
    set_ = [*(set_ or []), *([f"model={model}"] if model else [])]
    if params is None:
        config = resolve(suite, method, reward, seed, budget, device, prompts, set_)
        folder = config.folder(out)
    elif budget or prompts or set_:
        raise InputError("--params decides budget, prompts and settings; leave out --budget, --prompts, --model, --set")
    else:
        config, folder = resolve_cell(Profile.read(params), suite, method, reward, seed, device, out)
    if help_method:
        print_method(config.method, methods.find(config.method))
        return 0
    chosen = check(config, track)
    if dry_run:
        console.print(headline(config, chosen))
        print_dry_run(config, folder, training_timesteps(chosen, config))
        return 0
    check_writable(folder)
    beside = records.artifacts(out, folder)
    if force:
        records.clear(folder, beside)
    console.print(headline(config, chosen))
    done = finished(folder, config)
    if done:
        print_summary(done, folder, beside)
        console.print("this run is done; --force starts it anew")
        return 0
    try:
        check_folder(folder, beside / "checkpoint.pt", identity(config), config.device)
    except InputError:
        if not replace:
            raise
        records.clear(folder, beside)
    return train(Cell(config, folder, out, console, track, checkpoint_seconds))


def train(cell: Cell) -> int:
    """Run a cell; a first signal ends it after a step, a second one at once. The exit code."""

    def stop(signum, frame):
        if cell.stop:
            raise KeyboardInterrupt
        cell.stop = True
        console.print("stopping after this step; once more stops at once")

    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        summary = cell()
    except KeyboardInterrupt:
        console.print(f"interrupted; the same command goes on from the last checkpoint in {cell.artifacts}")
        return 130
    except Exception as error:
        line = f"{type(error).__name__}: {error}".partition("\n")[0]
        print(f"error: the run failed ({line}); see {cell.artifacts}/error.txt", file=sys.stderr)
        return 1
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if summary:  # the main process has one
        print_summary(summary, cell.folder, cell.artifacts)
    if summary and summary.status == "interrupted":
        console.print("the same command goes on from here")
        return 130
    return 0


if __name__ == "__main__":
    main()
