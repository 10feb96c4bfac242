"""The command line of the published rewards."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table
from transformers.utils import logging

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
    table = Table("reward", "version", *(Column(name, no_wrap=True) for name in (*images(), "recorded")))
    for result in results:
        if result.scores is None:
            cells = ["-"] * len(images()) + ["missing"]
        else:
            verdict = "no recorded score"
            if result.recorded is not None:
                verdict = "as recorded" if result.difference <= TOLERANCE else f"differs by {result.difference:.4f}"
            cells = [*(f"{score:.4f}" for score in result.scores.values()), verdict]
        table.add_row(result.name, result.version, *cells)
    console = Console()
    console.print(table)
    for result in results:
        if result.missing:
            console.print(escape(result.missing), soft_wrap=True, highlight=False)
    if write:
        record(results, golden)
        console.print(f"recorded in {escape(str(golden))}", soft_wrap=True, highlight=False)
    elif any(result.difference > TOLERANCE for result in results):
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
