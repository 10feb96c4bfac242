"""Tables of how runs end: which method, who won, Tables 1 to 3 of the paper, controls, what else changed, tuning."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd

from ...records.results import Results
from ...statistics import Interval, crossed_interval, iqm
from .table import NOT_MEASURED, Linked, Table, marked, published

SPLITS = {"gain": "test", "oracle": "test", "combinations": "combinations", "training": "train"}


def seeds_of(results: Results, variant: str, reward: str) -> str:
    """How many of the profile's seeds stand behind a cell."""
    here, expected = len(results.of(variant, reward)), len(results.expected(variant, reward))
    return f"{here}" if here == expected else f"{here} of {expected}"


def measured(scores: np.ndarray | None) -> tuple[Interval | None, int]:
    """Mean of scores (seeds, prompts), and how many seeds it has; None and 0 where there are none."""
    return (None, 0) if scores is None else (crossed_interval(scores), len(scores))


@functools.lru_cache(maxsize=1024)
def cell_row(results: Results, variant: str, reward: str) -> dict | None:
    """A variant on a reward in numbers and Intervals; None without runs. All who ask get the same: never change it."""
    runs = results.of(variant, reward)
    if runs.empty:
        return None
    row = {"variant": variant, "reward": reward, "seeds": len(runs), "expected": len(results.expected(variant, reward))}
    row |= {"diverged": int((runs.status == "diverged").sum()), "base": runs.reward_before.mean()}
    row["iqm"] = iqm(runs.reward_after.to_numpy())
    for name, split in SPLITS.items():
        gains = results.gains(variant, reward, "oracle" if name == "oracle" else reward, split)
        if gains is not None:  # Stable Diffusion has no oracle
            row[name] = crossed_interval(gains)
    row |= {"diversity": (runs.diversity_after - runs.diversity_before).mean(), "drift": runs.drift.mean()}
    calls = [f"denoiser_{kind}" for kind in ("forwards", "backwards", "recomputations")]
    means = ["steps", "images", "operations", *calls, "seconds", "prior_seconds", "few_step_seconds"]
    return row | {name: runs[name].mean() for name in means}


def rows_of(results: Results, reward: str, variants: Iterable[str]) -> list[dict]:
    """Those of the variants that have runs on a reward, in numbers."""
    return [row for variant in variants if (row := cell_row(results, variant, reward))]


def wide(results: Results, variants: list[str], rewards: list[str], show: Callable[[str, str], str]) -> list[dict]:
    """Lines of variants x rewards. show: what stands in a cell that has runs."""

    def cell(variant: str, reward: str) -> str:
        if not results.expected(variant, reward):
            return ""
        runs = results.of(variant, reward)
        return NOT_MEASURED if runs.empty else Linked(show(variant, reward), runs)

    return [{"method": variant} | {reward: cell(variant, reward) for reward in rewards} for variant in variants]


def table1(results: Results) -> Table:
    rewards = results.rewards()
    rows = [row for reward in rewards for row in rows_of(results, reward, results.variants())]

    def show(variant: str, reward: str) -> str:
        row = cell_row(results, variant, reward)
        return f"{row['iqm']:.4f} ({marked(row['gain'], row['seeds'], 4)}; {seeds_of(results, variant, reward)})"

    base = {"method": "base model"}
    for reward in rewards:
        bases = [row["base"] for row in rows if row["reward"] == reward]
        base[reward] = f"{np.mean(bases):.4f}" if bases else NOT_MEASURED
    return Table.of(results, "table1", rows, [base, *wide(results, results.profile.methods(), rewards, show)])


def leaders(results: Results, rows: list[dict], reward: str) -> list[dict]:
    """Of rows of methods the one with the largest gain, and those with a clear gain whose difference to it is not."""
    if not rows:
        return []
    first, *others = sorted(rows, key=lambda row: -row["gain"].value)
    gaps = [(row, results.paired(first["variant"], row["variant"], reward)) for row in others if row["gain"].low > 0]
    near = [row for row, gap in gaps if gap is not None and crossed_interval(gap).low <= 0]
    return [first, *near]


def extent(values: list[float], code: str) -> str:
    """Least and largest of some numbers in words."""
    return " to ".join(dict.fromkeys(format(x, code) for x in (min(values), max(values)))) if values else ""


