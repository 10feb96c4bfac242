"""The command line of the tables.

    python -m benchmark.tables                       results/<suite> -> results/tables, results/claims.md and .json
    python -m benchmark.tables --params profiles/smoke.yaml --results build/results

Also gives the verdicts on the claims (``benchmark.claims``), since they are made of the same records.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from .findings.claims import judge, markdown, read_claims
from .records.profile import ProfileError
from .records import write_json, write_text
from .findings.tables import build, open_results, write
from .findings.tables.readme import blocks, into_readme

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = Console(highlight=False, soft_wrap=True)


@app.command()
def main(
    params: Annotated[Path, typer.Option(help="The profile: what the matrix should have.")] = Path("params.yaml"),
    results: Annotated[Path, typer.Option(help="The folder with the records.")] = Path("results"),
    claims: Annotated[Path, typer.Option(help="The claims and the rules that decide.")] = Path("claims.yaml"),
    readme: Annotated[
        Path | None,
        typer.Option(
            help="Also put the first suite's choice, verdicts, state, results and cost between the marks of this file."
        ),
    ] = None,
) -> None:
    """Make all tables and verdicts anew from the records."""
    try:
        loaded, stated = open_results(params, results), read_claims(claims)
    except ProfileError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    texts, verdicts = [], []
    for part in loaded:
        write(build(part), results / "tables" / part.suite)
        judged = [judge(claim, part) for claim in stated]
        verdicts += judged
        texts.append(markdown(judged, f"suite {part.suite}"))
        console.print(
            f"suite {part.suite}: {len(part.runs)} runs, {len(part.missing)} cells missing, "
            f"{len(part.problems)} folders left out"
        )
        for row in part.problems.itertuples():
            console.print(f"  {row.folder}: {row.problem}")
    try:
        if readme:
            into_readme(readme, blocks(loaded[0], [v for v in verdicts if v["suite"] == loaded[0].suite]))
    except (OSError, ProfileError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    write_text(results / "claims.md", "\n".join(texts))
    write_json(results / "claims.json", verdicts)
    console.print(f"written to {results / 'tables'}, {results / 'claims.md'}")


if __name__ == "__main__":
    app()
