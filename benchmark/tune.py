"""Equal tuning: every method gets the same learning rates on the same prompts, seed and short budget, per reward.

    python -m benchmark.tune --reward hps --reward symmetry --jobs 2

Writes to OUT/<suite>/tuning: ``<reward>.csv``, the evidence, and ``rates.yaml``, the winners (reward -> method ->
rate), which ``benchmark.sweep --rates`` and the pipeline read. A winner is the rate with the highest mean of the target
reward over validation prompts, which are never reported, after the budget; a diverged run counts with its last finite
evaluation. Where some method's winner lies on the edge of the grid, the grid grows there for all methods.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
import yaml
from rich.console import Console
from rich.table import Table

import methods

from . import records
from .config import InputError, resolve, split_variant
from .sweep import Job, read_rates, run_jobs

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = Console(highlight=False)

LADDER = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
GRID = (1e-4, 3e-4, 1e-3)
SETTINGS = ("split=validation", "test_prompts=128", "curve_points=1")


def grown(grid: tuple[float, ...], winners: list[float]) -> tuple[float, ...]:
    """The grid, with the ladder's next rate on each side where a winner lies on its edge."""
    low, high = LADDER.index(grid[0]), LADDER.index(grid[-1])
    low -= grid[0] in winners and low > 0
    high += grid[-1] in winners and high < len(LADDER) - 1
    return LADDER[low : high + 1]


def evidence(jobs: list[Job]) -> pd.DataFrame:
    """One row per job: what it reached on the validation prompts."""
    rows = []
    for job in jobs:
        summary = job.result()
        rows.append(
            {"reward": job.config.reward, "method": job.variant, "learning_rate": job.config.settings.learning_rate,
             "status": summary.status if summary else "missing"}
            | {name: getattr(summary, name, None)
               for name in ("reward_before", "reward_after", "reward_se", "oracle_after", "steps", "operations")}
        )  # fmt: skip
    return pd.DataFrame(rows)


def winners(table: pd.DataFrame) -> dict[str, float]:
    """The best rate of every method of one reward; a method without any result has none."""
    scored = table.dropna(subset="reward_after")
    best = scored.loc[scored.groupby("method", sort=False).reward_after.idxmax()]
    return dict(zip(best.method, best.learning_rate, strict=True))


def print_table(table: pd.DataFrame, best: dict[str, float]) -> None:
    wide = table.pivot(index="method", columns="learning_rate", values="reward_after")
    shown = Table(title=f"{table.reward.iloc[0]} on validation prompts (base {table.reward_before.mean():.4f})")
    shown.add_column("method")
    for rate in wide.columns:
        shown.add_column(f"{rate:g}", justify="right")
    for name, row in wide.iterrows():
        shown.add_row(name, *(f"[bold]{v:.4f}" if best.get(name) == rate else f"{v:.4f}" for rate, v in row.items()))
    console.print(shown)


@app.command()
def main(
    method: Annotated[list[str] | None, typer.Option(help="Repeat for several, options after the name; all.")] = None,
    reward: Annotated[list[str] | None, typer.Option(help="Repeat for several; hps by default.")] = None,
    suite: Annotated[str, typer.Option(help="As of benchmark.run.")] = "mini",
    seed: Annotated[int, typer.Option(help="The tuning seed, used for nothing else.")] = 100,
    budget: Annotated[str, typer.Option(help="As of benchmark.run.")] = "5TFLOP",
    set_: Annotated[list[str] | None, typer.Option("--set", help="name=value, for every run.")] = None,
    grow: Annotated[int, typer.Option(min=0, help="How often the grid may grow.")] = 2,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    out: Annotated[Path, typer.Option(help="Evidence and winners go to OUT/<suite>/tuning.")] = Path("results"),
    runs: Annotated[Path, typer.Option(help="Where the runs themselves go.")] = Path("runs/tuning"),
    jobs: Annotated[int, typer.Option(min=1, help="Cells at a time; the cores are shared among them.")] = 2,
) -> None:
    """Find every method's learning rate, with as many tries for each. Interrupted, the same command goes on."""
    folder = out / suite / "tuning"
    grids: dict[str, tuple[float, ...]] = {}
    variants = method or methods.names()

    def jobs_of(reward: str, grid: tuple[float, ...]) -> list[Job]:
        made = []
        for variant in variants:
            name, options = split_variant(variant)
            for rate in grid:
                overrides = [*SETTINGS, *(set_ or []), *options, f"learning_rate={rate}"]
                config = resolve(suite, name, reward, seed, budget, device, None, overrides)
                made.append(Job(variant, f"learning_rate={rate}", config, runs))
        return made

    try:
        for name in reward or ["hps"]:
            grids[jobs_of(name, GRID[:1])[0].config.reward] = GRID
        previous = read_rates(folder / "rates.yaml") if (folder / "rates.yaml").exists() else {}
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    failed, tables, best = 0, {}, {}
    for growth in range(grow + 1):
        failed += run_jobs([job for name, grid in grids.items() for job in jobs_of(name, grid)], jobs)
        tables = {name: evidence(jobs_of(name, grid)) for name, grid in grids.items()}
        best = {name: winners(table) for name, table in tables.items()}
        wider = {name: grown(grid, list(best[name].values())) for name, grid in grids.items()}
        if wider == grids or growth == grow:
            break
        grids = wider
    for name, table in tables.items():
        print_table(table, best[name])
        records.write_text(folder / f"{records.file_name(name)}.csv", table.to_csv(index=False, float_format="%.6g"))
        previous[name] = previous.get(name, {}) | best[name]
        missing = set(variants) - set(best[name])
        if missing:
            console.print(f"[bold red]{name}: no result for {', '.join(sorted(missing))}")
    records.write_text(folder / "rates.yaml", yaml.safe_dump(previous, sort_keys=True))
    console.print(f"written to {folder}")
    raise typer.Exit(bool(failed))


if __name__ == "__main__":
    app()