def choice(results: Results) -> Table:
    """Which method for which reward: those that gain most, and those that do so without losing the truth."""
    rows, shown = [], []
    for reward in results.rewards():
        found = rows_of(results, reward, results.profile.methods())
        if not found:
            shown.append({"reward": reward, "seeds": "0", "largest gain": NOT_MEASURED})
            continue
        honest = [row for row in found if row["gain"].low > 0 and "oracle" in row and row["oracle"].high >= 0]
        if not any("oracle" in row for row in found):
            honest = None  # Stable Diffusion has no oracle
        line = {"reward": reward, "seeds": extent([row["seeds"] for row in found], "")}
        for head, prefix, among in (("largest gain", "", found), ("largest gain, oracle kept", "its ", honest)):
            if among is None:
                line[head] = NOT_MEASURED
                continue
            best = leaders(results, among, reward)
            runs = [results.of(row["variant"], reward) for row in best] or [pd.DataFrame({"folder": []})]
            line[head] = Linked(", ".join(row["variant"] for row in best) or "none", pd.concat(runs))
            line[f"{prefix}gain"] = extent([row["gain"].value for row in best], "+.3f")
            line[f"{prefix}oracle"] = extent([row["oracle"].value for row in best if "oracle" in row], "+.2f")
            for row in best:
                oracle = row["oracle"].value if "oracle" in row else np.nan
                named = {"reward": reward, "among": head, "variant": row["variant"], "seeds": row["seeds"]}
                rows.append(named | {"gain": row["gain"].value, "oracle": oracle})
        shown.append(line)
    return Table.of(results, "choice", rows, shown)


def ranking(results: Results) -> Table:
    """Every row of a reward, the largest gain first: who won, by how much, and at what price."""
    rows, shown = [], []
    for reward in results.rewards():
        found = rows_of(results, reward, results.variants())
        for row in sorted(found, key=lambda row: -row["gain"].value):
            variant, gaps = row["variant"], {}
            for name, column in (("gap", reward), ("oracle_gap", "oracle")) if variant != "shortft" else ():
                gap, seeds = measured(results.paired(variant, "shortft", reward, column))
                if gap:
                    gaps |= {name: gap, f"{name}_seeds": seeds}
            rows.append(row := row | gaps)
            texts = {name: marked(row.get(name), row["seeds"]) for name in ("gain", "oracle")}
            texts |= {name: marked(row.get(name), row.get(f"{name}_seeds", 0)) for name in ("gap", "oracle_gap")}
            line = {"variant": variant, "reward": reward, "seeds": seeds_of(results, variant, reward)}
            line |= {"gain": Linked(texts["gain"], results.of(variant, reward)), "less ShortFT's": texts["gap"]}
            line |= {"oracle": texts["oracle"], "less ShortFT's oracle": texts["oracle_gap"]}
            line |= {"diversity": f"{row['diversity']:+.3f}", "steps": f"{row['steps']:.0f}"}
            shown.append(line | {"prior seconds": f"{row['prior_seconds']:.0f}"})
    return Table.of(results, "ranking", rows, shown)


def published_scale(results: Results) -> Table:
    """HPSv2 as papers on Stable Diffusion show it, whatever reward was trained."""
    rows, shown = [], []
    for variant, reward in itertools.product(results.variants(), results.rewards()):
        runs = results.of(variant, reward)
        column = "reward_after" if reward == "hps20" else "heldout.hps20.after"
        if runs.empty or column not in runs:
            continue
        before, after = (100 * runs[column.replace("after", when)].mean() for when in ("before", "after"))
        rows.append({"variant": variant, "reward": reward, "seeds": len(runs), "before": before, "after": after})
        line = {"method": variant, "reward": reward, "seeds": seeds_of(results, variant, reward)}
        shown.append(line | {"base model": f"{before:.2f}", "HPSv2": f"{after:.2f}"})
    made = Table.of(results, "published_scale", rows, shown)
    lines = pd.DataFrame(shown, columns=["method", "reward", "seeds", "base model", "HPSv2"])
    return dataclasses.replace(made, shown=lines, published=published("table1", ["method", "", "", "", "hps"]))


def against(results: Results, name: str, ours: str, others: list[str]) -> Table:
    """Variants beside ``ours``, with the paired difference of their final reward to it."""
    rewards = [r for r in results.rewards() if any(results.expected(v, r) for v in others)]
    rows = []

    def show(variant: str, reward: str) -> str:
        runs = results.of(variant, reward)
        final, gap, seeds = runs.reward_after.mean(), None, 0
        if variant != ours:
            gap, seeds = measured(results.paired(variant, ours, reward))
        rows.append({"variant": variant, "reward": reward, "seeds": len(runs), "final": final})
        if gap is None:
            return f"{final:.4f}"
        rows[-1]["difference"] = gap
        expected = len(results.expected(variant, reward))
        return f"{final:.4f} ({marked(gap, seeds, 4)}; {seeds}{f' of {expected}' * (seeds < expected)})"

    shown = wide(results, [ours, *others], rewards, show)
    return Table.of(results, name, rows, shown)


def variants_where(results: Results, **options) -> list[str]:
    """The profile's variants of ShortFT that set exactly these options."""
    return [name for name, given in results.profile.variants.items() if given == {"method": "shortft", **options}]


def table2(results: Results) -> Table:
    """Tuning the base model through shortcuts, or the few-step model itself."""
    return against(results, "table2", "shortft", variants_where(results, policy="shortcut"))


