"""Every figure from the records, as vector and as pixels: ``--help`` says more.

python -m paper_figures                                     params.yaml, results, paper_figures/out
python -m paper_figures --results results --only forest --only samples
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from benchmark.records.profile import Profile, ProfileError
from benchmark.records.results import Results

from . import FIGURES, find, style

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def read(params: Path, results: Path, suite: str | None) -> Results:
    """The records of the suite, the profile's first one unless named. Raises ProfileError."""
    profile = Profile.read(params)
    suite = suite or profile.suites[0]
    if suite not in profile.suites:
        raise ProfileError(f"unknown suite {suite!r}; {params} has: {', '.join(profile.suites)}")
    if not results.is_dir():
        raise ProfileError(f"no folder {results}; give the folder that holds the suites' records with --results")
    return Results.read(results, profile, suite)


@app.command()
def main(
    params: Annotated[Path, typer.Option(help="The profile: which variants, rewards and seeds there are.")] = Path(
        "params.yaml"
    ),
    results: Annotated[Path, typer.Option(help="Folder of the records, one folder per suite in it.")] = Path("results"),
    out: Annotated[Path, typer.Option(help="Where NAME.svg and NAME.png go; made where there is none.")] = Path(
        "paper_figures/out"
    ),
    only: Annotated[
        list[str] | None, typer.Option(help=f"One figure; repeat for several. There are: {', '.join(FIGURES)}.")
    ] = None,
    suite: Annotated[str | None, typer.Option(help="The profile's first unless given.")] = None,
) -> None:
    """Draw the figures of the benchmark from its records.

    What the records do not allow is left out and named, and its older files go: no error.

    The same records give the same bytes. Exit status: 0 done, 2 wrong input.

    What a figure shows, and how to read it, stands at the top of paper_figures/NAME.py.
    """
    try:
        unknown = [name for name in only or [] if name not in FIGURES]
        if unknown:
            raise ProfileError(f"unknown figure {unknown[0]!r}; valid: {', '.join(FIGURES)}")
        records = read(params, results, suite)
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ProfileError(f"cannot make the folder {out} ({error.strerror})") from None
    except ProfileError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    print(f"suite {records.suite}: {len(records.runs)} runs, {len(records.missing)} cells without one, "
          f"{len(records.problems)} folders left out")  # fmt: skip
    for name in only or FIGURES:
        module = find(name)
        drawing = module.figure(records)
        if drawing is None:
            for ending in ("svg", "png"):
                (out / f"{name}.{ending}").unlink(missing_ok=True)
            print(f"left out  {name}: needs {module.NEEDS}")
        else:
            print(f"written   {', '.join(str(path) for path in style.save(drawing, out, name))}")


if __name__ == "__main__":
    app()
