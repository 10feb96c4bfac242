"""Verdicts on the claims of ``claims.yaml``, by rule and from records alone. No torch.

Every rule names a *measure*, a function of this module that yields comparisons: an estimate with a 95% interval, or
none where records are missing. Thresholds and comparators stand in the file, never here. What a verdict does not say,
and why a claim fails, stands in the templates of ``benchmark.findings.texts``.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, Self

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from ..records.profile import ProfileError
from ..records.results import Results
from ..statistics import Interval, crossed_interval, geometric_mean, probability_of_improvement
from .tables.table import piped
from .texts import about

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
    """What is measured, of which variants, and on which side of which threshold it has to lie.

    column  of the probe's table, for measures on the probes
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    measure: str
    of: list[str]
    over: list[str] = []
    rewards: list[str] = []
    column: str = ""
    split: str = "test"
    above: float | None = None
    below: float | None = None
    says: str

    @model_validator(mode="after")
    def _complete(self) -> Self:
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


def lacking(results: Results, reward: str, *variants: str) -> list[str]:
    """What is missing of the runs of some variants, in words."""
    gaps = {v: set(results.expected(v, reward)) - set(results.of(v, reward).get("seed", [])) for v in variants}
    return [f"{variant} on {reward} lacks {len(gap)} of its seeds" for variant, gap in gaps.items() if gap]


def of_scores(label: str, scores: np.ndarray | None, missing: list[str], else_missing: str) -> Comparison:
    """Mean of scores (seeds, prompts) with its interval, where there are at least two seeds."""
    note = "; ".join(missing)
    if scores is None or len(scores) < 2:
        return Comparison(label, None, note or else_missing)
    return Comparison(label, crossed_interval(scores), note, not note)


def compare_runs(results: Results, of: str, over: str, reward: str) -> Comparison:
    missing, scores = lacking(results, reward, of, over), results.paired(of, over, reward)
    return of_scores(f"{of} - {over}, {reward}", scores, missing, "fewer than two seeds")


def difference(results: Results, rule: Rule) -> Iterator[Comparison]:
    """Final target reward less the other's, paired by seed, prompt and noise. (Both start from the same base model.)"""
    for of, over, reward in itertools.product(rule.of, rule.over, rule.rewards):
        yield compare_runs(results, of, over, reward)


def gain_difference(results: Results, rule: Rule) -> Iterator[Comparison]:
    """Change of the target reward less the other's, pair by pair: where the two start from different base chains."""
    for (of, over), reward in itertools.product(zip(rule.of, rule.over, strict=True), rule.rewards):
        yield compare_runs(results, of, over, reward)


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
            notes += lacking(results, reward, of, over)
            tasks.append([runs.reward_after.to_numpy() for runs in pair])
        interval = probability_of_improvement(*zip(*tasks, strict=True)) if tasks else None
        whole = not notes
        if interval and interval.low == interval.high:
            notes.append("all runs of one lie above all of the other: the bootstrap of so few has no width")
        yield Comparison(f"{of} over {over}", interval, "; ".join(notes), whole)


def gain(results: Results, rule: Rule) -> Iterator[Comparison]:
    """Change of the target reward from the base model's, on the prompts of a split."""
    for variant, reward in itertools.product(rule.of, rule.rewards):
        scores, missing = results.gains(variant, reward, split=rule.split), lacking(results, reward, variant)
        yield of_scores(f"{variant}, {reward}", scores, missing, f"fewer than two seeds on the split {rule.split}")


def share_of_gain(results: Results, rule: Rule) -> Iterator[Comparison]:
    """Change on a split's prompts over the change on training prompts, which are other ones: the interval from the ends
    of both, each for new seeds and prompts, so wider than 95%.
    """
    for variant, reward in itertools.product(rule.of, rule.rewards):
        label, note = f"{variant}, {reward}", "; ".join(lacking(results, reward, variant))
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


