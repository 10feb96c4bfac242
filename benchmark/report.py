"""The command line of the report."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from .findings.claims import read_claims
from .records.profile import ProfileError
from .records import write_text
from .findings.tables import open_results
from .findings.report.page import page

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    params: Annotated[Path, typer.Option(help="The profile: what the matrix should have.")] = Path("params.yaml"),
    results: Annotated[Path, typer.Option(help="The folder with the records, one folder per suite in it.")] = Path(
        "results"
    ),
    claims: Annotated[Path, typer.Option(help="The claims and the rules that decide.")] = Path("claims.yaml"),
    figures: Annotated[
        Path, typer.Option(help="Figures to embed: NAME.svg, or NAME.png where there is no SVG. May be missing.")
    ] = Path("paper_figures/out"),
    out: Annotated[Path, typer.Option(help="The page. Its links to runs and tables are relative to it.")] = Path(
        "results/report.html"
    ),
) -> None:
    """Make one HTML file of the records, to be opened in any browser, without a network.

    It has the verdicts with every comparison behind them, all tables (sortable, cells linked to their runs), the
    figures, the pictures of every run beside the base model's, what is missing, and what it was measured on. What the
    records lack is said in the page and is no error. The same records give the same bytes.

    Run python -m benchmark.tables first, whose CSV files the page links to, and python -m paper_figures for the
    figures. Exit status: 0 done, 2 wrong input.
    """
    try:
        text = page(open_results(params, results), read_claims(claims), figures, out)
        write_text(out, text)
    except (ProfileError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    print(f"written to {out} ({len(text.encode()) / 1e6:.1f} MB)")


if __name__ == "__main__":
    app()
