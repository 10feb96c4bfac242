"""Verdicts on the claims of ``claims.yaml``, by rule and from records alone. No torch.

Every rule names a *measure*, a function of this module that yields comparisons: an estimate with a 95% interval, or
none where records are missing. Thresholds and comparators stand in the file, never here.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from scipy import stats

from ..records.profile import ProfileError
from ..records.results import Results
from ..statistics import (
    Interval,
    Reached,
    crossed_interval,
    geometric_mean,
    probability_of_improvement,
    time_to_target,
)

Verdict = Literal["reproduced", "not reproduced", "inconclusive", "not measured", "yes", "no"]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One interval that a rule looks at.

    interval  None where records are missing
    note      what is missing, or what the interval is
    whole     every run that the profile has of it is there: no verdict rests on less
    """

    label: str
    interval: Interval | None
    note: str = ""
    whole: bool = True


class Rule(BaseModel):
    """What is measured, of which variants, and on which side of which threshold it has to lie."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    measure: str
    of: list[str]
    over: list[str] = []
    rewards: list[str] = []
    figure: str = ""
    split: str = "test"
    above: float | None = None
    below: float | None = None
    says: str

    @model_validator(mode="after")
    def _complete(self) -> Rule:
        if self.measure not in MEASURES:
            raise ValueError(f"unknown measure {self.measure!r}; valid: {', '.join(MEASURES)}")
        if (self.above is None) == (self.below is None):
            raise ValueError("a rule needs either 'above' or 'below'")
        return self

    @property
    def threshold(self) -> float:
        return self.above if self.below is None else self.below

    def compare(self, results: Results) -> list[Comparison]:
        return list(MEASURES[self.measure](results, self))

    def holds(self, interval: Interval | None) -> Literal["yes", "no", "open", "missing"]:
        """Whether an interval lies beyond the threshold, on its other side, or on both."""
        if interval is None or any(np.isnan(interval)):
            return "missing"
        beyond, short = (interval.low > self.threshold, interval.high <= self.threshold)
        if self.above is None:
            beyond, short = interval.high < self.threshold, interval.low >= self.threshold
        return "yes" if beyond else "no" if short else "open"


class Claim(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    id: str
    text: str
    source: Literal["paper", "summary", "question"]
    rules: list[Rule]
    explanation: str = ""  # why, by an experiment; shown where the claim fails
    caveat: str = ""  # what a verdict on it does not say, whatever it is; shown always


def read_claims(path: Path) -> list[Claim]:
    """The claims of a file. Raises ProfileError."""
    try:
        return [Claim.model_validate(claim) for claim in yaml.safe_load(path.read_text(encoding="utf-8"))["claims"]]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError) as error:
        raise ProfileError(f"{path} holds no claims that can be read ({type(error).__name__})") from None
    except ValidationError as error:
        problem = error.errors()[0]
        raise ProfileError(f"{path}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}") from None


# -- measures on the matrix


def _seeds(results: Results, variant: str, reward: str) -> list[int]:
    return results.of(variant, reward).seed.tolist() if len(results.runs) else []


def _short_of(results: Results, variant: str, reward: str) -> str:
    """What is missing of a variant's runs, in words; empty where nothing is."""
    missing = set(results.expected(variant, reward)) - set(_seeds(results, variant, reward))
    return f"{variant} on {reward} lacks {len(missing)} of its seeds" if missing else ""


def _difference(results: Results, of: str, over: str, reward: str) -> Comparison:
    notes = filter(None, (_short_of(results, of, reward), _short_of(results, over, reward)))
    label, note, scores = f"{of} - {over}, {reward}", "; ".join(notes), results.paired(of, over, reward)
    if scores is None or len(scores) < 2:
        return Comparison(label, None, note or "fewer than two seeds")
    return Comparison(label, crossed_interval(scores), note, not note)


