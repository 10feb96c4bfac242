"""Tuned LoRAs to give away: of every variant on a reward, the weights of one run with a model card. No torch.

    python -m benchmark.loras --reward hps --seed 0         to results/loras/<suite>/<reward>/<variant>/

A run leaves its LoRA among its artifacts, out of git; this copies it, and writes the card from the records.
"""

import json
import shutil
from pathlib import Path
from typing import Annotated

import pandas as pd
from typer import Option

from . import suites
from .cli import Params, RewardName, SuiteName, command, console
from .records import SLOTS_FILE, artifacts, file_name, read_json, write_text
from .records.profile import Profile
from .records.results import Results

ONE_SLOT = """pipeline.load_lora_weights("{folder}")"""
SLOTS = """from benchmark.slots import attach_slots

attach_slots(pipeline, "{folder}")  # loads the slots and switches them by timestep"""


def card(variant: str, run: pd.Series, target: Path, several: bool, params: Path) -> str:
    """The model card of a run's LoRA: what it is, how it was made, what it does, how to load it."""
    config = read_json(Path(run.folder) / "run.json") or {}
    environment = read_json(Path(run.folder) / "environment.json") or {}
    settings = config.get("config", {})
    load = (SLOTS if several else ONE_SLOT).format(folder=target.as_posix())
    changes = [(f"target reward ({run.reward})", run.reward_before, run.reward_after)]
    changes += [("oracle of truth", run.oracle_before, run.oracle_after)]
    changes += [("diversity", run.diversity_before, run.diversity_after)]
    held_out = [name for name in run.index if name.startswith("heldout.") and name.endswith(".after")]
    changes += [(f"{n[8:-6]} (not trained)", run[f"{n[:-6]}.before"], run[n]) for n in held_out if pd.notna(run[n])]
    table = "\n".join(f"| {name} | {a:.4f} | {b:.4f} | {b - a:+.4f} |" for name, a, b in changes)
    options = json.dumps(settings.get("options", {}) | settings.get("settings", {}), sort_keys=True)
    command = f"python -m benchmark.run --params {params} --suite {run.suite} --method {variant} "
    command += f'--reward "{run.reward}" --seed {run.seed} --out {target.parents[3]}'
    return f"""# {variant} on {run.reward}, suite {run.suite}, seed {run.seed}

A LoRA for the base model of suite {suites.kind(run.suite).title}.
Tuned towards `{run.reward}` with `{run.method}` for {run.budget}: {run.steps} optimiser steps, {run.images} images.
It was made to compare methods, and the reward is what it was made to raise: see below what else moved.

| held-out prompts | before | after | change |
|---|---|---|---|
{table}

Made in {run.seconds:.0f} s of training by `{command}`.
Options and settings: `{options}`. Protocol {run.protocol}, {environment.get("device")}, torch
{environment.get("versions", {}).get("torch")}. Records: `{Path(run.folder).as_posix()}`.

```python
from diffusers import StableDiffusionPipeline

pipeline = StableDiffusionPipeline.from_pretrained("{suites.kind(run.suite).pipeline_source}")
{load}
```

{suites.kind(run.suite).lora_licence}
"""


@command
def main(
    params: Params = Path("params.yaml"),
    results: Annotated[Path, Option(help="The folder with the records and, beside them, the LoRAs.")] = Path("results"),
    suite: SuiteName = "mini",
    reward: RewardName = "hps",
    seed: Annotated[int, Option(help="Which runs.")] = 0,
) -> int:
    """Collect the LoRAs of every variant on a reward, each with its card."""
    loaded, made = Results.read(results, Profile.read(params), suite), 0
    collected = results / "loras" / suite / file_name(reward)
    for variant in loaded.variants():
        runs = loaded.of(variant, reward)
        for _, run in runs[runs.seed == seed].iterrows() if len(runs) else ():
            source = artifacts(results, Path(run.folder)) / "lora"
            if not source.is_dir():
                console.print(f"{variant}: no LoRA in {source}; it lies on the machine that ran it")
                continue
            target = collected / variant
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(source, target)
            write_text(target / "README.md", card(variant, run, target, (source / SLOTS_FILE).exists(), params))
            made += 1
    console.print(f"{made} LoRAs with cards in {collected}")
    return 0 if made else 1


if __name__ == "__main__":
    main()
