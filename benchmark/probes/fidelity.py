"""How well the few-step model keeps to the base chain: the error of its jumps and the rewards of its images.

    python -m benchmark.shortcut
    python -m benchmark.shortcut --suite mini --prompts 256 --out results

One shortcut call, and one guided DDIM jump of the base model (the naive control), over each stretch that ShortFT skips,
both from the base chain's own latents, and chains from noise to image beside the base chain from the same noise:

    shortcut x4 / naive x4   four jumps and nothing else
    shortft / shortft naive  the chain that ShortFT trains on in its first stage, without its LoRAs
    coarse                   the control draft_coarse: large DDIM steps of the base model

The error of an image is the root mean square of the difference to the base chain's latents over that of the base
chain's latents themselves. Rewards are compared image by image: the mean change, which is bias, and the mean absolute
change. Intervals are over prompts (claim C5, question Q1). ``pictures-<spacing>.jpg`` has the first prompts' images, a
row for each chain in the order of the tables, the base chain's first.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

import methods

from .. import records
from ..training.cell import build_executor
from ..config import InputError, resolve
from ..diffusion import Executor, Plan, sampler_plan
from ..training.evaluation import NOISE_SEED, noise
from ..training.pictures import save_jpeg
from ..records.protocol import PROTOCOL_VERSION
from ..records import SAMPLES
from ..statistics import Interval, bootstrap_mean, bootstrap_ratio
from ..suites import Suite, SuiteError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = Console(highlight=False)
if not console.is_terminal:
    console.width = 150


def without_slots(plan: Plan) -> Plan:
    """The same chain, of the untuned models."""
    return tuple(hop.untuned() for hop in plan)


def chains(timesteps: list[int]) -> dict[str, Plan]:
    """Chains from noise to image that stand in for the base chain."""
    shortft, naive = (methods.find("shortft")(shortcut=kind) for kind in ("few-step", "naive"))
    four = methods.find("shortft")(policy="shortcut").sampler_plan(timesteps)
    plans = {
        "shortcut x4": four,
        "naive x4": tuple(hop.untuned(model="base") for hop in four),
        "shortft": shortft.stage_plan(1, timesteps),
        "shortft naive": naive.stage_plan(1, timesteps),
        "coarse": methods.find("draft_coarse")().plan(timesteps, torch.Generator(), 0.0),
    }
    return {name: without_slots(plan) for name, plan in plans.items()}


def stretches(timesteps: list[int]) -> list[tuple[int, int]]:
    """What ShortFT's shortcut carries latents over: (from, to)."""
    plan = methods.find("shortft")().stage_plan(1, timesteps)
    return [(hop.t, hop.s) for hop in plan if hop.model == "shortcut"]


def errors(found: torch.Tensor, chain: torch.Tensor) -> np.ndarray:
    """Relative error of each image's latents (B, C, h, w), (B,)."""
    difference, size = ((x.flatten(1).square().mean(1)).sqrt() for x in (found - chain, chain))
    return (difference / size).numpy()


@torch.no_grad()
def measure(
    executor: Executor, suite: Suite, prompts: list[str]
) -> tuple[dict[str, np.ndarray], pd.DataFrame, dict[str, torch.Tensor]]:
    """Errors (prompts,) by what was compared; the scores of the images of every chain, one row an image; and the first
    of these images (SAMPLES or fewer, 3, H, W) by chain.
    """
    timesteps, found, scores, pictures = executor.timesteps, {}, [], {}
    base, jumps = without_slots(sampler_plan(timesteps)), stretches(timesteps)
    rewards = {name: suite.reward(name) for name in suite.scored_rewards()}
    unet = executor.policy.unet.config
    start = noise((len(prompts), unet.in_channels, unet.sample_size, unet.sample_size), NOISE_SEED)

    def add(name: str, values: np.ndarray) -> None:
        found[name] = np.append(found.get(name, np.empty(0)), values)

    parts = list(range(0, len(prompts), suite.chunk))
    for begin in track(parts, description="chains", console=console):
        part = prompts[begin : begin + suite.chunk]
        embeds, x = suite.embed(part), start[begin : begin + suite.chunk].to(suite.device)
        states = {timesteps[0]: x}
        for hop in base:
            states[hop.s] = x = executor.run((hop,), x, embeds)
        ends = {"base": x}
        for t, s in jumps:
            for label, model in (("shortcut", "shortcut"), ("naive", "base")):
                (hop,) = (h for h in chains(timesteps)["shortft"] if (h.t, h.s) == (t, s))
                jumped = executor.run((hop.untuned(model=model),), states[t], embeds)
                add(f"{label} {t}->{s}", errors(jumped.cpu(), states[s].cpu()))
        for name, plan in chains(timesteps).items():
            ends[name] = executor.run(plan, states[timesteps[0]], embeds)
            add(name, errors(ends[name].cpu(), ends["base"].cpu()))
        for name, latents in ends.items():
            images = executor.decode(latents)
            pictures.setdefault(name, images[:SAMPLES].cpu())
            columns = {reward: score(images, part).tolist() for reward, score in rewards.items()}
            if suite.oracle:
                columns["oracle"] = suite.oracle(images, part).tolist()
            scores.append(pd.DataFrame({"chain": name, "prompt": part} | columns))
    return found, pd.concat(scores, ignore_index=True), pictures


