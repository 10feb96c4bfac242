"""Many cells of the benchmark, side by side: what is done is kept, the rest runs, a table at the end.

    python -m benchmark.sweep --method draft_k --method "shortft shortcut=naive" --seed 0 --seed 1 --seed 2 --jobs 2
    python -m benchmark.sweep --grid learning_rate=1e-4,3e-4,1e-3 --seed 100 --set split=validation
    python -m benchmark.sweep --reward hps --rates results/mini/tuning/rates.yaml --seed 0

On a CPU, two jobs of one thread each use two cores better than one job of two threads.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer
import yaml
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import methods

from .cell import finished
from .config import InputError, RunConfig, resolve, split_variant
from .reader import paired_scores
from .records import Summary, write_text
from .statistics import Interval, crossed_interval

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = Console(highlight=False)
if not console.is_terminal:
    console.width = 150  # a log file has no width of its own


@dataclasses.dataclass(frozen=True)
class Job:
    """A cell to run. ``variant``: the method and its options as asked for; ``point``: its place on the grid."""

    variant: str
    point: str
    config: RunConfig
    out: Path

    def command(self) -> list[str]:
        config = self.config
        line = [
            sys.executable, "-m", "benchmark.run", "--suite", config.suite, "--method", config.method,
            "--reward", config.reward, "--seed", str(config.seed), "--budget", config.budget,
            "--device", config.device, "--out", str(self.out),
        ]  # fmt: skip
        return line + [word for override in config.overrides() for word in ("--set", override)]

    def result(self) -> Summary | None:
        return finished(self.config.folder(self.out), self.config)


def run_jobs(jobs: list[Job], at_once: int) -> int:
    """Run the jobs that are not done, some at once; how many failed."""
    environment = os.environ | {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // at_once))}

    def launch(job: Job) -> subprocess.CompletedProcess:
        return subprocess.run(job.command(), env=environment, capture_output=True, text=True, check=False)

    todo, failed = [job for job in jobs if job.result() is None], 0
    with Progress(console=console) as progress, ThreadPoolExecutor(at_once) as pool:
        task = progress.add_task("cells", total=len(jobs), completed=len(jobs) - len(todo))
        running = {pool.submit(launch, job): job for job in todo}
        try:
            for future in as_completed(running):
                job, result = running[future], future.result()
                progress.advance(task)
                if result.returncode:
                    failed += 1
                    last = (result.stderr.strip() or result.stdout.strip()).splitlines()[-1:]
                    console.print(
                        f"{job.variant} {job.config.reward} seed {job.config.seed}: exit {result.returncode} {last}"
                    )
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)  # the running cells saw the interrupt too, and stop at a checkpoint
            raise
    return failed


def read_rates(path: Path) -> dict[str, dict[str, float]]:
    """Learning rates by reward and variant, as ``benchmark.tune`` writes them."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"--rates {path} is no YAML file ({type(error).__name__}); benchmark.tune makes it") from None
    if not isinstance(content, dict) or not all(isinstance(part, dict) for part in content.values()):
        raise InputError(f"--rates {path} is not a table reward -> method -> rate; benchmark.tune makes it")
    return content


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
        folders, split = [str(job.config.folder(job.out)) for job, _ in runs], runs[0][0].config.settings.split
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
    out: Annotated[Path, typer.Option(help="As of benchmark.run.")] = Path("runs"),
    rates: Annotated[Path | None, typer.Option(help="Learning rates that benchmark.tune wrote.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Also write the table to this file.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Cells at a time; the cores are shared among them.")] = 2,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the commands, and stop.")] = False,
) -> None:
    """Run every cell of methods x rewards x seeds x grid that is not done, and print a table."""
    points = [[]]
    for axis in grid or []:
        name, _, values = axis.partition("=")
        points = [[*point, f"{name}={value}"] for point in points for value in values.split(",")]
    cells = []
    try:
        tuned = None if rates is None else read_rates(rates)
        for m, r, point, s in itertools.product(method or methods.names(), reward or ["hps"], points, seed or [0]):
            name, options = split_variant(m)
            config = resolve(suite, name, r, s, budget, device, None, [*(set_ or []), *options, *point])
            if tuned is not None:
                try:
                    rate = tuned[config.reward][m]
                except KeyError:
                    raise InputError(f"{rates} has no rate for {m} on {config.reward}; run benchmark.tune") from None
                config = resolve(
                    suite, name, r, s, budget, device, None,
                    [*(set_ or []), *options, *point, f"learning_rate={rate}"],
                )  # fmt: skip
            if all(config != cell.config for cell in cells):
                cells.append(Job(m, ", ".join(point), config, out))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    if dry_run:
        for cell in cells:
            console.print(" ".join(shlex.quote(word) for word in cell.command()[1:]), soft_wrap=True)
        return
    failed = run_jobs(cells, jobs)
    frame = print_table(cells)
    if csv:
        write_text(csv, frame.to_csv(index=False, float_format="%.6g"))
    raise typer.Exit(bool(failed))


if __name__ == "__main__":
    app()
