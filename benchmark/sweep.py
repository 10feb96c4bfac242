"""Many cells of the benchmark, side by side: what is done is kept, the rest runs, a table at the end.

    python -m benchmark.sweep --method draft_k --method "shortft shortcut=naive" --seed 0 --seed 1 --seed 2 --jobs 2
    python -m benchmark.sweep --grid learning_rate=1e-4,3e-4,1e-3 --seed 100 --set split=validation
    python -m benchmark.sweep --params params.yaml --seed 0      the pipeline's cells; `dvc repro` finds them done

On a CPU, two jobs of one thread each use two cores better than one job of two threads.
"""

import itertools
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import pandas as pd
from typer import Option

import methods

from .cli import Budgets, Device, Jobs, Overrides, SuiteName, Variants, command, console, intervals, show
from .config import resolve, resolve_cell, split_variant
from .errors import InputError
from .records import Summary, write_table
from .records.profile import Profile
from .records.reader import paired_scores
from .statistics import crossed_interval
from .training.jobs import Job, run_jobs

MEANS = ["steps", "seconds", "operations", "denoiser_forwards", "denoiser_backwards"]


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
        folders, settings = [str(job.where) for job, _ in runs], runs[0][0].config.settings
        found = pd.DataFrame([summary.model_dump() for _, summary in runs])
        row = {"method": variant, "reward": reward, "setting": point, "seeds": len(runs)}
        row |= {"learning_rate": settings.learning_rate, "diverged": (found.status == "diverged").sum()}
        for name, column in {"change": reward, "oracle": "oracle"}.items():
            if name == "change" or found.oracle_after.notna()[0]:
                row |= crossed_interval(paired_scores(folders, column, settings.split)).row(name)
        row |= {"diversity": (found.diversity_after - found.diversity_before).mean()}
        rows.append(row | found[MEANS].mean().to_dict())
    return pd.DataFrame(rows)


def print_table(jobs: list[Job]) -> pd.DataFrame:
    """The table of the jobs, printed; also what is missing."""
    frame = table_of(jobs)
    texts = {name: intervals(frame, name, "+.3f") for name in ("change", "oracle") if name in frame}
    columns = ["method", "reward", "setting", "seeds", *texts, "diversity", "steps", "seconds"]
    formats = {"diversity": "+.3f", "steps": ".0f", "seconds": ".0f"}
    show("change on held-out prompts [95% interval]", pd.DataFrame(frame.assign(**texts), columns=columns), formats)
    missing = len(jobs) - int(frame.seeds.sum() if len(frame) else 0)
    if missing:
        console.print(f"[bold red]{missing} of {len(jobs)} cells have no result")
    return frame


def points(grid: list[str]) -> list[tuple[str, ...]]:
    """The points of a grid whose axes are ``name=v1,v2,...``, each as overrides; without axes the one without any."""
    axes = [axis.partition("=") for axis in grid]
    return list(itertools.product(*([f"{name}={value}" for value in values.split(",")] for name, _, values in axes)))


def profile_jobs(
    params: Path, device: str, out: Path, wanted: dict[str, list], untuned: dict[str, str] | None
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


def commit(stages: list[str]) -> int:
    """Tell DVC that these stages' outputs are what their commands make. The exit code."""
    console.print(f"entering {len(stages)} cells into dvc.lock")
    dvc = [sys.executable, "-m", "dvc", "commit", "--force", "--quiet"]
    result = subprocess.run([*dvc, *stages], capture_output=True, text=True, check=False)
    if result.returncode:
        last = (result.stderr.strip() or result.stdout.strip()).splitlines()[-1]
        print(f"error: dvc commit failed: {last}; the cells are done, the same command enters them", file=sys.stderr)
    return int(bool(result.returncode))


@command
def main(
    method: Variants = None,
    reward: Annotated[list[str] | None, Option(help="Repeat for several; hps by default.")] = None,
    suite: SuiteName = "mini",
    seed: Annotated[list[int] | None, Option(help="Repeat for several; 0 by default.")] = None,
    budget: Budgets = None,
    set_: Overrides = None,
    grid: Annotated[list[str] | None, Option(help="name=v1,v2,...: one cell for each value.")] = None,
    device: Device = "cpu",
    out: Annotated[Path | None, Option(help="As of benchmark.run; of a profile results, else runs.")] = None,
    params: Annotated[Path | None, Option(help="A profile: its cells, those that the other options pick.")] = None,
    group: Annotated[list[str] | None, Option(help="Of a profile: only these groups.")] = None,
    csv: Annotated[Path | None, Option(help="Also write the table to this file.")] = None,
    jobs: Jobs = 2,
    dry_run: Annotated[bool, Option("--dry-run", help="Print the commands, and stop.")] = False,
) -> int:
    """Run every cell that is not done of methods x rewards x seeds x grid, or of a profile, and print a table."""
    stages, waiting = {}, {} if dry_run else None
    if params is None:
        cells, axes = [], (method or methods.names(), reward or ["hps"], points(grid or []), seed or [0])
        for variant, name, point, number in itertools.product(*axes):
            plain, options = split_variant(variant)
            given = [*(set_ or []), *options, *point]
            config = resolve(suite, plain, name, number, budget, device, None, given)
            if all(config != cell.config for cell in cells):
                cells.append(Job(variant, config, out or Path("runs"), ", ".join(point)))
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
        write_table(csv, frame)
    done = [stage for stage, cell in stages.items() if cell.result() is not None]
    if done and params.resolve() == Path("params.yaml").resolve():  # the profile that dvc.yaml reads
        failed += commit(done)
    return int(bool(failed))


if __name__ == "__main__":
    main()