def difference(results: Results, rule: Rule) -> Iterator[Comparison]:
    """Final target reward less the other's, paired by seed, prompt and noise. (Both start from the same base model.)"""
    for of, over, reward in itertools.product(rule.of, rule.over, rule.rewards):
        yield _difference(results, of, over, reward)


def gain_difference(results: Results, rule: Rule) -> Iterator[Comparison]:
    """Change of the target reward less the other's, pair by pair: where the two start from different base chains."""
    for (of, over), reward in itertools.product(zip(rule.of, rule.over, strict=True), rule.rewards):
        yield _difference(results, of, over, reward)


def improvement(results: Results, rule: Rule) -> Iterator[Comparison]:
    """Probability that a run ends with more of its reward than one of the other's, mean over rewards.

    Where rewards are missing it is that of the others, which no verdict rests on.
    """
    for of, over in itertools.product(rule.of, rule.over):
        tasks, notes = [], []
        for reward in rule.rewards:
            pair = [results.of(variant, reward) for variant in (of, over)]
            if any(len(runs) < 2 for runs in pair):
                notes.append(f"{reward}: fewer than two seeds")
                continue
            notes += filter(None, (_short_of(results, variant, reward) for variant in (of, over)))
            tasks.append([runs.reward_after.to_numpy() for runs in pair])
        interval = probability_of_improvement([t[0] for t in tasks], [t[1] for t in tasks]) if tasks else None
        whole = not notes
        if interval and interval.low == interval.high:
            notes.append("all runs of one lie above all of the other: the bootstrap of so few has no width")
        yield Comparison(f"{of} over {over}", interval, "; ".join(notes), whole)


def gain(results: Results, rule: Rule) -> Iterator[Comparison]:
    """Change of the target reward from the base model's, on the prompts of a split."""
    for variant, reward in itertools.product(rule.of, rule.rewards):
        gains, note = results.gains(variant, reward, split=rule.split), _short_of(results, variant, reward)
        if gains is None or len(gains) < 2:
            yield Comparison(f"{variant}, {reward}", None, note or f"fewer than two seeds on the split {rule.split}")
        else:
            yield Comparison(f"{variant}, {reward}", crossed_interval(gains), note, not note)


def share_of_gain(results: Results, rule: Rule) -> Iterator[Comparison]:
    """Change on a split's prompts over the change on training prompts, which are other ones: the interval from the ends
    of both, each for new seeds and prompts, so wider than 95%.
    """
    for variant, reward in itertools.product(rule.of, rule.rewards):
        label, note = f"{variant}, {reward}", _short_of(results, variant, reward)
        pair = [results.gains(variant, reward, split=split) for split in (rule.split, "train")]
        if any(gains is None or len(gains) < 2 for gains in pair):
            yield Comparison(label, None, note or f"fewer than two seeds on the split {rule.split}")
            continue
        here, there = map(crossed_interval, pair)
        if there.value <= 0:
            yield Comparison(label, None, "no gain on the training prompts to have a share of")
            continue
        ends = [x / y for x in here[1:] for y in there[1:]] if there.low > 0 else [-np.inf, np.inf]
        yield Comparison(label, Interval(here.value / there.value, min(ends), max(ends)), note, not note)


class Efficiency(NamedTuple):
    """Compute of another method's whole run over what each run of a method needs to get to where the other ends: to
    reach, and keep to the next evaluation, the mean of the other's last evaluations.

    ratios  (seeds,), by the evaluation that has it: at least this. Of a run that never has it: at most this
    upper   (seeds,), by the evaluation before: at most this; infinite where it is there at the first evaluation
    never   (seeds,), whether it never was
    own     share of its run that each run of the other itself needs to get there; the whole of it where it never does
    gained  whether the target is a gain: the interval of the other's change lies above zero
    """

    ratios: np.ndarray
    upper: np.ndarray
    never: np.ndarray
    own: np.ndarray
    gained: bool

    def mean(self, inverted: bool) -> tuple[float, int]:
        """Geometric mean over seeds, and whether it is a bound: 1 the true one is larger, -1 smaller, 0 it is none."""
        side = int(np.isinf(self.upper).any()) - int(self.never.any())
        value = float(stats.gmean(self.upper if side < 0 else self.ratios))
        return (1 / value, -side) if inverted else (value, side)


