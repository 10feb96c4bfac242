"""Equal tuning: every variant gets the same learning rates on the same prompts, seed and short budget, per reward.

    python -m benchmark.tune --params params.yaml --reward hps --jobs 2

Rates, seed, budget and prompts are the profile's (``tuning``). Writes to OUT/<suite>/tuning, per reward:
``<reward>.csv``, the evidence, and ``<reward>.yaml``, the winners (variant -> rate), which the matrix reads. A winner
is the rate with the highest mean of the target reward over validation prompts, which are never reported, after the
budget; one at which the run diverged wins only where it did at all. Where a variant's winner lies on the edge of what
it tried, it also tries the next rate there: the same rule, and the same number of growths at most, for all.

What the evidence has of the same code and settings is not run again, so a changed method costs its own runs only.
"""

import hashlib
import json
from pathlib import Path
from typing import Annotated

import pandas as pd
import yaml
from typer import Option

from . import records
from .cli import Device, Jobs, Params, RewardNames, SuiteName, Variants, command, console, show
from .config import RunConfig, resolve, split_variant
from .errors import InputError
from .records.profile import Profile, rate_file, read_rates
from .training.identity import identity
from .training.jobs import Job, run_jobs

LADDER = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
Grid = tuple[float, ...]


def grown(grid: Grid, winner: float | None) -> Grid:
    """The grid, with the ladder's next rate where the winner lies on its edge."""
    low, high = LADDER.index(grid[0]), LADDER.index(grid[-1])
    low -= winner == grid[0] and low > 0
    high += winner == grid[-1] and high < len(LADDER) - 1
    return LADDER[low : high + 1]


def fingerprint(config: RunConfig, **earlier: str) -> str:
    """What a row of the evidence belongs to: all that decides a run's numbers. earlier: parts as they once were."""
    decisive = {part: value for part, value in (identity(config) | earlier).items() if part != "code"}
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]


def tried_with(profile: Profile, suite: str, reward: str, variant: str, rate: float, device: str) -> RunConfig:
    """The run that says how good a rate is: on the tuning seed, validation prompts, the tuning budget."""
    (base, options), tuning = split_variant(variant), profile.tuning
    overrides = [*profile.overrides(base), *options, "split=validation", "curve_points=1"]
    overrides += [f"test_prompts={tuning.prompts}", f"learning_rate={rate}"]
    return resolve(suite, profile.method(base), reward, tuning.seed, tuning.budget, device, None, overrides)


class Evidence:
    """One row per run that was tried for a reward of a suite: what it reached on the validation prompts."""

    def __init__(self, path: Path):
        found = pd.read_csv(path).to_dict("records") if path.exists() else []
        self.path, self.rows = path, {row["fingerprint"]: row for row in found}

    def add(self, job: Job, jobs: list[Job]) -> None:
        """Enter a run that is done, and write what there is of ``jobs``: an interrupted tuning loses nothing."""
        config, summary = job.config, job.result()
        row = {"reward": config.reward, "variant": job.variant, "learning_rate": config.settings.learning_rate}
        names = ("status", "reward_before", "reward_after", "reward_se", "oracle_after", "steps", "operations")
        row |= {name: getattr(summary, name) for name in names}
        self.rows[fingerprint(config)] = row | {"fingerprint": fingerprint(config)}
        self.write(jobs)

    def of(self, jobs: list[Job]) -> pd.DataFrame:
        """The rows of these jobs that are there."""
        prints = [fingerprint(job.config) for job in jobs]
        return pd.DataFrame([self.rows[key] for key in prints if key in self.rows])

    def write(self, jobs: list[Job]) -> None:
        """Keep these jobs' rows and those of other variants; what other code or settings made of these is dropped."""
        ours = {job.variant for job in jobs}
        others = pd.DataFrame([row for row in self.rows.values() if row["variant"] not in ours])
        records.write_table(self.path, pd.concat([self.of(jobs), others]))