def jump_table(found: dict[str, np.ndarray], jumps: list[tuple[int, int]]) -> pd.DataFrame:
    """Errors of shortcut and naive jump over each stretch and end to end, and their ratio."""
    pairs = {f"{t}->{s}": (f"shortcut {t}->{s}", f"naive {t}->{s}") for t, s in jumps}
    pairs |= {"four jumps": ("shortcut x4", "naive x4"), "ShortFT's chain": ("shortft", "shortft naive")}
    rows = []
    for name, (shortcut, naive) in pairs.items():
        row = {"stretch": name}
        for label, interval in (
            ("shortcut", bootstrap_mean(found[shortcut])), ("naive", bootstrap_mean(found[naive])),
            ("ratio", bootstrap_ratio(found[shortcut], found[naive])),
        ):  # fmt: skip
            row |= {label: interval.value, f"{label}_low": interval.low, f"{label}_high": interval.high}
        rows.append(row)
    return pd.DataFrame(rows)


def image_table(found: dict[str, np.ndarray], scores: pd.DataFrame) -> pd.DataFrame:
    """Of every chain and reward: the base chain's mean, the mean change from it and the mean absolute change."""
    base, rows = scores[scores.chain == "base"].reset_index(drop=True), []
    for name in scores.chain.unique():
        part = scores[scores.chain == name].reset_index(drop=True)
        for reward in scores.columns[2:]:
            change = (part[reward] - base[reward]).to_numpy()
            bias, size = bootstrap_mean(change), bootstrap_mean(np.abs(change))
            rows.append(
                {"chain": name, "error": found[name].mean() if name in found else 0.0, "reward": reward,
                 "mean": part[reward].mean(), "change": bias.value, "change_low": bias.low, "change_high": bias.high,
                 "absolute_change": size.value, "absolute_change_low": size.low, "absolute_change_high": size.high}
            )  # fmt: skip
    return pd.DataFrame(rows)


def print_tables(jumps: pd.DataFrame, images: pd.DataFrame, title: str) -> None:
    def cell(row, name: str) -> str:
        return f"{Interval(row[name], row[name + '_low'], row[name + '_high']):.3f}"

    table = Table(title=f"relative error of jumps, {title}")
    for column in ("stretch", "shortcut", "naive", "shortcut / naive"):
        table.add_column(column, justify="left" if column == "stretch" else "right")
    for row in jumps.to_dict("records"):
        table.add_row(row["stretch"], *(cell(row, name) for name in ("shortcut", "naive", "ratio")))
    console.print(table)
    table = Table(title=f"rewards of images: mean, and change from the base chain's, {title}")
    rewards = list(images.reward.unique())
    for column in ("chain", "error", *rewards):
        table.add_column(column, justify="left" if column == "chain" else "right")
    for name, part in images.groupby("chain", sort=False):
        rows = part.set_index("reward").to_dict("index")
        table.add_row(name, f"{part.error.iloc[0]:.3f}",
                      *(f"{rows[r]['mean']:.3f} ({rows[r]['change']:+.3f})" for r in rewards))  # fmt: skip
    console.print(table)


@app.command()
def main(
    suite: Annotated[str, typer.Option(help="As of benchmark.run.")] = "mini",
    prompts: Annotated[int, typer.Option(min=8, help="How many held-out prompts.")] = 256,
    spacing: Annotated[str, typer.Option(help="Timestep spacing of the base chain: leading or trailing.")] = "leading",
    set_: Annotated[list[str] | None, typer.Option("--set", help="name=value, as of benchmark.run.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    out: Annotated[Path, typer.Option(help="Figures go to OUT/<suite>/shortcut.")] = Path("runs"),
) -> None:
    """Measure the few-step model's fidelity to the base chain."""
    try:
        config = resolve(suite, "shortft", "symmetry", 0, None, device, None, [f"spacing={spacing}", *(set_ or [])])
        config.build_suite().check()
        loaded = config.load_suite()
    except (InputError, SuiteError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    executor = build_executor(loaded, config.settings, 0, True, 0)
    found, scores, pictures = measure(executor, loaded, loaded.prompts("test", prompts))
    jumps, images = jump_table(found, stretches(executor.timesteps)), image_table(found, scores)
    folder = out / suite / "shortcut"
    for name, table in (("jumps", jumps), ("images", images)):
        records.write_text(folder / f"{name}-{spacing}.csv", table.to_csv(index=False, float_format="%.6g"))
    rows = [np.concatenate(list(part.permute(0, 2, 3, 1).numpy()), axis=1) for part in pictures.values()]
    save_jpeg(folder / f"pictures-{spacing}.jpg", np.concatenate(rows))
    settings = {"protocol": PROTOCOL_VERSION, "weights": loaded.fingerprint(True), "prompts": prompts,
                "spacing": spacing, "random_weights": loaded.random_weights, **records.environment(device)}  # fmt: skip
    records.write_json(folder / f"{spacing}.json", settings)
    print_tables(jumps, images, f"suite {suite}, {spacing}, {prompts} prompts")
    console.print(f"written to {folder}")


if __name__ == "__main__":
    app()