def arrivals(curves: pd.DataFrame, reward: str, target: float) -> list[tuple[pd.DataFrame, Reached]]:
    """Every run of some curves, and where along its compute it has a mean reward."""
    runs = [run.sort_values("share") for _, run in curves.groupby("folder")]
    return [(run, time_to_target(run.operations.to_numpy(), run[reward].to_numpy(), target)) for run in runs]


def efficiency(results: Results, of: str, over: str, reward: str) -> Efficiency | None:
    """Who gets how soon to where the other ends; None where one of them has no run."""
    ours, theirs = results.curve(of, reward), results.curve(over, reward)
    if ours.empty or theirs.empty:
        return None
    ends = theirs[theirs.share == theirs.share.max()]
    target, whole = ends[reward].mean(), ends.operations.mean()
    # A run that diverged early and never got there would not have got there cheaply.
    needs = [
        r._replace(cost=max(r.cost, whole), before=max(r.before, whole)) if r.censored else r
        for _, r in arrivals(ours, reward, target)
    ]
    costs, before = (np.array([getattr(r, name) for r in needs], float) for name in ("cost", "before"))
    with np.errstate(divide="ignore"):
        ratios, upper = whole / costs, whole / before
    own = np.array([1.0 if r.censored else r.cost / whole for _, r in arrivals(theirs, reward, target)])
    gains = results.gains(over, reward)
    gained = gains is not None and crossed_interval(gains).low > 0
    return Efficiency(ratios, upper, np.array([r.censored for r in needs]), own, gained)


def time_to_target_ratio(results: Results, rule: Rule) -> Iterator[Comparison]:
    """``efficiency`` as a geometric mean over rewards and seeds; of the rewards that are there, as ``improvement``.

    The interval reaches down to 0 where a run never got there, and up to the ratios by the evaluations before.
    """
    for of, over in itertools.product(rule.of, rule.over):
        found, notes, trivial = [], [], []
        for reward in rule.rewards:
            pair = efficiency(results, of, over, reward)
            if pair is None or len(pair.ratios) < 2:
                notes.append(f"{reward}: fewer than two seeds")
                continue
            notes += filter(None, (_short_of(results, variant, reward) for variant in (of, over)))
            found.append(pair)
            trivial += [reward] * (not pair.gained)
        if not found:
            yield Comparison(f"{of} against {over}", None, "; ".join(notes))
            continue
        whole, never = not notes, sum(int(pair.never.sum()) for pair in found)
        value, low, _ = geometric_mean([pair.ratios for pair in found])
        upper = [pair.upper for pair in found]
        high = geometric_mean(upper).high if np.isfinite(np.concatenate(upper)).all() else np.inf
        if never:
            notes.append(f"{never} of {sum(len(pair.never) for pair in found)} runs never reached it")
        if trivial:
            notes.append(f"where {over} ends on {', '.join(trivial)} is no clear gain")
        yield Comparison(f"{of} against {over}", Interval(value, 0.0 if never else low, high), "; ".join(notes), whole)


# -- measures on the probes


def _gradient(results: Results, method: str, figure: str) -> Iterator[tuple[int, Interval | None]]:
    table = results.gradients
    if table is None:
        yield 0, None
        return
    whole = table[(table.method == method) & (table.progress == 0) & (table.slot == "all")]
    for step in sorted(table.reference_step.unique()):
        rows = whole.loc[whole.reference_step == step, [figure, f"{figure}_low", f"{figure}_high"]]
        yield step, None if rows.empty else Interval(*rows.iloc[0])


