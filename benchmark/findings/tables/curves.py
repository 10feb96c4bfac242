"""Tables of what happens along the budget: time to target, the oracle at equal gain, whether the budget is enough."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from ...records.results import Results, arrivals
from ...statistics import Interval
from .table import NOT_MEASURED, Table


def bounded(value: float, side: int) -> str:
    """A number that the true one is larger (1) or smaller (-1) than, rounded to the safe side; 0: neither."""
    if side:
        value = (np.floor if side > 0 else np.ceil)(100 * value) / 100
    return f"{('', '≥ ', '≤ ')[side]}{value:.2f}"


def time_to_target(results: Results) -> Table:
    """Who gets sooner to where the other ends: ShortFT against every other method, both ways, reward by reward."""
    rows, shown = [], []
    questions = {"forth": "ShortFT to where it ends", "back": "it to where ShortFT ends", "own": "it to its own end"}
    for other in (method for method in results.profile.methods() if method != "shortft"):
        lines = {name: {"method": other, "question": question} for name, question in questions.items()}
        for reward in results.rewards():
            forth = results.efficiency("shortft", other, reward) if len(results.curves) else None
            back = results.efficiency(other, "shortft", reward) if forth else None
            for name, found in (("forth", forth), ("back", back)):
                lines[name][reward] = NOT_MEASURED
                if found:
                    value, side = found.mean(inverted=name == "back")
                    never = int(found.never.sum())
                    lines[name][reward] = f"{bounded(value, side)} ({never} of {len(found.never)} never)"
                    if not found.gained:
                        lines[name][reward] = "no clear gain to get to"
                    rows.append({"method": other, "question": name, "reward": reward, "seeds": len(found.never),
                                 "ratio": value, "bound": ("", "below", "above")[side], "never_reached": never,
                                 "target_is_a_gain": found.gained})  # fmt: skip
            lines["own"][reward] = ""
            if forth and forth.gained:
                lines["own"][reward] = f"{forth.own.mean():.2f} of its run ({(forth.own > 0.999).sum()} at its end)"
        shown += lines.values()
    return Table(
        "time_to_target", f"Time to target, suite {results.suite}",
        "Compute that a method needs to reach, and keep to the next evaluation, the other's mean final reward, as the "
        "other's over ShortFT's: above 1 ShortFT is cheaper. ShortFT to where it ends: the other's whole run over what "
        "ShortFT needs. It to where ShortFT ends: what the other needs over ShortFT's whole run. It to its own end: "
        "how much of its run the other itself needed (the first ratio counts all of it). Geometric means over seeds; "
        "how many runs never got there (at its end: or only there). Evaluations are an eighth of the budget apart, "
        "hence the bounds; curves and targets are of 64 prompts.",
        pd.DataFrame(rows), pd.DataFrame(shown),
    )  # fmt: skip


def welch(ours: pd.Series, theirs: pd.Series) -> Interval:
    """Difference of two means, with its 95% t interval where both have a spread."""
    low, high = np.nan, np.nan
    if ours.nunique() > 1 and theirs.nunique() > 1:
        low, high = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval()
    return Interval(float(ours.mean() - theirs.mean()), float(low), float(high))


def equal_gain(results: Results) -> Table:
    """The oracle where a method has just got to where ShortFT ends, less ShortFT's there."""
    rows, shown = [], []
    for reward in results.rewards():
        ours = results.curve("shortft", reward)
        if ours.empty or "oracle" not in ours:
            continue
        ends = ours[ours.share == ours.share.max()]
        for variant in results.variants():
            if variant == "shortft" or (curves := results.curve(variant, reward)).empty:
                continue
            found = arrivals(curves, reward, ends[reward].mean())
            there = [run[run.operations == reached.cost].iloc[0] for run, reached in found if not reached.censored]
            row = {"variant": variant, "reward": reward, "runs": curves.folder.nunique(), "reached": len(there)}
            line = {"variant": variant, "reward": reward, "runs that get there": f"{len(there)} of {row['runs']}"}
            if there:
                points = pd.DataFrame(there)
                interval = welch(points.oracle, ends.oracle)
                row |= {"share": points.share.mean(), "more_reward": points[reward].mean() - ends[reward].mean(),
                        "oracle": interval.value, "oracle_low": interval.low, "oracle_high": interval.high}  # fmt: skip
                text = f"{interval:+.3f}" if np.isfinite(interval.low) else f"{interval.value:+.3f}"
                line |= {"share of the run": f"{row['share']:.2f}", "reward there": f"{row['more_reward']:+.3f}",
                         "oracle there": text}  # fmt: skip
            rows.append(row)
            shown.append(line)
    return Table(
        "equal_gain", f"The oracle at ShortFT's gain, suite {results.suite}",
        "Runs at the first evaluation that has, and keeps to the next, ShortFT's mean final reward: how much of the "
        "run that took, and reward and oracle of truth there less those of ShortFT's ends [95% Welch interval over "
        "seeds; none of a single one]. Curves are of 64 prompts: the intervals are wide.",
        pd.DataFrame(rows), pd.DataFrame(shown).fillna(""),
    )  # fmt: skip


def settled(results: Results) -> Table:
    """Whether the budget is long enough: has the order of the methods settled, have the curves flattened?"""
    rows = []
    for reward in results.rewards():
        curves = {v: results.curve(v, reward) for v in results.profile.methods()}
        means = pd.DataFrame({v: curve.groupby("share")[reward].mean() for v, curve in curves.items() if len(curve)})
        means = means.dropna(axis="columns")  # methods whose runs all diverged on the way
        if len(means) < 3 or len(means.columns) < 3:
            continue
        gains = means - means.iloc[0]
        for share, row in gains.iloc[1:-1].iterrows():
            tau = stats.kendalltau(row, gains.iloc[-1]).statistic
            rows.append({"reward": reward, "share": share, "methods": len(row), "tau": tau,
                         "gained": row.sum() / gains.iloc[-1].sum()})  # fmt: skip
    title = f"Is the budget long enough? Suite {results.suite}"
    if not rows:
        return Table("settled", title, "Not measured.", pd.DataFrame(), pd.DataFrame(columns=["reward"]))
    frame = pd.DataFrame(rows)
    texts = frame.assign(text=[f"{row.tau:.2f} ({row.gained:.0%})" for row in frame.itertuples()])
    shown = texts.pivot(index="reward", columns="share", values="text").loc[frame.reward.unique()]
    shown.columns = [f"after {share:.1%}" for share in shown.columns]
    return Table(
        "settled", title,
        "Kendall's rank correlation of the methods' mean rewards at a share of the budget with those at its end, over "
        "the prompts of the curves; in brackets how much of all methods' gains together was there by then.",
        frame, shown.reset_index(),
    )  # fmt: skip
