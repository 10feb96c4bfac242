"""Variance and bias of every method's gradient estimate, at the same parameters, prompts and noise.

    python -m benchmark.gradients --methods all --reward hps --jobs 2
    python -m benchmark.gradients --methods "shortft, shortft timestep_aware=false, draft_k k=5" --batches 128

What is measured, and how: ``benchmark.probes.gradients`` and ``moments``.
"""

import shutil
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import pandas as pd
import torch
from typer import Option

from . import records
from .cli import Device, Jobs, Overrides, RewardName, SuiteName, command, console, intervals, show
from .config import resolve
from .errors import InputError
from .probes.gradients import groups, key, parse, probed, reference_checkpoints
from .records.protocol import PROTOCOL_VERSION
from .training.workbench import Workbench


def checkpoints(text: str) -> list[int]:
    """Numbers of steps from ``20,100``."""
    steps = [int(word) for word in text.split(",") if word.strip().isdigit() and int(word) > 0]
    if not steps or len(steps) != len(text.split(",")):
        raise InputError(f"--at {text!r} is not a list of positive numbers of steps, such as 20,100")
    return steps


def print_rows(rows: pd.DataFrame, title: str) -> None:
    columns = {"method": "method", "progress": "from", "slot": "slot", "norm": "norm", "shown": "normalised variance"}
    columns |= {"variance_x_tflop": "x TFLOP", "from_method": "own", "from_noise": "noise", "from_prompts": "prompts"}
    columns |= {"cosine": "cosine", "cosine_of_means": "of means"}
    shown = rows.assign(shown=intervals(rows, "normalised_variance", ".3g"))[list(columns)].rename(columns=columns)
    formats = {"from": ".0%", "norm": ".3g", "cosine": "+.3f", "of means": "+.3f"}
    show(title, shown, formats | dict.fromkeys(("x TFLOP", "own", "noise", "prompts"), ".2f"))


@command
def main(
    names: Annotated[str, Option("--methods", help="'all', or with options: 'shortft, draft_k k=5'.")] = "all",
    reward: RewardName = "hps",
    suite: SuiteName = "mini",
    batches: Annotated[int, Option(min=3, help="Minibatches per method.")] = 128,
    redraws: Annotated[int, Option(min=0, help="Of these, how many also split the variance.")] = 32,
    at: Annotated[str, Option(help="Steps of the reference run at its checkpoints.")] = "20,100",
    reference: Annotated[str, Option(help="Method of the reference run, with one slot.")] = "draft",
    set_: Overrides = None,
    device: Device = "cpu",
    out: Annotated[Path, Option(help="Tables go to OUT/<suite>/gradients/<reward>.csv.")] = Path("runs"),
    force: Annotated[bool, Option("--force", help="Start anew.")] = False,
    jobs: Jobs = 1,
) -> None:
    """Measure variance, bias and cost of gradient estimates. Interrupted, the same command goes on."""
    steps, variants = checkpoints(at), parse(names, suite, reward, device)
    base = resolve(suite, reference, reward, 0, f"{max(steps)}step", device, None, set_ or [])
    chosen = base.build_suite()
    chosen.check(reward)
    if base.build_method().slots != 1:
        raise InputError(f"--reference {reference} has more than one LoRA slot; the reference run needs one")
    same = [{"settings": base.settings, "suite_options": base.suite_options | c.suite_options} for _, c in variants]
    variants = [(name, config.model_copy(update=u)) for (name, config), u in zip(variants, same, strict=True)]
    configs = dict(variants)

    cache = out / "artifacts" / suite / "gradients" / key(base, variants)
    if force:
        shutil.rmtree(cache, ignore_errors=True)
    states = reference_checkpoints(base, steps, cache)
    grouped = groups(variants, Workbench(base, slots=0, shortcut=False).executor)
    tasks = [
        (step, state, configs[group[0].name], group, cache / f"probe-{step}-{i}.pt", batches, redraws, jobs > 1)
        for step, state in zip(steps, states, strict=True)
        for i, group in enumerate(grouped)
    ]
    if jobs == 1:
        made = [probed(*task) for task in tasks]
    else:
        threads = (max(torch.get_num_threads() // jobs, 1),)
        with ProcessPoolExecutor(jobs, get_context("spawn"), torch.set_num_threads, threads) as pool:
            made = [future.result() for future in [pool.submit(probed, *task) for task in tasks]]
    frame = pd.DataFrame([row for part in made for row in part])
    table = out / suite / "gradients" / f"{records.file_name(base.reward)}.csv"
    records.write_table(table, frame)
    about = {"protocol": PROTOCOL_VERSION, "weights": chosen.fingerprint(True), "random_weights": chosen.random_weights}
    about |= {"batches": batches, "redraws": redraws, "reference": base.model_dump(mode="json")}
    records.write_json(table.with_suffix(".json"), about | records.environment(device))
    for step, part in frame.groupby("reference_step"):
        print_rows(part, f"gradient estimates, suite {suite}, {reward}, reference run after {step} steps")
    console.print(f"written to {table}")


if __name__ == "__main__":
    main()