def table3(results: Results) -> Table:
    """Ablations of ShortFT."""
    ablations = variants_where(results, timestep_aware=False) + variants_where(results, progressive=False)
    return against(results, "table3", "shortft", ablations)


def controls(results: Results) -> Table:
    """ShortFT with one thing changed, and the coarse chain that needs no few-step model."""
    others = [m for m in ("draft_coarse",) if m in results.profile.methods()]
    others += variants_where(results, shortcut="naive") + variants_where(results, rank=4)
    others += variants_where(results, method="benchmark.controls:ShortFTEverywhere")
    return against(results, "controls", "shortft", others)


def spacing(results: Results) -> Table:
    """Each method with the last step of the sampler almost powerless (leading) and not (trailing)."""
    rows, shown, variants = [], [], results.profile.variants

    def told(scores: np.ndarray | None) -> str:
        return NOT_MEASURED if scores is None else f"{crossed_interval(scores):+.4f}"

    for (name, given), reward in itertools.product(variants.items(), results.rewards()):
        if "spacing" not in given or not results.expected(name, reward):
            continue
        method = given["method"]
        ours = next((v for v, options in variants.items() if options == given | {"method": "shortft"}), "")
        line = {"method": method, "reward": reward}
        for label, variant in (("leading", method), (given["spacing"], name)):
            line[label] = Linked(told(results.gains(variant, reward)), results.of(variant, reward))
        gap, seeds = measured(results.paired(name, method, reward))
        line["difference"] = f"{gap:+.4f} ({seeds})" if gap else NOT_MEASURED
        if gap:
            rows.append({"method": method, "reward": reward, "seeds": seeds} | gap._asdict())
        for label, variant, other in (("leading", method, "shortft"), (given["spacing"], name, ours)):
            gaps = "" if variant == other else told(results.paired(variant, other, reward))
            line[f"{label}, less shortft's"] = gaps
        shown.append(line)
    return Table.of(results, "spacing", rows, shown)


def side_effects(results: Results) -> Table:
    """What else changed while the target reward rose."""
    rows, shown = [], []
    for reward, variant in itertools.product(results.rewards(), results.variants()):
        runs = results.of(variant, reward)
        if runs.empty:
            continue
        row = {"variant": variant, "reward": reward, "target": (runs.reward_after - runs.reward_before).mean()}
        oracle, seeds = measured(results.gains(variant, reward, "oracle"))
        if oracle:  # Stable Diffusion has none
            row["oracle"] = oracle
        row |= {"diversity": (runs.diversity_after - runs.diversity_before).mean(), "drift": runs.drift.mean()}
        for name in [c[8:-6] for c in runs if c.startswith("heldout.") and c.endswith(".after")]:
            row[name] = (runs[f"heldout.{name}.after"] - runs[f"heldout.{name}.before"]).mean()
        rows.append(row)
        texts = {"variant": variant, "reward": reward, "target": Linked(f"{row['target']:+.3f}", runs)}
        texts |= {"oracle": marked(oracle, seeds)} if oracle else {}
        shown.append({k: texts[k] if k in texts else "" if pd.isna(x) else f"{x:+.3f}" for k, x in row.items()})
    return Table.of(results, "side_effects", rows, shown)


def rates(results: Results) -> Table:
    """The learning rates that equal tuning chose."""
    found = {reward: results.rates(reward) for reward in results.rewards()}
    rows = [{"method": v} | {r: found[r].get(v, np.nan) for r in found} for v in results.variants()]

    def told(variant: str, rate: float, reward: str) -> str:
        return "" if not results.expected(variant, reward) else NOT_MEASURED if np.isnan(rate) else f"{rate:g}"

    shown = [{"method": (v := row["method"])} | {r: told(v, row[r], r) for r in found} for row in rows]
    return Table.of(results, "rates", rows, shown, rates=", ".join(f"{x:g}" for x in results.profile.tuning.rates))


def state(results: Results) -> Table:
    """How much of the matrix is there, and what was left out."""
    there = [(row.variant, row.reward, row.status) for row in results.runs.itertuples()]  # evaluated or not
    rows = []
    for variant, reward in itertools.product(results.variants(), results.rewards()):
        if expected := len(results.expected(variant, reward)):
            counts = {status: there.count((variant, reward, status)) for status in ("done", "diverged")}
            seeds = {"seeds": sum(counts.values()), "expected": expected}
            rows.append({"variant": variant, "reward": reward} | seeds | counts)
    shown = [{name: str(x) for name, x in row.items()} for row in rows]
    left = " ".join(f"{row.folder}: {row.problem}." for row in results.problems.itertuples()) or "Nothing."
    cells = len(there) + len(results.missing)
    return Table.of(results, "state", rows, shown, done=len(there), cells=cells, left=left)