def time_to_target(results: Results, rule: Rule) -> Iterator[Comparison]:
    """``Results.efficiency`` as a geometric mean over rewards and seeds; of the rewards that are there, as
    ``improvement``. The interval reaches down to 0 where a run never got there, and up to the ratios by the evaluations
    before.
    """
    for of, over in itertools.product(rule.of, rule.over):
        found, notes, trivial = [], [], []
        for reward in rule.rewards:
            pair = results.efficiency(of, over, reward)
            if pair is None or len(pair.ratios) < 2:
                notes.append(f"{reward}: fewer than two seeds")
                continue
            notes += lacking(results, reward, of, over)
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


def estimates(results: Results, method: str, column: str) -> Iterator[tuple[int, Interval | None]]:
    """A column of ``benchmark.gradients`` at every checkpoint of the reference run, of all slots in the first stage."""
    table = results.gradients
    if table is None:
        yield 0, None
        return
    whole = table[(table.method == method) & (table.progress == 0) & (table.slot == "all")]
    for step in sorted(table.reference_step.unique()):
        rows = whole.loc[whole.reference_step == step, [column, f"{column}_low", f"{column}_high"]]
        yield step, None if rows.empty else Interval(*rows.iloc[0])


def gradient_value(results: Results, rule: Rule) -> Iterator[Comparison]:
    """A number of ``benchmark.gradients``, at every checkpoint of the reference run."""
    for method in rule.of:
        for step, interval in estimates(results, method, rule.column):
            yield Comparison(f"{method}, step {step}", interval, "" if interval else "no gradient probe of it")


def gradient_pair(results: Results, rule: Rule, combine: Callable, word: str) -> Iterator[Comparison]:
    for of, over in itertools.product(rule.of, rule.over):
        pairs = zip(estimates(results, of, rule.column), estimates(results, over, rule.column), strict=True)
        for (step, ours), (_, theirs) in pairs:
            interval = combine(ours, theirs) if ours and theirs else None
            note = "" if interval else "no gradient probe of both"
            yield Comparison(f"{of} {word} {over}, step {step}", interval, note)


def gradient_ratio(results: Results, rule: Rule) -> Iterator[Comparison]:
    """Ratio of two numbers; the interval from the two intervals' ends, so wider than 95%."""
    yield from gradient_pair(results, rule, Interval.over, "over")


def gradient_difference(results: Results, rule: Rule) -> Iterator[Comparison]:
    """Difference of two numbers; the interval from the two intervals' ends, so wider than 95%."""
    yield from gradient_pair(results, rule, Interval.less, "less")


def fidelity(results: Results, rule: Rule) -> Iterator[Comparison]:
    """Error of the few-step model's jumps over that of naive ones, leading spacing, stretch by stretch."""
    table = results.jumps()
    if table is None:
        yield Comparison("all stretches", None, "no fidelity probe")
        return
    for row in table.itertuples():
        yield Comparison(row.stretch, Interval(row.ratio, row.ratio_low, row.ratio_high))


def cost_ratio(results: Results, rule: Rule) -> Iterator[Comparison]:
    """Ratio of two methods' numbers in the cost benchmark; of seconds from the fastest to the slowest round."""
    table = results.cost
    for of, over in itertools.product(rule.of, rule.over):
        rows = [None if table is None else table[table.method == name] for name in (of, over)]
        if any(row is None or row.empty for row in rows):
            yield Comparison(f"{of} over {over}", None, "no cost benchmark of both")
            continue
        names = [rule.column + end if rule.column + end in table else rule.column for end in ("", "_low", "_high")]
        ours, theirs = (Interval(*row.iloc[0][names]) for row in rows)
        yield Comparison(f"{of} over {over}", ours.over(theirs) if theirs.low > 0 else None)


ON_MATRIX = (difference, gain_difference, improvement, gain, share_of_gain, time_to_target)
ON_PROBES = (gradient_value, gradient_ratio, gradient_difference, fidelity, cost_ratio)
MEASURES = {measure.__name__: measure for measure in (*ON_MATRIX, *ON_PROBES)}


