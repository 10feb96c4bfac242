"""One cell of the benchmark: tune the base model of a suite with a method, and say what it did.

python -m benchmark.run --method shortft --reward hps
"""

from __future__ import annotations

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
import typer
from diffusers import DDIMScheduler
from rich.markup import escape

import methods

from . import records, suites
from .cli import command, console, show
from .config import RunConfig, check_device, read_prompts, resolve, resolve_cell
from .diffusion import describe
from .errors import InputError
from .records.profile import Profile
from .rewards import PIXEL_REWARDS
from .suites import Suite
from .training.cell import Cell
from .training.identity import finished, identity


def check_plan(config: RunConfig, timesteps: list[int]) -> None:
    """Refuse options that only together, or only with this chain, make no sense."""
    method = config.build_method()
    if isinstance(method, methods.DirectReward):
        try:
            method.plan(timesteps, torch.Generator().manual_seed(0), 0.0)
        except ValueError as error:
            raise InputError(f"--set, {config.method}: {error}") from None


def check_writable(folder: Path) -> None:
    try:
        existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
        writable = existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
    except OSError as error:
        raise InputError(f"results folder {folder} cannot be written: {error.strerror}; choose --out DIR") from None
    if not writable:
        raise InputError(f"results folder {folder} cannot be written: no permission in {existing}; choose --out DIR")


def check_folder(folder: Path, checkpoint: Path, now: dict, device: str) -> None:
    """Refuse a folder that other settings or code made, or a half-done run of other arithmetic.

    Where its records were taken away, the checkpoint says what the run was.
    """
    there = records.read_json(folder / "run.json")
    if there is None and checkpoint.exists():
        there = torch.load(checkpoint, weights_only=True)["identity"]
    if there is None:
        return
    anew = "start anew with --force, or choose --out DIR"
    for part, value in now.items():
        if there.get(part) == value:
            continue
        change = ""
        if part == "config":
            flat_there, flat_now = (pd.json_normalize(c).iloc[0].to_dict() for c in (there.get(part) or {}, value))
            names = [n for n in flat_now if str(flat_there.get(n)) != str(flat_now[n])]
            change = ": " + ", ".join(f"{n} was {flat_there.get(n)}, is {flat_now[n]}" for n in names)
        raise InputError(f"{folder} was made by other {part}{change}; {anew}")
    before = records.read_json(folder / "environment.json")
    if before and checkpoint.exists():
        current = records.environment(device)
        for what in ("device", "threads"):
            if before.get(what) != current[what]:
                raise InputError(f"{folder} was begun with {what} {before.get(what)}, not {current[what]}; {anew}")


def headline(config: RunConfig, suite: Suite) -> str:
    """What runs here, and how the same is run on Stable Diffusion."""
    meaning = suite.learned_rewards.get(config.reward)
    line = f"Suite {suite.title}."
    if meaning:
        line += f" '{config.reward}' here is {meaning}."
    if suite.random_weights:
        line += " Some of its weights are random: its numbers mean nothing, and tables leave it out."
    if config.suite == "mini":
        command = f"python -m benchmark.run --suite sd15 --method {config.method} --reward '{config.reward}'"
        line += f" Stable Diffusion 1.5: {command}."
    return line


def first_line(thing: type) -> str:
    return thing.__doc__.strip().splitlines()[0]


def print_list() -> None:
    chosen = {name: suites.find(name) for name in suites.names()}
    tables = {"Methods": {name: first_line(methods.find(name)) for name in methods.names()}}
    tables |= {"Suites": {name: suite.title for name, suite in chosen.items()}}
    pixels = {name: first_line(cls) for name, cls in PIXEL_REWARDS.items()}
    tables |= {f"Rewards of {name}": s.learned_rewards | pixels | s.combinations for name, s in chosen.items()}
    for title, rows in tables.items():
        show(title, pd.DataFrame(list(rows.items())), head=False)


def print_method(name: str, cls: type[methods.Method]) -> None:
    """What a method is, from its file, and its options."""
    console.print((inspect.getmodule(cls).__doc__ or cls.__doc__ or "").strip(), markup=False)
    about = "what it is [where the default comes from]"
    rows = [
        {"name": option, "default": str(field.default), about: escape(field.description or "")}
        for option, field in cls.model_fields.items()
    ]
    show(f"Options of {name}: --set name=value", pd.DataFrame(rows, columns=["name", "default", about]))


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
    console.print(
        f"{summary.status}: {summary.steps} steps, {summary.seconds:.0f} s, {summary.operations / 1e12:.1f} TFLOP, "
        f"{summary.images} images, {summary.denoiser_forwards} denoiser forwards, "
        f"{summary.denoiser_backwards} backwards (± is the standard error over prompts)"
    )
    console.print(f"folder  {folder}\nLoRA and pictures  {artifacts}")


