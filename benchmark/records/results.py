"""Everything below ``results/`` that tables, figures, verdicts and report are made of, read once. No torch.

results = Results.read(Path("results"), Profile.read(Path("params.yaml")), "mini")

Nothing here raises over a missing or broken part: what is not there is None or missing from a table, and what was left
out is listed in ``problems``.
"""

import dataclasses
import json
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd

from ..statistics import Efficiency, Reached, crossed_interval, time_to_target
from .files import file_name, read_json
from .profile import CellKey, Profile, ProfileError, rate_file, read_rates
from .protocol import PROTOCOL_VERSION
from .reader import BadRun, paired_scores, read_csv, read_tree

GPU_COLUMNS = {"variant", "batch", "seconds", "images_per_second", "peak_mb", "ratio", "share"}
EARLIER = {"fidelity": "shortcut", "placement": "acting"}  # names of the probes' folders in older trees
COST_COLUMNS = ("forwards", "backwards", "recomputations", "operations", "seconds", "ratio", "peak_mb", "step_mb")


def rates(root: Path, suite: str, reward: str) -> dict[str, float]:
    """Tuned learning rates by variant, as far as there are any."""
    try:
        return read_rates(rate_file(root, suite, reward))
    except ProfileError:
        return {}


def foreign(run: dict, key: CellKey, profile: Profile, tuned: dict[str, dict[str, float]]) -> str:
    """Why a run is not the cell of the profile that its folder says; empty where it is.

    tuned: learning rate by variant, by reward.
    """
    expected = key._asdict() | {"method": profile.method(key.variant), "budget": profile.budget}
    expected["protocol"] = PROTOCOL_VERSION
    for name in ("suite", "method", "reward", "seed", "budget", "protocol"):
        if run[name] != (value := expected[name]):
            return f"is of {name} {run[name]}, its place in the profile of {value}"
    options = json.loads(run["options"])
    chosen = profile.settings | profile.variants.get(key.variant, {})
    if key.variant in tuned[key.reward]:
        chosen = chosen | {"learning_rate": tuned[key.reward][key.variant]}
    for name, value in chosen.items():
        found = options.get(name, run.get(f"settings.{name}"))
        if name != "method" and found != value and json.dumps(found) != json.dumps(value):
            return f"has {name} = {found}, the profile {value}"
    if run["status"] not in ("done", "diverged"):
        return f"has ended as {run['status']}: the same command goes on with it"
    return ""


def odd_ones(runs: pd.DataFrame) -> dict[str, str]:
    """Runs that differ, from most runs of their reward, in what has to be the same for a comparison.

    The weights' fingerprint covers the few-step model where a run has used it, so those runs are a group of their own;
    where it is not known (Stable Diffusion) the runs of a variant are.
    """
    found = {}
    said = {"weights": "was made with other weights", "evaluated": "was evaluated on other prompts"}
    for name, *by in (("weights", "reward", "few_step"), ("weights", "reward", "variant"), ("evaluated", "reward")):
        for _, group in runs.groupby(by) if len(runs) else []:
            counts = group[name].value_counts()
            if len(counts) > 1 and counts.iloc[0] > counts.sum() / 2:
                odd = group.folder[group[name].notna() & (group[name] != counts.index[0])]
                found |= dict.fromkeys(odd, f"{said[name]} than most runs of its reward")
    return found


def arrivals(curves: pd.DataFrame, reward: str, target: float) -> list[tuple[pd.DataFrame, Reached]]:
    """Every run of some curves, and where along its compute it has a mean reward."""
    runs = [run.sort_values("share") for _, run in curves.groupby("folder")]
    return [(run, time_to_target(run.operations.to_numpy(), run[reward].to_numpy(), target)) for run in runs]