# -- verdicts


def judge(claim: Claim, results: Results) -> dict:
    """The verdict on a claim and every comparison behind it, as plain values.

    caveat       what a verdict on the claim does not say, whatever it is
    explanation  why the claim fails, by an experiment; empty where it does not
    """
    rows = [answered(rule, comparison) for rule in claim.rules for comparison in rule.compare(results)]
    held = [row["holds"] for row in rows]
    verdict: Verdict
    if "no" in held:
        verdict = "not reproduced"  # one counter-example settles it, whatever else is missing
    elif not held or "missing" in held:
        verdict = "not measured"
    else:
        verdict = "inconclusive" if "open" in held else "reproduced"
    if claim.source == "question":
        verdict = {"reproduced": "yes", "not reproduced": "no"}.get(verdict, verdict)
    texts = about(claim.id, results) | ({"explanation": ""} if verdict in ("reproduced", "yes") else {})
    said = {"id": claim.id, "text": claim.text, "source": claim.source, "suite": results.suite, "verdict": verdict}
    return said | {"comparisons": rows} | texts


def answered(rule: Rule, comparison: Comparison) -> dict:
    """A comparison and whether it holds: ``holds`` with all of the profile's runs, ``so_far`` with those there are."""
    answer = rule.holds(comparison.interval)
    row = {"says": rule.says, "label": comparison.label}
    row |= dict(zip(Interval._fields, plain(comparison.interval), strict=True))
    row |= {"direction": "above" if rule.below is None else "below", "threshold": rule.threshold}
    return row | {"holds": answer if comparison.whole else "missing", "so_far": answer, "note": comparison.note}


def plain(interval: Interval | None) -> tuple[float | None, ...]:
    """Rounded to six digits; what is no finite number is None."""
    return tuple(float(f"{x:.6g}") if x is not None and np.isfinite(x) else None for x in interval or [None] * 3)


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


SUMMARY = "*summary*: a figure that stands in an AI summary of the paper and in no source of the paper itself."


def overview(verdicts: list[dict]) -> list[str]:
    """The verdicts as lines of a table, with how many of the comparisons behind each hold."""
    rows = [(v["id"], v["text"], v["source"], f"**{v['verdict']}**", count(v["comparisons"])) for v in verdicts]
    lines = ["| | claim | source | verdict | comparisons that hold |", "|---|---|---|---|---|", *piped(rows)]
    return [*lines, "", SUMMARY]


def markdown(verdicts: list[dict], title: str) -> str:
    """The verdicts as a table, then every comparison."""
    lines = [f"# Verdicts, {title}", "", *overview(verdicts)]
    for v in verdicts:
        lines += ["", f"## {v['id']}. {v['text']}: {v['verdict']}", ""]
        if not v["comparisons"]:
            lines.append("No rule measures it yet.")
        for says, group in itertools.groupby(v["comparisons"], key=lambda row: row["says"]):
            rows = list(group)
            lines += [f"{says[0].upper()}{says[1:]} (to be {rows[0]['direction']} {rows[0]['threshold']:g}):", ""]
            lines += ["| | value | 95% interval | holds | |", "|---|---|---|---|---|", *piped(map(told, rows)), ""]
        for text in filter(None, (v["caveat"], v["explanation"])):
            lines += [text.strip(), ""]
    return "\n".join(lines).rstrip() + "\n"


def told(row: dict) -> tuple[str, ...]:
    """A comparison in words, as a row of a table."""
    value = "" if row["value"] is None else f"{row['value']:.4g}"
    low, high = ("unbounded" if x is None else f"{x:.4g}" for x in (row["low"], row["high"]))
    ends = "" if value == "" or low == high == "unbounded" else f"[{low}, {high}]"
    in_full = row["holds"] != "missing" or row["so_far"] == "missing"
    holds = row["holds"] if in_full else f"not measured in full (so far {row['so_far']})"
    return row["label"], value, ends, holds, row["note"]
