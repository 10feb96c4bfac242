"""Many cells of the benchmark, side by side: what is done is kept, the rest runs, a table at the end.

    python -m benchmark.sweep --method draft_k --method "shortft shortcut=naive" --seed 0 --seed 1 --seed 2 --jobs 2
    python -m benchmark.sweep --grid learning_rate=1e-4,3e-4,1e-3 --seed 100 --set split=validation
    python -m benchmark.sweep --params params.yaml --seed 0      the pipeline's cells; `dvc repro` finds them done

On a CPU, two jobs of one thread each use two cores better than one job of two threads.
"""

from __future__ import annotations

import itertools
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer

import methods

from .cli import command, console, show
from .config import resolve, resolve_cell, split_variant
from .errors import InputError
from .records import Summary, write_text
from .records.profile import Profile
from .records.reader import paired_scores
from .statistics import Interval, crossed_interval
from .training.jobs import Job, run_jobs


def table_of(jobs: list[Job]) -> pd.DataFrame:
    """One row per variant, reward and grid point: changes on held-out prompts, counts and means.

    The 95% intervals are for new seeds and prompts (``crossed_interval``); of one seed, for new prompts alone.
    """
    groups: dict[tuple[str, str, str], list[tuple[Job, Summary]]] = {}
    for job in jobs:
        summary = job.result()
        if summary is not None and summary.reward_after is not None:
            groups.setdefault((job.variant, job.config.reward, job.point), []).append((job, summary))
    rows = []
    for (variant, reward, point), runs in groups.items():
        folders, split = [str(job.where) for job, _ in runs], runs[0][0].config.settings.split
        diverged = sum(summary.status == "diverged" for _, summary in runs)
        row = {"method": variant, "reward": reward, "setting": point, "seeds": len(runs)}
        row |= {"learning_rate": runs[0][0].config.settings.learning_rate, "diverged": diverged}
        columns = {"change": reward} | ({"oracle": "oracle"} if runs[0][1].oracle_after is not None else {})
        for name, column in columns.items():
            row |= crossed_interval(paired_scores(folders, column, split)).row(name)
        row["diversity"] = np.mean([summary.diversity_after - summary.diversity_before for _, summary in runs])
        for name in ("steps", "seconds", "operations", "denoiser_forwards", "denoiser_backwards"):
            row[name] = np.mean([getattr(summary, name) for _, summary in runs])
        rows.append(row)
    return pd.DataFrame(rows)


def print_table(jobs: list[Job]) -> pd.DataFrame:
    """The table of the jobs, printed; also what is missing."""
    frame = table_of(jobs)
    texts = {
        name: [
            f"{Interval(*ends):+.3f}" for ends in frame[[name, f"{name}_low", f"{name}_high"]].itertuples(index=False)
        ]
        for name in ("change", "oracle")
        if name in frame
    }
    columns = ["method", "reward", "setting", "seeds", *texts, "diversity", "steps", "seconds"]
    formats = {"diversity": "+.3f", "steps": ".0f", "seconds": ".0f"}
    show("change on held-out prompts [95% interval]", pd.DataFrame(frame.assign(**texts), columns=columns), formats)
    missing = len(jobs) - int(frame.seeds.sum() if len(frame) else 0)
    if missing:
        console.print(f"[bold red]{missing} of {len(jobs)} cells have no result")
    return frame


def product(
    method: list[str],
    reward: list[str],
    suite: str,
    seed: list[int],
    budget: str | None,
    overrides: list[str],
    grid: list[str],
    device: str,
    out: Path,
) -> list[Job]:
    """A job for every cell of methods x rewards x grid points x seeds."""
    points, cells = [[]], []
    for axis in grid:
        name, _, values = axis.partition("=")
        points = [[*point, f"{name}={value}"] for point in points for value in values.split(",")]
    for m, r, point, s in itertools.product(method, reward, points, seed):
        name, options = split_variant(m)
        config = resolve(suite, name, r, s, budget, device, None, [*overrides, *options, *point])
        if all(config != cell.config for cell in cells):
            cells.append(Job(m, config, out, ", ".join(point)))
    return cells


