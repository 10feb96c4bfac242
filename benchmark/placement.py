"""At which steps of the sampler a tuned LoRA earns its reward: the same weights, switched on at some steps alone.

    python -m benchmark.placement --reward hps

Reads the LoRAs that ``benchmark.loras`` collected, so a fresh clone can repeat it. What is measured, and how:
``benchmark.probes.placement``.
"""

from pathlib import Path
from typing import Annotated

import pandas as pd
from typer import Option

from . import records
from .cli import Device, Params, Prompts, RewardName, SuiteName, command, console, show
from .config import resolve
from .errors import InputError
from .probes.placement import measure
from .records.profile import Profile
from .records.protocol import PROTOCOL_VERSION


@command
def main(
    params: Params = Path("params.yaml"),
    suite: SuiteName = "mini",
    reward: RewardName = "hps",
    prompts: Prompts = 256,
    device: Device = "cpu",
    out: Annotated[Path, Option(help="LoRAs: OUT/loras; the table: OUT/<suite>/placement.")] = Path("results"),
) -> int:
    """Measure a LoRA's gain with the LoRA on at some steps of the sampler alone."""
    name, profile = records.file_name(reward), Profile.read(params)
    loras = {variant: out / "loras" / suite / name / variant for variant in profile.tuned(reward)}
    loras = {variant: folder for variant, folder in loras.items() if folder.is_dir()}
    if not loras:
        raise InputError(f"no LoRA in {out / 'loras' / suite / name}; benchmark.loras collects them from runs")
    given = {variant: (profile.method(variant), profile.overrides(variant)) for variant in loras}
    configs = {v: resolve(suite, method, reward, 0, None, device, None, own) for v, (method, own) in given.items()}
    chosen = next(iter(configs.values())).build_suite()
    chosen.check(reward)
    rows, folder = [], out / suite / "placement"
    for row in measure(configs, loras, prompts):
        if "steps" not in row:
            console.print(f"{row['variant']} samples with the few-step model; it has no such steps")
            continue
        rows.append(row)
        records.write_table(folder / f"{name}.csv", pd.DataFrame(rows))
    if not rows:
        return 1
    about = {"protocol": PROTOCOL_VERSION, "prompts": prompts, "random_weights": chosen.random_weights}
    about |= {"weights": chosen.fingerprint(False), **records.environment(device)}
    records.write_json(folder / f"{name}.json", about)
    frame = pd.DataFrame(rows)
    wide = frame.pivot(index="variant", columns="steps", values="gain").loc[frame.variant.unique()]
    wide = wide[frame.steps.unique()].rename_axis("LoRA of").reset_index()
    title = f"gain of {reward} on {prompts} held-out prompts with the LoRA on at these steps, suite {suite}"
    show(title, wide, dict.fromkeys(frame.steps, "+.3f"))
    console.print(f"written to {folder}")
    return 0


if __name__ == "__main__":
    main()
