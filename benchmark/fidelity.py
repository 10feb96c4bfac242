"""How well the few-step model keeps to the base chain: the error of its jumps and the rewards of its images.

    python -m benchmark.fidelity --suite mini --prompts 256 --out results

``pictures-<spacing>.jpg`` has the first prompts' images, a row for each chain in the order of the tables, the base
chain's first. What is measured, and how: ``benchmark.probes.fidelity``.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
from typer import Option

from . import records
from .cli import Device, Overrides, Prompts, SuiteName, command, console, intervals, show
from .config import resolve
from .probes.fidelity import image_table, jump_table, measure, stretches
from .records.protocol import PROTOCOL_VERSION
from .training.pictures import save_jpeg
from .training.workbench import Workbench


def print_tables(jumps: pd.DataFrame, images: pd.DataFrame, title: str) -> None:
    columns = {"shortcut": "shortcut", "naive": "naive", "ratio": "shortcut / naive"}
    shown = {head: intervals(jumps, name, ".3f") for name, head in columns.items()}
    show(f"relative error of jumps, {title}", pd.DataFrame({"stretch": jumps.stretch} | shown))
    shown = images.assign(text=[f"{row.mean:.3f} ({row.change:+.3f})" for row in images.itertuples()])
    shown = shown.pivot(index=["chain", "error"], columns="reward", values="text").loc[images.chain.unique()]
    shown = shown[images.reward.unique()].rename_axis(columns=None).reset_index()
    show(f"rewards of images: mean, and change from the base chain's, {title}", shown, {"error": ".3f"})


@command
def main(
    suite: SuiteName = "mini",
    prompts: Prompts = 256,
    spacing: Annotated[str, Option(help="Timestep spacing of the base chain: leading or trailing.")] = "leading",
    set_: Overrides = None,
    device: Device = "cpu",
    out: Annotated[Path, Option(help="Tables go to OUT/<suite>/fidelity.")] = Path("runs"),
) -> None:
    """Measure the few-step model's fidelity to the base chain."""
    config = resolve(suite, "shortft", "symmetry", 0, None, device, None, [f"spacing={spacing}", *(set_ or [])])
    config.build_suite().check()
    bench = Workbench(config, slots=0)
    found, scores, pictures = measure(bench, bench.suite.prompts("test", prompts))
    jumps, images = jump_table(found, stretches(bench.executor.timesteps)), image_table(found, scores)
    folder = out / suite / "fidelity"
    for name, table in (("jumps", jumps), ("images", images)):
        records.write_table(folder / f"{name}-{spacing}.csv", table)
    rows = [np.concatenate(list(part.permute(0, 2, 3, 1).numpy()), axis=1) for part in pictures.values()]
    save_jpeg(folder / f"pictures-{spacing}.jpg", np.concatenate(rows))
    about = {"protocol": PROTOCOL_VERSION, "weights": bench.suite.fingerprint(True), "prompts": prompts}
    about |= {"spacing": spacing, "random_weights": bench.suite.random_weights}
    records.write_json(folder / f"{spacing}.json", about | records.environment(device))
    print_tables(jumps, images, f"suite {suite}, {spacing}, {prompts} prompts")
    console.print(f"written to {folder}")


if __name__ == "__main__":
    main()
