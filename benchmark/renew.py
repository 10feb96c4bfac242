"""Renew what records belong to, after a change of code that moved no number, and prove that it moved none.

    OMP_NUM_THREADS=1 python -m benchmark.renew --reward hps

Of every row and reward of the profile whose records are of other code or weights than today's, today's code scores
images of the base model and takes the first steps of one recorded run again. Where prompts, scores and the log are the
recorded ones (counts to the number, the rest to rounding), the records of all its seeds and its tuning evidence get
today's hashes. The evidence goes to OUT/<suite>/renewed/<reward>.csv. What differs is left as it was and named, with
exit code 1: raise PROTOCOL_VERSION, or find out why. Another protocol's or profile's records are not looked at.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
from rich.progress import track
from typer import Option

from . import records
from .cli import Params, Records, RewardNames, SuiteName, command, console
from .config import RunConfig, resolve_cell
from .diffusion import sampler_plan
from .errors import InputError
from .records.profile import Profile
from .training.evaluation import score
from .training.identity import changed, identity
from .training.workbench import Workbench
from .tune import Evidence, fingerprint, tried_with

RENEWED = ("method", "weights", "prompts")  # parts of an identity that code alone may change
COUNTS, NUMBERS = ["step", "operations", "images"], ["reward", "grad_norm"]
TOLERANCE = 1e-3  # what another processor's rounding does in a step or two


def difference(again: pd.DataFrame, before: pd.DataFrame) -> float:
    """The largest difference of numbers, relative where they are larger than 1."""
    a, b = again.to_numpy(float), before[again.columns].to_numpy(float)
    return float(np.max(np.abs(a - b) / np.maximum(np.abs(b), 1)))


def replay(config: RunConfig, folder: Path, steps: int, images: int = 16) -> tuple[float, float]:
    """Differences to a run's records: of the base model's first scores, and of the first steps' rewards and norms.

    Infinite where prompts or counts differ.
    """
    bench, log, scores = Workbench(config), pd.read_csv(folder / "log.csv"), pd.read_csv(folder / "scores.csv")
    before = scores[(scores.when == "before") & (scores.split == config.settings.split)][:images]
    trainer, texts = bench.trainer, bench.suite.prompts(config.settings.split, len(before))
    if texts != list(before.prompt):
        return float("inf"), float("inf")
    rewards = [name for name in before.columns[2:-1] if name != "oracle"]
    base = sampler_plan(bench.executor.timesteps, lambda t: ())
    with bench.executor.ledger.paused():
        _, found = score(bench, base, rewards, texts)
    rows = [row for row, _ in zip(trainer.steps(), range(min(steps, len(log))), strict=False)]
    again, log = pd.DataFrame(rows), log[: len(rows)]
    same = (again[COUNTS].to_numpy() == log[COUNTS].to_numpy()).all()
    return difference(pd.DataFrame(found), before), difference(again[NUMBERS], log) if same else float("inf")


def stale(profile: Profile, root: Path, suite: str, reward: str) -> dict[str, list[tuple[Path, dict, RunConfig]]]:
    """Finished records of a reward that only code or weights keep from being today's, by row: folder, record, run."""
    found: dict[str, list] = {}
    for key in profile.cells():
        if (key.suite, key.reward) != (suite, reward):
            continue
        config, folder = resolve_cell(profile, suite, key.variant, reward, key.seed, "cpu", root)
        record, parts = records.read_json(folder / "run.json"), []
        if record and (folder / "log.csv").exists():
            parts = changed(record, identity(config))
        if parts and set(parts) <= set(RENEWED):
            found.setdefault(key.variant, []).append((folder, record, config))
    return found


def renew_evidence(path: Path, profile: Profile, suite: str, reward: str, variant: str, earlier: dict) -> int:
    """Give the tuning evidence of a row today's fingerprints, where it has those of ``earlier``; how many it were."""
    evidence, count = Evidence(path), 0
    for old, row in evidence.rows.items():
        if row["variant"] != variant:
            continue
        config = tried_with(profile, suite, reward, variant, row["learning_rate"], "cpu")
        if old == fingerprint(config, **earlier):
            evidence.rows[old] = row | {"fingerprint": fingerprint(config)}
            count += 1
    if count:
        records.write_table(path, pd.DataFrame(list(evidence.rows.values())))
    return count


@command
def main(
    params: Params = Path("params.yaml"),
    suite: SuiteName = "mini",
    reward: RewardNames = None,
    steps: Annotated[int, Option(min=1, help="Steps of a run that are taken again.")] = 2,
    out: Records = Path("results"),
) -> int:
    """Prove that today's code gives the recorded numbers, and let the records say so."""
    profile, failed = Profile.read(params), []
    for name in reward or profile.rewards:
        if name not in profile.rewards:
            raise InputError(f"{params} has no cell with reward {name}; its rewards: {', '.join(profile.rewards)}")
        rows, table = [], out / suite / "renewed" / f"{records.file_name(name)}.csv"
        earlier_rows = pd.read_csv(table) if table.exists() else pd.DataFrame()
        for variant, runs in track(stale(profile, out, suite, name).items(), description=name, console=console):
            folder, record, config = runs[0]
            scores, log = replay(config, folder, steps)
            if not max(scores, log) <= TOLERANCE:
                failed.append(f"{variant} on {name}: scores differ by {scores:.2g}, the first steps by {log:.2g}")
                continue
            now, earlier = identity(config), {part: record[part] for part in RENEWED}
            evidence = out / suite / "tuning" / f"{records.file_name(name)}.csv"
            tries = renew_evidence(evidence, profile, suite, name, variant, earlier) if evidence.exists() else 0
            for place, there, _ in runs:  # seeds differ in their configurations, which stay
                records.write_json(place / "run.json", there | {part: now[part] for part in RENEWED})
            row = {"variant": variant, "seed": config.seed, "steps": steps, "scores_differ": scores, "log_differs": log}
            row |= {"runs": len(runs), "tries": tries, "method_before": record["method"], "method": now["method"]}
            rows.append(row | {"weights_before": record["weights"], "weights": now["weights"]})
            whole = pd.concat([earlier_rows, pd.DataFrame(rows)])
            records.write_table(table, whole, "%.3g")
        console.print(f"{name}: renewed {sum(row['runs'] for row in rows)} runs of {len(rows)} rows")
    for line in failed:
        console.print(line)
    return int(bool(failed))


if __name__ == "__main__":
    main()