def gradient_value(results: Results, rule: Rule) -> Iterator[Comparison]:
    """A figure of ``benchmark.gradients``, at every checkpoint of the reference run."""
    for method in rule.of:
        for step, interval in _gradient(results, method, rule.figure):
            yield Comparison(f"{method}, step {step}", interval, "" if interval else "no gradient probe of it")


def _gradient_pair(results: Results, rule: Rule, combine: Callable[[Interval, Interval], Interval], word: str):
    for of, over in itertools.product(rule.of, rule.over):
        pairs = zip(_gradient(results, of, rule.figure), _gradient(results, over, rule.figure), strict=True)
        for (step, a), (_, b) in pairs:
            whole = a is not None and b is not None
            label, note = f"{of} {word} {over}, step {step}", "" if whole else "no gradient probe of both"
            yield Comparison(label, combine(a, b) if whole else None, note)


def gradient_ratio(results: Results, rule: Rule) -> Iterator[Comparison]:
    """Ratio of two figures; the interval from the two intervals' ends, so wider than 95%."""
    yield from _gradient_pair(
        results, rule, lambda a, b: Interval(a.value / b.value, a.low / b.high, a.high / b.low), "over"
    )


def gradient_difference(results: Results, rule: Rule) -> Iterator[Comparison]:
    """Difference of two figures; the interval from the two intervals' ends, so wider than 95%."""
    yield from _gradient_pair(
        results, rule, lambda a, b: Interval(a.value - b.value, a.low - b.high, a.high - b.low), "less"
    )


def fidelity(results: Results, rule: Rule) -> Iterator[Comparison]:
    """Error of the few-step model's jumps over that of naive ones, leading spacing, stretch by stretch."""
    table = results.jumps()
    if table is None:
        yield Comparison("all stretches", None, "no fidelity probe")
        return
    for row in table.itertuples():
        yield Comparison(row.stretch, Interval(row.ratio, row.ratio_low, row.ratio_high))


def cost_ratio(results: Results, rule: Rule) -> Iterator[Comparison]:
    """Ratio of two methods' figures in the cost benchmark; of seconds from the fastest to the slowest round."""
    table = results.cost
    for of, over in itertools.product(rule.of, rule.over):
        rows = [None if table is None else table[table.method == name] for name in (of, over)]
        if any(row is None or row.empty for row in rows):
            yield Comparison(f"{of} over {over}", None, "no cost benchmark of both")
            continue
        names = [rule.figure + end if rule.figure + end in table else rule.figure for end in ("", "_low", "_high")]
        a, b = (Interval(*row.iloc[0][names]) for row in rows)
        interval = Interval(a.value / b.value, a.low / b.high, a.high / b.low) if b.low > 0 else None
        yield Comparison(f"{of} over {over}", interval)


MEASURES: dict[str, Callable[[Results, Rule], Iterator[Comparison]]] = {
    "difference": difference, "gain_difference": gain_difference, "improvement": improvement, "gain": gain,
    "share_of_gain": share_of_gain, "time_to_target": time_to_target_ratio, "gradient_value": gradient_value,
    "gradient_ratio": gradient_ratio, "gradient_difference": gradient_difference, "fidelity": fidelity,
    "cost_ratio": cost_ratio,
}  # fmt: skip


# -- verdicts


