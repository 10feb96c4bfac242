"""The command line of the tables.

    python -m benchmark.tables                       results/<suite> -> results/tables, results/claims.md and .json
    python -m benchmark.tables --params profiles/smoke.yaml --results build/results

Also gives the verdicts on the claims (``benchmark.findings.claims``), since they are made of the same records.
"""

from pathlib import Path

from .cli import Claims, Params, Records, command, console
from .findings.claims import judge, markdown, read_claims
from .findings.tables import build, open_results, write
from .records import write_json, write_text


@command
def main(
    params: Params = Path("params.yaml"), results: Records = Path("results"), claims: Claims = Path("claims.yaml")
) -> None:
    """Make all tables and verdicts anew from the records."""
    loaded, stated = open_results(params, results), read_claims(claims)
    texts, verdicts = [], []
    for part in loaded:
        write(build(part), results / "tables" / part.suite)
        judged = [judge(claim, part) for claim in stated]
        verdicts += judged
        texts.append(markdown(judged, f"suite {part.suite}"))
        counts = f"{len(part.runs)} runs, {len(part.missing)} cells missing, {len(part.problems)} folders left out"
        console.print(f"suite {part.suite}: {counts}")
        for row in part.problems.itertuples():
            console.print(f"  {row.folder}: {row.problem}")
    write_text(results / "claims.md", "\n".join(texts))
    write_json(results / "claims.json", verdicts)
    console.print(f"written to {results / 'tables'}, {results / 'claims.md'}")


if __name__ == "__main__":
    main()
