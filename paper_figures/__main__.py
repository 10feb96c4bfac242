"""Every figure from the records, as vector and as pixels: ``--help`` says more.

python -m paper_figures                                     params.yaml, results, docs/figures
python -m paper_figures --results results --only forest --only samples
"""

from pathlib import Path
from typing import Annotated

import typer

from benchmark.cli import command
from benchmark.errors import InputError, unknown
from benchmark.records.profile import Profile
from benchmark.records.results import Results

from . import FIGURES, SETS, find, style


def read(params: Path, results: Path, suite: str | None) -> Results:
    """The records of the suite, the profile's first one unless named. Raises InputError."""
    profile = Profile.read(params)
    suite = suite or profile.suites[0]
    if suite not in profile.suites:
        raise unknown("suite", suite, profile.suites)
    if not results.is_dir():
        raise InputError(f"no folder {results}; give the folder that holds the suites' records with --results")
    return Results.read(results, profile, suite)


@command
def main(
    params: Annotated[Path, typer.Option(help="The profile: variants, rewards and seeds.")] = Path("params.yaml"),
    results: Annotated[Path, typer.Option(help="Folder of the records, one folder per suite in it.")] = Path("results"),
    out: Annotated[Path, typer.Option(help="Where NAME.svg and NAME.png go.")] = Path("docs/figures"),
    only: Annotated[list[str] | None, typer.Option(help=f"One, or several: {', '.join((*FIGURES, *SETS))}.")] = None,
    suite: Annotated[str | None, typer.Option(help="The profile's first unless given.")] = None,
) -> None:
    """Draw the figures of the benchmark from its records.

    What the records do not allow is left out and named, and its older files go: no error. What a figure shows, and how
    to read it, stands at the top of paper_figures/NAME.py. The same records give the same bytes.

    Exit status: 0 done, 2 wrong input.
    """
    for name in set(only or []) - {*FIGURES, *SETS}:
        raise unknown("figure", name, (*FIGURES, *SETS))
    records = read(params, results, suite)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {out} ({error.strerror})") from None
    runs, missing, left = len(records.runs), len(records.missing), len(records.problems)
    print(f"suite {records.suite}: {runs} runs, {missing} cells without one, {left} folders left out")
    for name in only or (*FIGURES, *SETS):
        module = find(name)
        several = name in SETS
        folder, drawn = (out / name, module.figures(records)) if several else (out, {name: module.figure(records)})
        for path in folder.glob("*" if several else f"{name}.*"):
            path.unlink()
        if not any(drawn.values()):
            print(f"left out  {name}: needs {module.NEEDS}")
            continue
        for part, drawing in drawn.items():
            paths = style.save(drawing, folder, part, **getattr(module, "SAVED", {}))
            print(f"written   {', '.join(map(str, paths))}")


if __name__ == "__main__":
    main()
