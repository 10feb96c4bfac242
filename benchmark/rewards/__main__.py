"""The command line of the published rewards."""

from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
from rich.markup import escape
from transformers.utils import logging

from ..cli import console, show
from .published import weights_folder
from .published.check import GOLDEN, TOLERANCE, images, record
from .published.check import check as run

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True)


@app.callback()
def rewards() -> None:
    """The published rewards."""


@app.command()
def check(
    weights: Annotated[
        Path | None,
        typer.Option(help="The weights' folder. [default: $REWARD_WEIGHTS, or weights]", show_default=False),
    ] = None,
    device: Annotated[str, typer.Option(help="Where to score: cpu, cuda.")] = "cpu",
    write: Annotated[bool, typer.Option("--record", help="Write the scores as the recorded ones.")] = False,
    golden: Annotated[Path, typer.Option(help="The file of recorded scores.", show_default=False)] = GOLDEN,
) -> None:
    """Score three drawn images with every published reward that is there, and compare with recorded scores.

    A line says for each missing one what to install or download. Exit status: 0 nothing differs from what is recorded,
    1 a score does.
    """
    logging.disable_progress_bar()
    results = list(run(weights or weights_folder(), device, golden))
    rows = [
        {"reward": result.name, "version": result.version}
        | {name: f"{result.scores[name]:.4f}" if result.scores else "-" for name in images()}
        | {"recorded": result.verdict}
        for result in results
    ]
    show("", pd.DataFrame(rows))
    for result in results:
        if result.missing:
            console.print(escape(result.missing))
    if write:
        record(results, golden)
        console.print(f"recorded in {escape(str(golden))}")
    elif any(result.difference > TOLERANCE for result in results):
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
