"""What all command lines have in common: errors in one line, exit codes, the console, tables."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping

import pandas as pd
import typer
from rich.console import Console
from rich.table import Table

from .errors import InputError

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