def profile_jobs(
    params: Path, device: str, out: Path, wanted: dict[str, list], untuned: dict[str, str] | None = None
) -> dict[str, Job]:
    """A job for every cell of a profile, one seed of everything first, by its stage in DVC.

    wanted: of suite, variant, reward, seed, group, the values that are wanted; none: all.
    untuned: takes the cells that cannot run yet, with the reason; without it the first of them raises InputError.
    """
    profile, found = Profile.read(params), {}
    for key in profile.cells():
        place = key._asdict() | {"group": key.stage.partition("@")[0]}
        if all(not values or place[name] in values for name, values in wanted.items()):
            try:
                config, folder = resolve_cell(profile, key.suite, key.variant, key.reward, key.seed, device, out)
            except InputError as error:
                if untuned is None:
                    raise
                untuned[key.stage] = str(error)
                continue
            found[key.stage] = Job(key.variant, config, out, "", params, folder)
    if not found and not untuned:
        raise InputError(f"{params} has no such cell; see its groups, or leave out a filter")
    return found


def commit(stages: list[str]) -> None:
    """Tell DVC that these stages' outputs are what their commands make."""
    console.print(f"entering {len(stages)} cells into dvc.lock")
    dvc = [sys.executable, "-m", "dvc", "commit", "--force", "--quiet"]
    result = subprocess.run([*dvc, *stages], capture_output=True, text=True, check=False)
    if result.returncode:
        raise InputError(f"dvc commit failed: {(result.stderr.strip() or result.stdout.strip()).splitlines()[-1]}")


@command
def main(
    method: Annotated[list[str] | None, typer.Option(help="Repeat for several, options after the name; all.")] = None,
    reward: Annotated[list[str] | None, typer.Option(help="Repeat for several; hps by default.")] = None,
    suite: Annotated[str, typer.Option()] = "mini",
    seed: Annotated[list[int] | None, typer.Option(help="Repeat for several; 0 by default.")] = None,
    budget: Annotated[str | None, typer.Option(help="As of benchmark.run.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="name=value, for every cell.")] = None,
    grid: Annotated[list[str] | None, typer.Option(help="name=v1,v2,...: one cell for each value.")] = None,
    device: Annotated[str, typer.Option()] = "cpu",
    out: Annotated[Path | None, typer.Option(help="As of benchmark.run; of a profile results, else runs.")] = None,
    params: Annotated[
        Path | None,
        typer.Option(
            help="A profile: its cells, those that the other options pick. Of params.yaml they are entered in DVC."
        ),
    ] = None,
    group: Annotated[list[str] | None, typer.Option(help="Of a profile: only these groups.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Also write the table to this file.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Cells at a time; the cores are shared among them.")] = 2,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the commands, and stop.")] = False,
) -> int:
    """Run every cell that is not done of methods x rewards x seeds x grid, or of a profile, and print a table."""
    stages, waiting = {}, {} if dry_run else None
    if params is None:
        names, out = method or methods.names(), out or Path("runs")
        cells = product(names, reward or ["hps"], suite, seed or [0], budget, set_ or [], grid or [], device, out)
    else:
        if budget or set_ or grid:
            raise InputError("--params decides budget and settings; leave out --budget, --set and --grid")
        wanted = {"suite": [suite], "variant": method, "reward": reward, "seed": seed, "group": group}
        stages = profile_jobs(params, device, out or Path("results"), wanted, waiting)
        cells = list(stages.values())
    if dry_run:
        for cell in cells:
            state = "" if cell.result() is None else "  # done"
            console.print(" ".join(shlex.quote(word) for word in cell.command()[1:]) + state)
        for stage, reason in waiting.items():
            console.print(f"{stage}  # waits: {reason}")
        return 0
    failed = run_jobs(cells, jobs)
    frame = print_table(cells)
    if csv:
        write_text(csv, frame.to_csv(index=False, float_format="%.6g"))
    done = [stage for stage, cell in stages.items() if cell.result() is not None]
    if done and params.resolve() == Path("params.yaml").resolve():  # the profile that dvc.yaml reads
        try:
            commit(done)
        except InputError as error:
            print(f"error: {error}; the cells are done, the same command enters them", file=sys.stderr)
            return 1
    return int(bool(failed))


if __name__ == "__main__":
    main()
