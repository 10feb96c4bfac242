"""What all command lines have in common: options, errors in one line, exit codes, the console, tables."""

import functools
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
from rich.console import Console
from rich.table import Table
from typer import Option

from .errors import InputError
from .statistics import Interval

# Options that several commands have.
Params = Annotated[Path, Option(help="The profile: what the matrix should have.")]
Records = Annotated[Path, Option(help="The folder with the records, one folder per suite in it.")]
Claims = Annotated[Path, Option(help="The claims and the rules that decide.")]
SuiteName = Annotated[str, Option(help="Base model, rewards and prompts; benchmark.run --list names them.")]
RewardName = Annotated[str, Option(help="A reward, or a sum such as '10*pickscore + 2*hps'.")]
RewardNames = Annotated[list[str] | None, Option(help="Repeat for several; all of the profile.")]
Variants = Annotated[list[str] | None, Option(help="Repeat for several, options after the name; by default all.")]
Budgets = Annotated[str | None, Option(help="5TFLOP, 120s, 2000img or 40step; by default the suite's standard.")]
Overrides = Annotated[list[str] | None, Option("--set", help="name=value: a setting, or an option of the method.")]
Device = Annotated[str, Option(help="cpu or cuda.")]
Prompts = Annotated[int, Option(min=8, help="How many held-out prompts.")]
Jobs = Annotated[int, Option(min=1, help="How many at a time; the cores are shared among them.")]

console = Console(highlight=False, soft_wrap=True)
if not console.is_terminal:
    console.width = 170  # a log file has no width of its own


def command(function: Callable[..., int | None]) -> typer.Typer:
    """Make a function a command line. What it returns is the exit code; an InputError is one line and 2."""

    @functools.wraps(function)
    def run(*arguments, **options) -> None:
        try:
            code = function(*arguments, **options)
        except InputError as error:
            print(f"error: {error}", file=sys.stderr)
            code = 2
        raise typer.Exit(code or 0)

    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(run)
    return app


def show(title: str, rows: pd.DataFrame, formats: Mapping[str, str] | None = None, head: bool = True) -> None:
    """Print a table: text to the left, what ``formats`` (column -> format code) has, or is a number, to the right.

    What is missing (None, NaN) is left empty. Without ``head`` the first column stands out instead of the heads.
    """
    formats = formats or {}
    table = Table(title=title, title_justify="left", show_header=head, box=Table().box if head else None)
    for number, column in enumerate(rows):
        right = column in formats or pd.api.types.is_numeric_dtype(rows[column])
        style = "bold" if not (head or number) else None
        table.add_column(column, justify="right" if right else "left", style=style)
    for row in rows.to_dict("records"):
        texts = ("" if pd.isna(x) else format(x, formats.get(column, "")) for column, x in row.items())
        table.add_row(*texts)
    console.print(table)


def intervals(rows: pd.DataFrame, name: str, code: str) -> list[str]:
    """A column and the ends of its interval, as text: ``0.12 [0.10, 0.14]``."""
    return [f"{Interval(*row):{code}}" for row in rows[[name, f"{name}_low", f"{name}_high"]].itertuples(index=False)]
