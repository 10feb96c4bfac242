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
from rich.console import Console
from rich.table import Table

import methods

from .config import InputError, resolve, resolve_cell, split_variant
from .training.jobs import Job, run_jobs
from .records.profile import Profile, ProfileError
from .records.reader import paired_scores
from .records import Summary, write_text
from .statistics import Interval, crossed_interval

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = Console(highlight=False)
if not console.is_terminal:
    console.width = 150  # a log file has no width of its own


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
        row = {"method": variant, "reward": reward, "setting": point, "seeds": len(runs),
               "learning_rate": runs[0][0].config.settings.learning_rate,
               "diverged": sum(summary.status == "diverged" for _, summary in runs)}  # fmt: skip
        columns = {"change": reward} | ({"oracle": "oracle"} if runs[0][1].oracle_after is not None else {})
        for name, column in columns.items():
            interval = crossed_interval(paired_scores(folders, column, split))
            row |= {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
        row["diversity"] = np.mean([summary.diversity_after - summary.diversity_before for _, summary in runs])
        for name in ("steps", "seconds", "operations", "denoiser_forwards", "denoiser_backwards"):
            row[name] = np.mean([getattr(summary, name) for _, summary in runs])
        rows.append(row)
    return pd.DataFrame(rows)


def print_table(jobs: list[Job]) -> pd.DataFrame:
    """The table of the jobs, printed; also what is missing."""
    frame = table_of(jobs)
    shown = Table(title="change on held-out prompts [95% interval]")
    for column in ("method", "reward", "setting", "seeds", "change", "oracle", "diversity", "steps", "seconds"):
        shown.add_column(column)
    for row in frame.to_dict("records"):
        changes = [
            f"{Interval(row[c], row[c + '_low'], row[c + '_high']):+.3f}" if c in row else ""
            for c in ("change", "oracle")
        ]
        shown.add_row(
            row["method"], row["reward"], row["setting"], str(row["seeds"]), *changes, f"{row['diversity']:+.3f}",
            f"{row['steps']:.0f}", f"{row['seconds']:.0f}",
        )  # fmt: skip
    console.print(shown)
    missing = len(jobs) - int(frame.seeds.sum() if len(frame) else 0)
    if missing:
        console.print(f"[bold red]{missing} of {len(jobs)} cells have no result")
    return frame


def product(
    method: list[str], reward: list[str], suite: str, seed: list[int], budget: str | None, overrides: list[str],
    grid: list[str], device: str, out: Path,
) -> list[Job]:  # fmt: skip
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
    profile: Profile, params: Path, device: str, out: Path, wanted: dict[str, list],
    untuned: dict[str, str] | None = None,
) -> dict[str, Job]:  # fmt: skip
    """A job for every cell of a profile, one seed of everything first, by its stage in DVC.

    wanted: of suite, variant, reward, seed, group, the values that are wanted; none: all.
    untuned: takes the cells that cannot run yet, with the reason; without it the first of them raises InputError.
    """
    found = {}
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


@app.command()
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
) -> None:
    """Run every cell that is not done of methods x rewards x seeds x grid, or of a profile, and print a table."""
    try:
        stages, waiting = {}, None
        if params is None:
            cells = product(
                method or methods.names(), reward or ["hps"], suite, seed or [0], budget, set_ or [], grid or [],
                device, out or Path("runs"),
            )  # fmt: skip
        else:
            if budget or set_ or grid:
                raise InputError("--params decides budget and settings; leave out --budget, --set and --grid")
            wanted = {"suite": [suite], "variant": method, "reward": reward, "seed": seed, "group": group}
            waiting = {} if dry_run else None
            stages = profile_jobs(Profile.read(params), params, device, out or Path("results"), wanted, waiting)
            cells = list(stages.values())
    except (InputError, ProfileError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    if dry_run:
        for cell in cells:
            state = "" if cell.result() is None else "  # done"
            console.print(" ".join(shlex.quote(word) for word in cell.command()[1:]) + state, soft_wrap=True)
        for stage, reason in (waiting or {}).items():
            console.print(f"{stage}  # waits: {reason}", soft_wrap=True)
        return
    failed = run_jobs(cells, jobs, console)
    frame = print_table(cells)
    if csv:
        write_text(csv, frame.to_csv(index=False, float_format="%.6g"))
    done = [stage for stage, cell in stages.items() if cell.result() is not None]
    if done and params.resolve() == Path("params.yaml").resolve():  # the profile that dvc.yaml reads
        try:
            commit(done)
        except InputError as error:
            print(f"error: {error}; the cells are done, the same command enters them", file=sys.stderr)
            raise typer.Exit(1) from None
    raise typer.Exit(bool(failed))


if __name__ == "__main__":
    app()
