"""Many cells of the benchmark, side by side: what is done is kept, the rest runs, a table at the end.

    python -m benchmark.sweep --method draft_k --method shortft --seed 0 --seed 1 --seed 2 --jobs 2
    python -m benchmark.sweep --grid learning_rate=1e-4,3e-4,1e-3 --seed 100 --set split=validation

On a CPU, two jobs of one thread each use two cores better than one job of two threads.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import methods

from .cell import finished
from .config import InputError, RunConfig, resolve
from .records import Summary

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = Console(highlight=False)
if not console.is_terminal:
    console.width = 150  # a log file has no width of its own


def command(config: RunConfig, overrides: list[str], out: Path) -> list[str]:
    """The command line of one cell."""
    return [
        sys.executable, "-m", "benchmark.run", "--suite", config.suite, "--method", config.method,
        "--reward", config.reward, "--seed", str(config.seed), "--budget", config.budget, "--device", config.device,
        "--out", str(out), *itertools.chain.from_iterable(("--set", o) for o in overrides),
    ]  # fmt: skip


def print_table(rows: list[tuple[str, RunConfig, Summary | None]]) -> None:
    """Mean over seeds and its standard error, per method, reward and grid point."""
    frame = pd.DataFrame(
        [
            {
                "method": config.method, "reward": config.reward, "point": point, "status": summary.status,
                "change": summary.reward_after - summary.reward_before,
                "oracle": summary.oracle_after - summary.oracle_before if summary.oracle_after is not None else None,
                "diversity": summary.diversity_after - summary.diversity_before,
                "steps": summary.steps, "seconds": summary.seconds, "forwards": summary.denoiser_forwards,
                "backwards": summary.denoiser_backwards,
            }
            for point, config, summary in rows
            if summary is not None and summary.reward_after is not None
        ]
    )  # fmt: skip
    if frame.empty:
        return
    table = Table(title="change on held-out prompts, mean over seeds ± standard error")
    for column in ("method", "reward", "setting", "seeds", "reward", "oracle", "diversity", "steps", "seconds"):
        table.add_column(column)
    for (method, reward, point), group in frame.groupby(["method", "reward", "point"], sort=False):
        error = group.sem(numeric_only=True) if len(group) > 1 else None
        cells = [
            f"{group[c].mean():+.4f}" + ("" if error is None else f" ± {error[c]:.4f}")
            for c in ("change", "oracle", "diversity")
        ]
        table.add_row(
            method, reward, point, str(len(group)), *cells, *(f"{group[c].mean():.0f}" for c in ("steps", "seconds"))
        )
    console.print(table)
    missing = sum(summary is None or summary.reward_after is None for _, _, summary in rows)
    if missing:
        console.print(f"[bold red]{missing} of {len(rows)} cells have no result")


@app.command()
def main(
    method: Annotated[list[str] | None, typer.Option(help="Repeat for several; all by default.")] = None,
    reward: Annotated[list[str] | None, typer.Option(help="Repeat for several; hps by default.")] = None,
    suite: Annotated[str, typer.Option()] = "mini",
    seed: Annotated[list[int] | None, typer.Option(help="Repeat for several; 0 by default.")] = None,
    budget: Annotated[str | None, typer.Option(help="As of benchmark.run.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="name=value, for every cell.")] = None,
    grid: Annotated[list[str] | None, typer.Option(help="name=v1,v2,...: one cell for each value.")] = None,
    device: Annotated[str, typer.Option()] = "cpu",
    out: Annotated[Path, typer.Option(help="As of benchmark.run.")] = Path("runs"),
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
        for m, r, point, s in itertools.product(method or methods.names(), reward or ["hps"], points, seed or [0]):
            overrides = [*(set_ or []), *point]
            config = resolve(suite, m, r, s, budget, device, None, overrides)
            if all(config != other for _, other, _ in cells):
                cells.append((", ".join(point), config, command(config, overrides, out)))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    if dry_run:
        for _, _, line in cells:
            console.print(" ".join(line[1:]))
        return
    environment = os.environ | {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // jobs))}

    def launch(line: list[str]) -> subprocess.CompletedProcess:
        return subprocess.run(line, env=environment, capture_output=True, text=True, check=False)

    todo = [cell for cell in cells if finished(cell[1].folder(out), cell[1]) is None]
    failed = 0
    with Progress(console=console) as progress, ThreadPoolExecutor(jobs) as pool:
        task = progress.add_task("cells", total=len(cells), completed=len(cells) - len(todo))
        running = {pool.submit(launch, line): config for _, config, line in todo}
        try:
            for future in as_completed(running):
                config, result = running[future], future.result()
                progress.advance(task)
                if result.returncode:
                    failed += 1
                    last = (result.stderr.strip() or result.stdout.strip()).splitlines()[-1:]
                    console.print(
                        f"{config.method} {config.reward} seed {config.seed}: exit {result.returncode} {last}"
                    )
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)  # the running cells saw the interrupt too, and stop at a checkpoint
            raise
    print_table([(point, config, finished(config.folder(out), config)) for point, config, _ in cells])
    raise typer.Exit(bool(failed))


if __name__ == "__main__":
    app()