def winners(table: pd.DataFrame) -> dict[str, float]:
    """The best rate of every variant of one reward; one without any result has none."""
    if table.empty or table.reward_after.isna().all():
        return {}
    scored = table.dropna(subset="reward_after")
    sound = scored[scored.status == "done"]  # a diverged run's reward is an earlier one
    scored = pd.concat([sound, scored[~scored.variant.isin(sound.variant)]])
    best = scored.loc[scored.groupby("variant", sort=False).reward_after.idxmax()]
    return dict(zip(best.variant, best.learning_rate.astype(float), strict=True))


def print_table(table: pd.DataFrame, best: dict[str, float], title: str) -> None:
    wide = table.pivot(index="variant", columns="learning_rate", values="reward_after").rename(columns="{:g}".format)
    shown = wide.assign(winner=[f"{best[name]:g}" if name in best else "" for name in wide.index]).reset_index()
    title = f"{title} on validation prompts (base {table.reward_before.mean():.4f})"
    show(title, shown, dict.fromkeys(wide.columns, ".4f"))


@command
def main(
    params: Params = Path("params.yaml"),
    reward: RewardNames = None,
    method: Variants = None,
    suite: SuiteName = "mini",
    device: Device = "cpu",
    out: Annotated[Path, Option(help="Evidence and winners go to OUT/<suite>/tuning.")] = Path("results"),
    runs: Annotated[Path, Option(help="Where the runs themselves go.")] = Path("runs/tuning"),
    jobs: Jobs = 2,
) -> int:
    """Find every variant's learning rate, by one rule for all. Interrupted, the same command goes on."""

    def jobs_of(name: str) -> list[Job]:
        return [
            Job(variant, tried_with(profile, suite, name, variant, rate, device), runs, f"learning_rate={rate}")
            for variant, grid in grids[name].items()
            for rate in grid
        ]

    profile = Profile.read(params)
    tuning = profile.tuning
    if any(rate not in LADDER for rate in tuning.rates) or sorted(tuning.rates) != tuning.rates:
        raise InputError(f"{params}: tuning.rates must ascend and be among {', '.join(map(str, LADDER))}")
    names = reward or list(dict.fromkeys(key.reward for key in profile.cells() if key.suite == suite))
    if not names:
        raise InputError(f"{params} has no cells of suite {suite}; its suites: {', '.join(profile.suites)}")
    grids = {name: dict.fromkeys(method or profile.tuned(name), tuple(tuning.rates)) for name in names}
    for name in names:
        if not (tried := jobs_of(name)):
            raise InputError(f"{params} has no cell with reward {name}; name a --method to tune for it")
        if tried[0].config.build_suite().random_weights:
            raise InputError(f"suite {suite} has random weights here: there is nothing to tune")
    folder = out / suite / "tuning"
    evidence = {name: Evidence(folder / f"{records.file_name(name)}.csv") for name in names}
    failed = 0
    for growth in range(tuning.growths + 1):
        tried = {name: jobs_of(name) for name in names}
        todo = [job for name in names for job in tried[name] if fingerprint(job.config) not in evidence[name].rows]

        def enter(job: Job, tried: dict[str, list[Job]] = tried) -> None:
            (name,) = (name for name in names if job in tried[name])
            evidence[name].add(job, tried[name])

        failed += run_jobs(todo, jobs, enter)
        best = {name: winners(evidence[name].of(tried[name])) for name in names}
        wider = {name: {v: grown(grid, best[name].get(v)) for v, grid in grids[name].items()} for name in names}
        if wider == grids or growth == tuning.growths:
            break
        grids = wider
    for name in names:
        evidence[name].write(tried[name])
        table, ours = evidence[name].of(tried[name]), set(grids[name])
        if len(table):
            print_table(table, best[name], name)
        path = rate_file(out, suite, name)
        others = {v: rate for v, rate in (read_rates(path) if path.exists() else {}).items() if v not in ours}
        records.write_text(path, yaml.safe_dump(others | best[name], sort_keys=True))
        missing = sorted(ours - set(best[name]))
        if missing:
            console.print(f"[bold red]{name}: no result for {', '.join(missing)}")
    console.print(f"written to {folder}")
    return int(bool(failed))


if __name__ == "__main__":
    main()
