"""From any tree of run folders to pandas tables, without torch. A bad folder is left out and named with its problem.

runs, curves, problems = read_tree("results")
"""

import functools
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from pydantic import ValidationError

from .files import RECORD_VERSION, Summary, read_json

MARKS = ("run.json", "summary.json", "checkpoint.pt", "scores.csv")  # a folder with any of these is meant as a run


class Tables(NamedTuple):
    """What a tree holds.

    runs      one row per good run: folder, summary, settings (``settings.*``), options as JSON, other rewards
              (``heldout.<name>.before`` and ``.after``), ``combinations.*`` and ``training.*`` likewise
    curves    one row per evaluation along the budget of a good run that has one
    problems  folder and problem of what was left out
    """

    runs: pd.DataFrame
    curves: pd.DataFrame
    problems: pd.DataFrame


class BadRun(Exception):
    """What is wrong with a run's folder, in one line."""


def read_run(folder: Path) -> tuple[dict, pd.DataFrame | None]:
    """A run's row and curve; None for the curve of a run that has not been evaluated. Raises BadRun."""
    record, content = (read_json(folder / name) for name in ("run.json", "summary.json"))
    if record is None:
        raise BadRun("run.json is missing or no JSON object")
    if content is None:
        raise BadRun("summary.json is missing or no JSON object: the run has not ended")
    if content.get("record_version") != RECORD_VERSION:
        raise BadRun(f"summary.json has record version {content.get('record_version')}, expected {RECORD_VERSION}")
    try:
        summary = Summary.model_validate(content)
        config = dict(record["config"])
        settings, options = dict(config["settings"]), dict(config["options"])
    except ValidationError as error:
        first = error.errors()[0]
        raise BadRun(f"summary.json: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except (KeyError, TypeError, ValueError) as error:
        raise BadRun(f"run.json has no whole configuration ({type(error).__name__}: {error})") from None
    if summary.random_weights:
        raise BadRun("its models have random weights: it proves that things work, and is no result")
    for name in ("suite", "method", "reward", "seed", "budget"):
        if config.get(name) != getattr(summary, name):
            raise BadRun(f"run.json is of {name} {config.get(name)!r}, summary.json of {getattr(summary, name)!r}")
    curve = None
    if summary.reward_after is not None:
        scores = read_scores(folder)
        check_scores(scores, summary, settings)
        curve = read_csv(folder / "curve.csv", ["share", "step", "operations", summary.reward])
        if len(curve) < 2:
            raise BadRun("curve.csv has a single evaluation")
    row = {"folder": str(folder), "protocol": record.get("protocol"), "weights": record.get("weights")}
    row |= summary.model_dump(exclude={"heldout", "combinations", "training", "prior_seconds"})
    row |= {"options": json.dumps(options, sort_keys=True), "device": config.get("device")}
    row |= {f"settings.{name}": value for name, value in settings.items()}
    row["few_step"] = "shortcut" in summary.prior_seconds if summary.prior_seconds else None  # took part in the run
    row["prior_seconds"] = sum(summary.prior_seconds.values())
    row["few_step_seconds"] = summary.prior_seconds.get("shortcut", 0.0) if summary.prior_seconds else np.nan
    for kind in ("heldout", "combinations", "training"):
        for name, (before, after) in getattr(summary, kind).items():
            row |= {f"{kind}.{name}.before": before, f"{kind}.{name}.after": after}
    row["evaluated"] = None if curve is None else evaluated(scores)
    return row, curve


def read_csv(path: Path, numbers: Iterable[str], texts: Iterable[str] = ()) -> pd.DataFrame:
    """A table with at least these columns of numbers (NaN is one) and of texts; BadRun where it is not."""
    try:
        table = pd.read_csv(path, dtype=dict.fromkeys(texts, str))
    except FileNotFoundError:
        raise BadRun(f"{path.name} is missing") from None
    except (OSError, ValueError, UnicodeDecodeError) as error:  # pandas' parser errors are ValueErrors
        line = str(error).partition("\n")[0]
        raise BadRun(f"{path.name} cannot be read: {line}") from None
    check_columns(table, path.name, numbers, texts)
    return table


def check_columns(table: pd.DataFrame, name: str, numbers: Iterable[str], texts: Iterable[str] = ()) -> None:
    """A file's table must have rows, and these columns. Raises BadRun."""
    if missing := [column for column in (*texts, *numbers) if column not in table]:
        raise BadRun(f"{name} lacks the column {missing[0]!r}")
    if table.empty:
        raise BadRun(f"{name} has no rows")
    for column in numbers:
        if not pd.api.types.is_numeric_dtype(table[column]):
            raise BadRun(f"{name} has something else than numbers in the column {column!r}")


Scores = dict[tuple[str, str], pd.DataFrame]  # a run's scores.csv by split and when, which is before or after


def read_scores(folder: Path) -> Scores:
    """The scores of a run's images. Tables, verdicts and figures ask for them again and again. Raises BadRun."""
    path = folder / "scores.csv"
    return _scores(path, path.stat().st_mtime_ns if path.exists() else 0)


@functools.lru_cache(maxsize=1024)
def _scores(path: Path, changed: int) -> Scores:
    """The file as it was at ``changed``."""
    parts = read_csv(path, [], ("split", "prompt", "when")).groupby(["split", "when"], sort=False)
    return {key: rows.reset_index(drop=True) for key, rows in parts}


def check_scores(scores: Scores, summary: Summary, settings: dict) -> None:
    """The images' scores must be those that the summary speaks of. Raises BadRun."""
    oracle = ["oracle"] * (summary.oracle_after is not None)
    for rows in scores.values():
        check_columns(rows, "scores.csv", [summary.reward, *oracle])
    for when, value in (("before", summary.reward_before), ("after", summary.reward_after)):
        rows = scores.get((settings.get("split"), when))
        if rows is None or not np.isclose(rows[summary.reward].mean(), value, rtol=1e-4, atol=1e-4):
            raise BadRun(f"scores.csv does not give summary.json's reward_{when} = {value:g}")
    splits = dict.fromkeys(split for split, _ in scores)
    for split, has in (("combinations", summary.combinations), ("train", summary.training)):
        if has and split not in splits:
            raise BadRun(f"scores.csv has no images of the split {split!r}, of which summary.json speaks")
    for split in splits:
        before, after = (scores.get((split, when)) for when in ("before", "after"))
        if before is None or after is None or not before.prompt.equals(after.prompt):
            raise BadRun(f"scores.csv has other prompts after tuning than before, split {split!r}")


def evaluated(scores: Scores) -> str:
    """A hash of the prompts of every split: what is compared prompt by prompt has to agree in it."""
    prompts = [(split, rows.prompt.tolist()) for (split, when), rows in scores.items() if when == "before"]
    return hashlib.sha256(repr(prompts).encode()).hexdigest()[:16]


def read_tree(root: str | Path) -> Tables:
    """Every run below ``root``, in the order of their folders' names."""
    root, rows, curves, problems = Path(root), [], [], []
    folders = sorted({path.parent for mark in MARKS for path in root.rglob(mark)})
    for folder in folders:
        try:
            row, curve = read_run(folder)
        except BadRun as problem:
            problems.append({"folder": str(folder), "problem": str(problem)})
            continue
        rows.append(row)
        if curve is not None:
            names = ("folder", "suite", "method", "reward", "seed", "options")
            curves.append(curve.assign(**{name: row[name] for name in names}))
    found = pd.concat(curves, ignore_index=True) if curves else pd.DataFrame()
    runs = pd.DataFrame(rows, columns=None if rows else ["folder"])
    return Tables(runs, found, pd.DataFrame(problems, columns=["folder", "problem"]))


def paired_scores(folders: list[str], column: str, split: str) -> np.ndarray:
    """Change of a score from before to after tuning, (runs, prompts); the runs must have the same prompts."""
    changes, prompts = [], None
    for folder in folders:
        scores = read_scores(Path(folder))
        before, after = (scores[split, when] for when in ("before", "after"))
        prompts = before.prompt if prompts is None else prompts
        if not after.prompt.equals(prompts):
            raise ValueError(f"{folder} was evaluated on other prompts than {folders[0]}")
        changes.append((after[column] - before[column]).to_numpy())
    return np.array(changes)
