"""The command line of the report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .cli import command
from .errors import InputError
from .findings.claims import read_claims
from .findings.report.page import page
from .findings.tables import open_results
from .records import write_text


@command
def main(
    params: Annotated[Path, typer.Option(help="The profile: what the matrix should have.")] = Path("params.yaml"),
    results: Annotated[Path, typer.Option(help="Folder of the records, one folder per suite in it.")] = Path("results"),
    claims: Annotated[Path, typer.Option(help="The claims and the rules that decide.")] = Path("claims.yaml"),
    figures: Annotated[Path, typer.Option(help="Figures to embed, SVG before PNG; may lack.")] = Path("docs/figures"),
    out: Annotated[Path, typer.Option(help="The page; its links are relative to it.")] = Path("results/report.html"),
) -> None:
    """Make one HTML file of the records, to be opened in any browser, without a network.

    It has the verdicts with every comparison behind them, all tables (sortable, cells linked to their runs), the
    figures, the pictures of every run beside the base model's, what is missing, and what it was measured on. What the
    records lack is said in the page and is no error. The same records give the same bytes.

    Run python -m benchmark.tables first, whose CSV files the page links to, and python -m paper_figures for the
    figures. Exit status: 0 done, 2 wrong input.
    """
    loaded, stated = open_results(params, results), read_claims(claims)
    try:
        text = page(loaded, stated, figures, out)
        write_text(out, text)
    except OSError as error:
        raise InputError(str(error)) from None
    print(f"written to {out} ({len(text.encode()) / 1e6:.1f} MB)")


if __name__ == "__main__":
    main()