def judge(claim: Claim, results: Results) -> dict:
    """The verdict on a claim and every comparison behind it, as plain values."""
    compared = [(rule, comparison) for rule in claim.rules for comparison in rule.compare(results)]
    so_far = [rule.holds(comparison.interval) for rule, comparison in compared]
    held = [answer if comparison.whole else "missing" for answer, (_, comparison) in zip(so_far, compared, strict=True)]
    verdict: Verdict
    if "no" in held:
        verdict = "not reproduced"  # one counter-example settles it, whatever else is missing
    elif not held or "missing" in held:
        verdict = "not measured"
    else:
        verdict = "inconclusive" if "open" in held else "reproduced"
    if claim.source == "question":
        verdict = {"reproduced": "yes", "not reproduced": "no"}.get(verdict, verdict)
    rows = [
        {"says": rule.says, "label": comparison.label}
        | dict(zip(("value", "low", "high"), _plain(comparison.interval), strict=True))
        | {"direction": "above" if rule.below is None else "below", "threshold": rule.threshold, "holds": answer,
           "so_far": now, "note": comparison.note}
        for (rule, comparison), answer, now in zip(compared, held, so_far, strict=True)
    ]  # fmt: skip
    why_not = "" if verdict in ("reproduced", "yes") else claim.explanation
    return {"id": claim.id, "text": claim.text, "source": claim.source, "suite": results.suite, "verdict": verdict,
            "comparisons": rows, "caveat": claim.caveat, "explanation": why_not}  # fmt: skip


def _plain(interval: Interval | None) -> tuple[float | None, ...]:
    """Rounded to six digits; what is no finite number is None."""
    if interval is None:
        return None, None, None
    return tuple(float(f"{x:.6g}") if np.isfinite(x) else None for x in interval)


SO_FAR = {"yes": "for", "no": "against", "open": "open"}


def count(comparisons: list[dict]) -> str:
    """How many of the comparisons behind a verdict hold, and of those that lack runs what is there so far."""
    if not comparisons:
        return ""
    text = f"{sum(row['holds'] == 'yes' for row in comparisons)} of {len(comparisons)}"
    lacking = [row["so_far"] for row in comparisons if row["holds"] == "missing"]
    if not lacking:
        return text
    parts = [f"{lacking.count(answer)} {word}" for answer, word in SO_FAR.items() if answer in lacking]
    return f"{text}, {len(lacking)} not measured" + (f" in full (so far {', '.join(parts)})" if parts else "")


def overview(verdicts: list[dict]) -> list[str]:
    """The verdicts as lines of a table, with how many of the comparisons behind each hold."""
    lines = ["| | claim | source | verdict | comparisons that hold |", "|---|---|---|---|---|"]
    lines += [
        f"| {v['id']} | {v['text']} | {v['source']} | **{v['verdict']}** | {count(v['comparisons'])} |"
        for v in verdicts
    ]
    return [
        *lines,
        "",
        "*summary*: a figure that stands in an AI summary of the paper and in no source of the paper itself.",
    ]


def markdown(verdicts: list[dict], title: str) -> str:
    """The verdicts as a table, then every comparison."""
    lines = [f"# Verdicts, {title}", "", *overview(verdicts)]
    for v in verdicts:
        lines += ["", f"## {v['id']}. {v['text']}: {v['verdict']}", ""]
        if not v["comparisons"]:
            lines.append("No rule measures it yet.")
        for says, group in itertools.groupby(v["comparisons"], key=lambda row: row["says"]):
            rows = list(group)
            lines += [f"{says[0].upper()}{says[1:]} (to be {rows[0]['direction']} {rows[0]['threshold']:g}):", "",
                      "| | value | 95% interval | holds | |", "|---|---|---|---|---|"]  # fmt: skip
            for row in rows:
                value = "" if row["value"] is None else f"{row['value']:.4g}"
                low, high = ("unbounded" if x is None else f"{x:.4g}" for x in (row["low"], row["high"]))
                ends = "" if value == "" or low == high == "unbounded" else f"[{low}, {high}]"
                holds = row["holds"]
                if holds == "missing" and row["so_far"] != "missing":
                    holds = f"not measured in full (so far {row['so_far']})"
                lines.append(f"| {row['label']} | {value} | {ends} | {holds} | {row['note']} |")
            lines.append("")
        for text in filter(None, (v["caveat"], v["explanation"])):
            lines += [text.strip(), ""]
    return "\n".join(lines).rstrip() + "\n"
