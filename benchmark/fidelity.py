"""How well the few-step model keeps to the base chain: the error of its jumps and the rewards of its images.

    python -m benchmark.fidelity --suite mini --prompts 256 --out results

``pictures-<spacing>.jpg`` has the first prompts' images, a row for each chain in the order of the tables, the base
chain's first. What is measured, and how: ``benchmark.probes.fidelity``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer

from . import records
from .cli import command, console, show
from .config import resolve
from .probes.fidelity import image_table, jump_table, measure, stretches
from .records.protocol import PROTOCOL_VERSION
from .statistics import Interval
from .training.pictures import save_jpeg
from .training.workbench import Workbench


def print_tables(jumps: pd.DataFrame, images: pd.DataFrame, title: str) -> None:
    shown = pd.DataFrame({"stretch": jumps.stretch})
    for name, head in {"shortcut": "shortcut", "naive": "naive", "ratio": "shortcut / naive"}.items():
        ends = jumps[[name, f"{name}_low", f"{name}_high"]].itertuples(index=False)
        shown[head] = [f"{Interval(*row):.3f}" for row in ends]
    show(f"relative error of jumps, {title}", shown)
    shown = images.assign(text=[f"{row.mean:.3f} ({row.change:+.3f})" for row in images.itertuples()])
    shown = shown.pivot(index=["chain", "error"], columns="reward", values="text").loc[images.chain.unique()]
    shown = shown[images.reward.unique()].rename_axis(columns=None).reset_index()
    show(f"rewards of images: mean, and change from the base chain's, {title}", shown, {"error": ".3f"})


@command
def main(
    suite: Annotated[str, typer.Option(help="As of benchmark.run.")] = "mini",
    prompts: Annotated[int, typer.Option(min=8, help="How many held-out prompts.")] = 256,
    spacing: Annotated[str, typer.Option(help="Timestep spacing of the base chain: leading or trailing.")] = "leading",
    set_: Annotated[list[str] | None, typer.Option("--set", help="name=value, as of benchmark.run.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    out: Annotated[Path, typer.Option(help="Tables go to OUT/<suite>/fidelity.")] = Path("runs"),
) -> None:
    """Measure the few-step model's fidelity to the base chain."""
    config = resolve(suite, "shortft", "symmetry", 0, None, device, None, [f"spacing={spacing}", *(set_ or [])])
    config.build_suite().check()
    bench = Workbench(config, slots=0)
    loaded = bench.suite
    found, scores, pictures = measure(bench, loaded.prompts("test", prompts))
    jumps, images = jump_table(found, stretches(bench.executor.timesteps)), image_table(found, scores)
    folder = out / suite / "fidelity"
    for name, table in (("jumps", jumps), ("images", images)):
        records.write_text(folder / f"{name}-{spacing}.csv", table.to_csv(index=False, float_format="%.6g"))
    rows = [np.concatenate(list(part.permute(0, 2, 3, 1).numpy()), axis=1) for part in pictures.values()]
    save_jpeg(folder / f"pictures-{spacing}.jpg", np.concatenate(rows))
    about = {"protocol": PROTOCOL_VERSION, "weights": loaded.fingerprint(True), "prompts": prompts, "spacing": spacing}
    about |= {"random_weights": loaded.random_weights, **records.environment(device)}
    records.write_json(folder / f"{spacing}.json", about)
    print_tables(jumps, images, f"suite {suite}, {spacing}, {prompts} prompts")
    console.print(f"written to {folder}")


if __name__ == "__main__":
    main()
