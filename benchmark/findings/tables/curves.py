"""Tables of what happens along the budget: time to target, the oracle at equal gain, whether the budget is enough."""

import itertools

import numpy as np
import pandas as pd
from scipy import stats

from ...records.results import Results, arrivals
from ...statistics import Interval
from .table import NOT_MEASURED, Table


def safe(value: float, side: int) -> float:
    """A number that the true one is larger (1) or smaller (-1) than, to two digits on the safe side; 0: neither."""
    return float((np.floor if side > 0 else np.ceil)(100 * value) / 100) if side else value


def time_to_target(results: Results) -> Table:
    """Who gets sooner to where the other ends: ShortFT against every other method, both ways, reward by reward."""
    rows, shown = [], []
    questions = {"forth": "ShortFT to where it ends", "back": "it to where ShortFT ends", "own": "it to its own end"}
    for other in (method for method in results.profile.methods() if method != "shortft"):
        lines = {name: {"method": other, "question": question} for name, question in questions.items()}
        for reward in results.rewards():
            forth = results.efficiency("shortft", other, reward)
            pair = {"forth": forth, "back": results.efficiency(other, "shortft", reward) if forth else None}
            for name, found in pair.items():
                lines[name][reward] = NOT_MEASURED
                if found:
                    value, side = found.mean(inverted=name == "back")
                    never, seeds = int(found.never.sum()), len(found.never)
                    told = f"{('', '≥ ', '≤ ')[side]}{safe(value, side):.2f} ({never} of {seeds} never)"
                    lines[name][reward] = told if found.gained else "no clear gain to get to"
                    row = {"method": other, "question": name, "reward": reward, "seeds": seeds, "ratio": value}
                    row |= {"bound": ("", "below", "above")[side], "never_reached": never}
                    rows.append(row | {"target_is_a_gain": found.gained})
            lines["own"][reward] = ""
            if forth and forth.gained:
                lines["own"][reward] = f"{forth.own.mean():.2f} of its run ({(forth.own > 0.999).sum()} at its end)"
        shown += lines.values()
    return Table.of(results, "time_to_target", rows, shown)


def welch(ours: pd.Series, theirs: pd.Series) -> Interval:
    """Difference of two means, with its 95% t interval where both have a spread."""
    low, high = np.nan, np.nan
    if ours.nunique() > 1 and theirs.nunique() > 1:
        low, high = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval()
    return Interval(float(ours.mean() - theirs.mean()), float(low), float(high))


def equal_gain(results: Results) -> Table:
    """The oracle where a method has just got to where ShortFT ends, less ShortFT's there."""
    rows, shown = [], []
    for reward, variant in itertools.product(results.rewards(), results.variants()):
        ours, curves = results.curve("shortft", reward), results.curve(variant, reward)
        if variant == "shortft" or ours.empty or curves.empty or "oracle" not in ours:
            continue
        ends = ours[ours.share == ours.share.max()]
        found = arrivals(curves, reward, ends[reward].mean())
        there = [run[run.operations == reached.cost].iloc[0] for run, reached in found if not reached.censored]
        row = {"variant": variant, "reward": reward, "runs": len(found), "reached": len(there)}
        line = {"variant": variant, "reward": reward, "runs that get there": f"{len(there)} of {len(found)}"}
        if there:
            points = pd.DataFrame(there)
            oracle, more = welch(points.oracle, ends.oracle), points[reward].mean() - ends[reward].mean()
            row |= {"share": points.share.mean(), "more_reward": more, "oracle": oracle}
            line |= {"share of the run": f"{row['share']:.2f}", "reward there": f"{more:+.3f}"}
            line["oracle there"] = f"{oracle:+.3f}" if np.isfinite(oracle.low) else f"{oracle.value:+.3f}"
        rows.append(row)
        shown.append(line)
    return Table.of(results, "equal_gain", rows, shown)


def settled(results: Results) -> Table:
    """Whether the budget is long enough: has the order of the methods settled, have the curves flattened?"""
    rows, shown = [], []
    for reward in results.rewards():
        curves = {v: results.curve(v, reward) for v in results.profile.methods()}
        means = pd.DataFrame({v: curve.groupby("share")[reward].mean() for v, curve in curves.items() if len(curve)})
        means = means.dropna(axis="columns")  # methods whose runs all diverged on the way
        if len(means) < 3 or len(means.columns) < 3:
            continue
        gains = means - means.iloc[0]
        shown.append({"reward": reward})
        for share, row in gains.iloc[1:-1].iterrows():
            tau, gained = stats.kendalltau(row, gains.iloc[-1]).statistic, row.sum() / gains.iloc[-1].sum()
            rows.append({"reward": reward, "share": share, "methods": len(row), "tau": tau, "gained": gained})
            shown[-1][f"after {share:.1%}"] = f"{tau:.2f} ({gained:.0%})"
    return Table.of(results, "settled", rows, shown) if rows else Table.missing(results, "settled", "reward")