@command
def main(
    method: Annotated[
        str, typer.Option(help="Which method: --list names them; or your own, as package.module:Class.")
    ] = "shortft",
    reward: Annotated[str, typer.Option(help="A reward, or a sum such as '10*pickscore + 2*hps'.")] = "hps",
    suite: Annotated[str, typer.Option(help="Base model, rewards and prompts; --list names them.")] = "mini",
    model: Annotated[
        str | None, typer.Option(help="Base model of the suite, where it lets you choose: a diffusers folder.")
    ] = None,
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
    help_method: Annotated[
        bool, typer.Option("--help-method", help="Explain --method and its options, and stop.")
    ] = False,
    list_: Annotated[bool, typer.Option("--list", help="List methods, rewards and suites, and stop.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Start anew, whatever the folder holds.")] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Start anew where the folder holds another run; resume this one.")
    ] = False,
    params: Annotated[
        Path | None,
        typer.Option(help="A profile (params.yaml): --method may be one of its variants; its budget and tuned rate."),
    ] = None,
) -> int:
    """Tune a text-to-image diffusion model towards a reward, and measure it on held-out prompts.

    The same command again resumes an interrupted run, or says that it is done.
    """
    if list_:
        print_list()
        return 0
    folder = None
    set_ = [*(set_ or []), *([f"model={model}"] if model else [])]
    if params is None:
        config = resolve(suite, method, reward, seed, budget, device, prompts, set_)
    elif budget or prompts or set_:
        raise InputError("--params decides budget, prompts and settings; leave out --budget, --prompts, --model, --set")
    else:
        config, folder = resolve_cell(Profile.read(params), suite, method, reward, seed, device, out)
    if help_method:
        print_method(config.method, methods.find(config.method))
        return 0
    return launch(config, out, track, checkpoint_seconds, dry_run, force, replace, folder)


def launch(
    config: RunConfig,
    out: Path,
    track: str | None = None,
    checkpoint_seconds: float = 20.0,
    dry_run: bool = False,
    force: bool = False,
    replace: bool = False,
    folder: Path | None = None,
) -> int:
    """Check, then run, resume or show a configuration; the exit code."""
    check_device(config.device)
    if config.prompts is not None:
        read_prompts(Path(config.prompts))
    if track not in (None, "tensorboard", "wandb", "dvclive"):
        raise InputError(f"unknown tracker {track!r}; expected tensorboard, wandb or dvclive")
    if track and find_spec(track) is None:
        raise InputError(f"--track {track}: the package {track} is not installed; pip install {track}")
    chosen = config.build_suite()
    chosen.check(config.reward, config.build_method().needs_shortcut)
    check_plan(config, training_timesteps(chosen, config))
    folder = folder or config.folder(out)
    beside = records.artifacts(out, folder)
    if dry_run:
        console.print(headline(config, chosen))
        print_dry_run(config, folder, training_timesteps(chosen, config))
        return 0
    check_writable(folder)
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
    cell = Cell(config, folder, out, console, track, checkpoint_seconds)

    def stop(signum, frame):
        if cell.stop:
            raise KeyboardInterrupt
        cell.stop = True
        console.print("stopping after this step; once more stops at once")

    previous = [signal.signal(s, stop) for s in (signal.SIGINT, signal.SIGTERM)]
    try:
        summary = cell()
    except KeyboardInterrupt:
        console.print(f"interrupted; the same command goes on from the last checkpoint in {beside}")
        return 130
    except Exception as error:
        line = str(error).partition("\n")[0]
        print(f"error: the run failed ({type(error).__name__}: {line}); see {beside}/error.txt", file=sys.stderr)
        return 1
    finally:
        for s, handler in zip((signal.SIGINT, signal.SIGTERM), previous, strict=True):
            signal.signal(s, handler)
    if summary is None:  # not the main process
        return 0
    print_summary(summary, folder, beside)
    if summary.status == "interrupted":
        console.print("the same command goes on from here")
        return 130
    return 0


if __name__ == "__main__":
    main()
