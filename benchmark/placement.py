"""At which steps of the sampler a tuned LoRA earns its reward: the same weights, switched on at some steps alone.

    python -m benchmark.placement --reward hps

Reads the LoRAs that ``benchmark.loras`` collected, so a fresh clone can repeat it. What is measured, and how:
``benchmark.probes.placement``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from . import records
from .cli import command, console, show
from .config import resolve
from .errors import InputError
from .probes.placement import measure
from .records.profile import Profile
from .records.protocol import PROTOCOL_VERSION


@command
def main(
    params: Annotated[Path, typer.Option(help="The profile that the runs are cells of.")] = Path("params.yaml"),
    suite: Annotated[str, typer.Option(help="As of benchmark.run.")] = "mini",
    reward: Annotated[str, typer.Option(help="As of benchmark.run.")] = "hps",
    prompts: Annotated[int, typer.Option(min=8, help="How many held-out prompts.")] = 256,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    out: Annotated[Path, typer.Option(help="LoRAs are in OUT/loras, the table goes to OUT/<suite>/placement.")] = Path(
        "results"
    ),
) -> int | None:
    """Measure a LoRA's gain with the LoRA on at some steps of the sampler alone."""
    name, profile = records.file_name(reward), Profile.read(params)
    loras = {variant: out / "loras" / suite / name / variant for variant in profile.tuned(reward)}
    loras = {variant: folder for variant, folder in loras.items() if folder.is_dir()}
    if not loras:
        raise InputError(f"no LoRA in {out / 'loras' / suite / name}; benchmark.loras collects them from runs")
    configs = {
        variant: resolve(suite, profile.method(variant), reward, 0, None, device, None, profile.overrides(variant))
        for variant in loras
    }
    chosen = next(iter(configs.values())).build_suite()
    chosen.check(reward)
    rows = []
    for row in measure(configs, loras, prompts):
        if "steps" not in row:
            console.print(f"{row['variant']} samples with the few-step model; it has no such steps")
            continue
        rows.append(row)
        table = pd.DataFrame(rows).to_csv(index=False, float_format="%.6g")
        records.write_text(out / suite / "placement" / f"{name}.csv", table)
    if not rows:
        return 1
    about = {"protocol": PROTOCOL_VERSION, "prompts": prompts, "random_weights": chosen.random_weights}
    about |= {"weights": chosen.fingerprint(False), **records.environment(device)}
    records.write_json(out / suite / "placement" / f"{name}.json", about)
    frame = pd.DataFrame(rows)
    wide = frame.pivot(index="variant", columns="steps", values="gain").loc[frame.variant.unique()]
    wide = wide[frame.steps.unique()].rename_axis("LoRA of").reset_index()
    title = f"gain of {reward} on {prompts} held-out prompts with the LoRA on at these steps, suite {suite}"
    show(title, wide, dict.fromkeys(frame.steps, "+.3f"))
    console.print(f"written to {out / suite / 'placement'}")
    return None


if __name__ == "__main__":
    main()