@dataclasses.dataclass(eq=False)  # records are themselves: they can be the key of a cache
class Results:
    """The records of one suite.

    runs      one row per good run of the profile's matrix (``reader.read_tree``), with ``variant`` and ``stage``
    curves    one row per evaluation along the budget of these runs, with ``variant``
    problems  folder and problem: broken runs, and folders that are no cell of the profile
    missing   cells of the profile without a good run
    """

    root: Path
    profile: Profile
    suite: str
    runs: pd.DataFrame
    curves: pd.DataFrame
    problems: pd.DataFrame
    missing: list[CellKey]

    @classmethod
    def read(cls, root: Path, profile: Profile, suite: str) -> Self:
        cells = {str(key.folder(root)): key for key in profile.cells() if key.suite == suite}
        runs, curves, problems = read_tree(root / suite)
        rows = problems.to_dict("records")
        known = runs.folder.isin(cells)
        rows += [{"folder": folder, "problem": "no cell of the profile"} for folder in runs.folder[~known]]
        runs = runs[known].reset_index(drop=True)
        runs["variant"] = [cells[folder].variant for folder in runs.folder]
        runs["stage"] = [cells[folder].stage for folder in runs.folder]
        tuned = {reward: rates(root, suite, reward) for reward in {key.reward for key in cells.values()}}
        wrong = {row["folder"]: foreign(row, cells[row["folder"]], profile, tuned) for row in runs.to_dict("records")}
        wrong |= {folder: problem for folder, problem in odd_ones(runs).items() if not wrong[folder]}
        rows += [{"folder": folder, "problem": problem} for folder, problem in wrong.items() if problem]
        runs = runs[np.array([not wrong[folder] for folder in runs.folder], bool)].reset_index(drop=True)
        found = dict(zip(runs.folder, runs.variant, strict=True))
        if len(curves):
            curves = curves[curves.folder.isin(found)].assign(variant=lambda table: table.folder.map(found))
        problems = pd.DataFrame(rows, columns=["folder", "problem"])
        missing = [key for folder, key in cells.items() if folder not in found]
        results = cls(root, profile, suite, runs, curves.reset_index(drop=True), problems, missing)
        _ = results.gradients, results.cost  # so that what is wrong with the probes is listed from the start
        for spacing in profile.fidelity.spacings:
            _ = results.jumps(spacing), results.images(spacing)
        for reward in results.rewards():
            results.placement(reward)
        return results

    # -- the matrix

    @cached_property
    def cells(self) -> list[CellKey]:
        """The suite's cells in the order of the profile's groups."""
        groups = list(self.profile.groups)
        found = sorted(self.profile.cells(), key=lambda key: groups.index(key.stage.split("@")[0]))
        return [key for key in found if key.suite == self.suite]

    def variants(self) -> list[str]:
        """Rows of the tables, in the order of the profile."""
        return list(dict.fromkeys(key.variant for key in self.cells))

    def rewards(self) -> list[str]:
        return list(dict.fromkeys(key.reward for key in self.cells))

    def of(self, variant: str, reward: str) -> pd.DataFrame:
        """Evaluated runs of a variant on a reward, by seed."""
        if self.runs.empty:
            return self.runs
        return self._evaluated.get((variant, reward), self.runs[:0])

    @cached_property
    def _evaluated(self) -> dict[tuple[str, str], pd.DataFrame]:
        runs = self.runs[self.runs.reward_after.notna()].sort_values("seed")
        return {key: rows.reset_index(drop=True) for key, rows in runs.groupby(["variant", "reward"])}

    def expected(self, variant: str, reward: str) -> list[int]:
        """The seeds that the profile has of a variant on a reward."""
        return sorted(key.seed for key in self.cells if (key.variant, key.reward) == (variant, reward))

    def gains(self, variant: str, reward: str, column: str | None = None, split: str = "test") -> np.ndarray | None:
        """Changes of a score (the target reward) on a split's prompts, (seeds, prompts).

        None without any run, and where the suite has no such score or split.
        """
        runs = self.of(variant, reward)
        try:
            return None if runs.empty else paired_scores(list(runs.folder), column or reward, split)
        except KeyError:
            return None

    def paired(self, of: str, over: str, reward: str, column: str | None = None) -> np.ndarray | None:
        """Gains of one variant less those of another on the seeds that both have, (seeds, prompts); None without any.

        Both start from the same base model and noise, so this is the difference of their final scores too. ``column``:
        of another score than the target reward.
        """
        pair = [self.of(variant, reward) for variant in (of, over)]
        if not all(map(len, pair)) or not (common := set(pair[0].seed) & set(pair[1].seed)):
            return None
        folders = [list(runs.folder[runs.seed.isin(common)]) for runs in pair]
        try:
            ours, theirs = (paired_scores(group, column or reward, "test") for group in folders)
        except KeyError:
            return None
        return ours - theirs if ours.shape == theirs.shape else None

    def curve(self, variant: str, reward: str) -> pd.DataFrame:
        """Evaluations along the budget of all runs of a variant on a reward."""
        if self.curves.empty:
            return self.curves
        return self.curves[(self.curves.variant == variant) & (self.curves.reward == reward)]

    def efficiency(self, of: str, over: str, reward: str) -> Efficiency | None:
        """Who gets how soon to where the other ends; None where one of them has no run."""
        ours, theirs = self.curve(of, reward), self.curve(over, reward)
        if ours.empty or theirs.empty:
            return None
        ends = theirs[theirs.share == theirs.share.max()]
        target, whole = ends[reward].mean(), ends.operations.mean()
        needs = [reached for _, reached in arrivals(ours, reward, target)]
        # A run that diverged early and never got there would not have got there cheaply.
        costs, before = (np.array([max(r[i], whole) if r.censored else r[i] for r in needs], float) for i in (0, 1))
        with np.errstate(divide="ignore"):
            ratios, upper = whole / costs, whole / before
        own = [1.0 if reached.censored else reached.cost / whole for _, reached in arrivals(theirs, reward, target)]
        gains = self.gains(over, reward)
        gained = gains is not None and crossed_interval(gains).low > 0
        return Efficiency(ratios, upper, np.array([r.censored for r in needs]), np.array(own), gained)

    # -- the probes; None where they were not made

    def file(self, *path: str) -> Path:
        """Where a probe's file lies; in older trees in a folder of another name."""
        folder, file = self.root / self.suite, self.root.joinpath(self.suite, *path)
        return file if file.exists() else folder.joinpath(EARLIER.get(path[0], path[0]), *path[1:])

    def _table(self, file: Path, about: str, texts: str, numbers: str = "", intervals: str = "") -> pd.DataFrame | None:
        """A probe's table with at least these columns; ``about``: the record beside it that says how it was made."""
        if not file.exists() or (read_json(file.parent / f"{about}.json") or {}).get("random_weights"):
            return None  # of models with random weights: no result
        ends = [name + end for name in intervals.split() for end in ("", "_low", "_high")]
        try:
            return read_csv(file, [*numbers.split(), *ends], texts.split())
        except BadRun as problem:
            self._leave_out(file, str(problem))
            return None

    def _leave_out(self, file: Path, problem: str) -> None:
        if str(file) not in set(self.problems.folder):
            self.problems.loc[len(self.problems)] = [str(file), problem]

    @cached_property
    def gradients(self) -> pd.DataFrame | None:
        """Norm, variance and direction of gradient estimates (``benchmark.gradients``) on the profile's reward."""
        name, measured = file_name(self.profile.gradients.reward), "norm normalised_variance cosine"
        file = self.file("gradients", f"{name}.csv")
        return self._table(file, name, "method slot", "reference_step progress", measured)

    def jumps(self, spacing: str = "leading") -> pd.DataFrame | None:
        """Errors of the few-step model's jumps and of naive ones (``benchmark.fidelity``)."""
        file = self.file("fidelity", f"jumps-{spacing}.csv")
        return self._table(file, spacing, "stretch", intervals="shortcut naive ratio")

    def images(self, spacing: str = "leading") -> pd.DataFrame | None:
        """Rewards of images of shortened chains (``benchmark.fidelity``)."""
        file = self.file("fidelity", f"images-{spacing}.csv")
        return self._table(file, spacing, "chain reward", "error mean", "change absolute_change")

    def placement(self, reward: str) -> pd.DataFrame | None:
        """Gains of tuned LoRAs that are on at some steps of the sampler alone (``benchmark.placement``)."""
        name = file_name(reward)
        return self._table(self.file("placement", f"{name}.csv"), name, "variant steps", intervals="gain")

    @cached_property
    def about(self) -> dict:
        """Titles of suite, methods and rewards, and the methods' plans, as far as ``benchmark.about`` was run."""
        content = read_json(self.root / self.suite / "about.json") or {}
        return {name: part for name, part in content.items() if isinstance(part, dict)}

    @cached_property
    def cost(self) -> pd.DataFrame | None:
        """One row per method and its options: what a step costs (``benchmark.cost``), alone on the machine."""
        file = self.root / self.suite / "cost.json"
        if not file.exists():
            return None
        rows = (read_json(file) or {}).get("methods")
        whole = isinstance(rows, dict) and all(
            isinstance(row, dict) and all(isinstance(row.get(name), int | float) for name in COST_COLUMNS)
            for row in rows.values()
        )
        if not whole:
            self._leave_out(file, f"is no record of the cost benchmark, with {', '.join(COST_COLUMNS)} of each method")
            return None
        return pd.DataFrame([{"method": name} | row for name, row in rows.items()])

    @cached_property
    def gpu(self) -> pd.DataFrame:
        """One row per GPU, method and batch at Stable Diffusion 1.5's shape (``benchmark.gpu``), not narrow ones.

        ``fits``: whether it does into the GPU's memory; where not, nothing else is known.
        """
        rows = []
        for path in sorted((self.root / "gpu").glob("*.json")):
            content = read_json(path) or {}
            if content.get("narrow") is False and isinstance(content.get("rows"), list):
                about = {"device": (content.get("environment") or {}).get("device"), "pixels": content.get("pixels")}
                rows += [about | row | {"fits": True} for row in content["rows"] if row.keys() >= GPU_COLUMNS]
                rows += [about | {"variant": v, "batch": b, "fits": False} for v, b in content.get("out_of_memory", [])]
        frame = pd.DataFrame(rows)  # a part of a record may say again what the whole, which comes after it, says
        return frame if frame.empty else frame.drop_duplicates(["device", "pixels", "variant", "batch"], keep="last")

    def seconds_per_operation(self, variant: str) -> float | None:
        """Speed of a method's step in the cost benchmark, alone on the machine; None where it has none.

        The benchmark times one kind of step; those of a run may cost more (ShortFT's later stages do), so the seconds
        of runs are their operations at this speed.
        """
        rows = self.cost[self.cost.method == variant] if self.cost is not None else ()
        return float(rows.seconds.iloc[0] / rows.operations.iloc[0]) if len(rows) else None

    def rates(self, reward: str) -> dict[str, float]:
        return rates(self.root, self.suite, reward)
