"""The command line of the report."""

from pathlib import Path
from typing import Annotated

from typer import Option

from .cli import Claims, Params, Records, command
from .errors import one_line
from .findings.claims import read_claims
from .findings.report.page import page
from .findings.tables import open_results
from .records import write_text


@command
def main(
    params: Params = Path("params.yaml"),
    results: Records = Path("results"),
    claims: Claims = Path("claims.yaml"),
    figures: Annotated[Path, Option(help="Figures to embed, SVG before PNG; may lack.")] = Path("docs/figures"),
    out: Annotated[Path, Option(help="The page; its links are relative to it.")] = Path("results/report.html"),
) -> None:
    """Make one HTML file of the records, to be opened in any browser, without a network.

    It has the verdicts with every comparison behind them, all tables (sortable, cells linked to their runs), the
    figures, the pictures of every run beside the base model's, what is missing, and what it was measured on. What the
    records lack is said in the page and is no error. The same records give the same bytes.

    Run python -m benchmark.tables first, whose CSV files the page links to, and python -m paper_figures for the
    figures. Exit status: 0 done, 2 wrong input.
    """
    loaded, stated = open_results(params, results), read_claims(claims)
    with one_line(OSError):
        text = page(loaded, stated, figures, out)
        write_text(out, text)
    print(f"written to {out} ({len(text.encode()) / 1e6:.1f} MB)")


if __name__ == "__main__":
    main()
