"""Tables of how runs end: which method, who won, Tables 1 to 3 of the paper, controls, what else changed, tuning."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from ...records.results import Results
from ...statistics import Interval, crossed_interval, iqm
from .table import NOT_MEASURED, ONE_SEED, Table

PUBLISHED = yaml.safe_load(Path(__file__).parents[1].joinpath("published.yaml").read_text(encoding="utf-8"))
PUBLISHED_NOTE = (
    "Rows marked published are Stable Diffusion 1.5's (arXiv:2507.22604): another model, another scale, one seed, not "
    "to be compared number by number."
)


def published(name: str, columns: list[str]) -> list[list[str]]:
    """The published rows of a table, in its columns."""
    return [
        [
            f"{row['method']} (published{row.get('said', '')})" if column == "method" else str(row.get(column, ""))
            for column in columns
        ]
        for row in PUBLISHED[name]
        if any(column in row for column in columns[1:])
    ]


def seeds_of(results: Results, variant: str, reward: str) -> str:
    """How many of the profile's seeds stand behind a cell."""
    here, expected = len(results.of(variant, reward)), len(results.expected(variant, reward))
    return f"{here}" if here == expected else f"{here} of {expected}"


def cell_row(results: Results, variant: str, reward: str) -> dict | None:
    """A variant on a reward in numbers; None without runs."""
    runs = results.of(variant, reward)
    if runs.empty:
        return None
    row = {"variant": variant, "reward": reward, "seeds": len(runs), "expected": len(results.expected(variant, reward)),
           "diverged": int((runs.status == "diverged").sum()), "base": runs.reward_before.mean(),
           "iqm": iqm(runs.reward_after.to_numpy())}  # fmt: skip
    for name, column, split in (("gain", reward, "test"), ("oracle", "oracle", "test"),
                                ("combinations", reward, "combinations"), ("training", reward, "train")):  # fmt: skip
        if (gains := results.gains(variant, reward, column, split)) is None:
            continue  # Stable Diffusion has no oracle
        interval = crossed_interval(gains)
        row |= {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
    row["diversity"] = (runs.diversity_after - runs.diversity_before).mean()
    row["drift"] = runs.drift.mean()
    for name in ("steps", "images", "operations", "denoiser_forwards", "denoiser_backwards", "denoiser_recomputations",
                 "seconds", "prior_seconds", "few_step_seconds"):  # fmt: skip
        row[name] = runs[name].mean()
    return row


def marked(interval: Interval, seeds: int, digits: int = 3) -> str:
    """An interval in words, marked where it is of one seed alone."""
    return f"{interval:+.{digits}f}" + ONE_SEED * (seeds == 1)


def interval_of(row: dict, name: str, seeds: str = "seeds") -> str:
    """A number of ``cell_row`` with its interval; empty where the row has none."""
    if name not in row:
        return ""
    return marked(Interval(*(row[name + end] for end in ("", "_low", "_high"))), row[seeds])


def wide(
    results: Results, rows: list[str], columns: list[str], show: Callable[[str, str], str | None]
) -> tuple[pd.DataFrame, dict]:
    """A shown table of variants x rewards, and the runs behind its cells."""
    shown, runs = [], {}
    for variant in rows:
        line = {"method": variant}
        for reward in columns:
            expected = results.expected(variant, reward)
            line[reward] = (show(variant, reward) or NOT_MEASURED) if expected else ""
            if len(results.runs):
                runs[len(shown), reward] = results.of(variant, reward).folder.tolist()
        shown.append(line)
    return pd.DataFrame(shown, columns=["method", *columns]), runs


def table1(results: Results) -> Table:
    rewards, variants = results.rewards(), results.profile.methods()
    found = {(v, r): cell_row(results, v, r) for r in rewards for v in results.variants()}

    def show(variant: str, reward: str) -> str | None:
        row = found[variant, reward]
        if row is None:
            return None
        change = marked(Interval(row["gain"], row["gain_low"], row["gain_high"]), row["seeds"], 4)
        return f"{row['iqm']:.4f} ({change}; {seeds_of(results, variant, reward)})"

    shown, runs = wide(results, variants, rewards, show)
    bases = {r: np.mean([row["base"] for (_, reward), row in found.items() if reward == r and row] or np.nan)
             for r in rewards}  # fmt: skip
    base = {"method": "base model"} | {r: f"{x:.4f}" if np.isfinite(x) else NOT_MEASURED for r, x in bases.items()}
    shown = pd.concat([pd.DataFrame([base]), shown], ignore_index=True)
    return Table(
        "table1", f"Table 1. Methods and rewards at equal compute, suite {results.suite}",
        f"Interquartile mean over seeds of the final target reward on held-out prompts, {results.profile.budget} "
        "each (mean over seeds of the change from the base model [95% interval for new seeds and prompts]; seeds). "
        + PUBLISHED_NOTE,
        pd.DataFrame([row for row in found.values() if row]), shown, {(i + 1, r): f for (i, r), f in runs.items()},
        published("table1", ["method", *rewards]),
    )  # fmt: skip


def leaders(results: Results, rows: list[dict], reward: str) -> list[dict]:
    """Of rows of methods the one with the largest gain, and those with a clear gain whose difference to it is not."""
    first, *others = sorted(rows, key=lambda row: -row["gain"])
    gaps = [results.paired(first["variant"], row["variant"], reward) for row in others]
    return [first] + [
        row
        for row, gap in zip(others, gaps, strict=True)
        if row["gain_low"] > 0 and gap is not None and crossed_interval(gap).low <= 0
    ]


def extent(values: list[float], code: str) -> str:
    """Least and largest of some numbers in words."""
    return " to ".join(dict.fromkeys(format(x, code) for x in (min(values), max(values)))) if values else ""


def choice(results: Results) -> Table:
    """Which method for which reward: those that gain most, and those that do so without losing the truth."""
    frame, shown, runs = [], [], {}
    for reward in results.rewards():
        found = [row for m in results.profile.methods() if (row := cell_row(results, m, reward))]
        if not found:
            shown.append({"reward": reward, "seeds": "0", "largest gain": NOT_MEASURED})
            continue
        known = any("oracle" in row for row in found)  # Stable Diffusion has none
        honest = [row for row in found if row["gain_low"] > 0 and row["oracle_high"] >= 0] if known else None
        line = {"reward": reward, "seeds": extent([row["seeds"] for row in found], "")}
        for head, prefix, rows in (("largest gain", "", found), ("largest gain, oracle kept", "its ", honest)):
            if rows is None:
                line[head] = NOT_MEASURED
                continue
            best = leaders(results, rows, reward) if rows else []
            line[head] = ", ".join(row["variant"] for row in best) or "none"
            line[f"{prefix}gain"] = extent([row["gain"] for row in best], "+.3f")
            line[f"{prefix}oracle"] = extent([row["oracle"] for row in best if "oracle" in row], "+.2f")
            runs[len(shown), head] = [f for row in best for f in results.of(row["variant"], reward).folder]
            frame += [{"reward": reward, "among": head, "variant": row["variant"], "seeds": row["seeds"],
                       "gain": row["gain"], "oracle": row.get("oracle", np.nan)} for row in best]  # fmt: skip
        shown.append(line)
    return Table(
        "choice", f"Which method for which reward, suite {results.suite}",
        f"At {results.profile.budget} each: the method with the largest gain of the target reward, and those with a "
        "gain clear of zero whose paired difference to it reaches zero, with the change of the oracle of truth. Oracle "
        "kept: the same among methods whose gain is clear of zero and whose oracle's change reaches zero: pictures "
        "that are not measurably less true. With one seed all this is for new prompts alone, and fewer methods look "
        "alike than would with more; with two or three the intervals are wide, and more do.",
        pd.DataFrame(frame), pd.DataFrame(shown).fillna(""), runs,
    )  # fmt: skip


def ranking(results: Results) -> Table:
    """Every row of a reward, the largest gain first: who won, by how much, and at what price."""
    rows, shown, runs = [], [], {}
    for reward in results.rewards():
        found = [row for v in results.variants() if (row := cell_row(results, v, reward))]
        for row in sorted(found, key=lambda row: -row["gain"]):
            for name, column in (("gap", reward), ("oracle_gap", "oracle")) if row["variant"] != "shortft" else ():
                if (gaps := results.paired(row["variant"], "shortft", reward, column)) is not None:
                    row |= dict(zip((name, f"{name}_low", f"{name}_high"), crossed_interval(gaps), strict=True))
                    row[f"{name}_seeds"] = len(gaps)
            runs[len(shown), "gain"] = results.of(row["variant"], reward).folder.tolist()
            shown.append({
                "variant": row["variant"], "reward": reward, "seeds": seeds_of(results, row["variant"], reward),
                "gain": interval_of(row, "gain"), "less ShortFT's": interval_of(row, "gap", "gap_seeds"),
                "oracle": interval_of(row, "oracle"),
                "less ShortFT's oracle": interval_of(row, "oracle_gap", "oracle_gap_seeds"),
                "diversity": f"{row['diversity']:+.3f}", "steps": f"{row['steps']:.0f}",
                "prior seconds": f"{row['prior_seconds']:.0f}",
            })  # fmt: skip
            rows.append(row)
    return Table(
        "ranking", f"Who won, and by how much, suite {results.suite}",
        "Change of the target reward on held-out prompts, its paired difference to ShortFT's, and the same of the "
        "oracle of truth [95% intervals for new seeds and prompts]; change of "
        "diversity, a distance of latents that means nothing once a model has collapsed; optimiser steps that the "
        "budget paid for; seconds that making the reward's and, where used, the few-step model took before, which no "
        "budget counts. Variants on trailing spacing begin at their own sampler's images.",
        pd.DataFrame(rows), pd.DataFrame(shown), runs,
    )  # fmt: skip


def published_scale(results: Results) -> Table:
    """HPSv2 as papers on Stable Diffusion show it, whatever reward was trained."""
    rows, shown = [], []
    for variant in results.variants():
        for reward in results.rewards():
            runs = results.of(variant, reward)
            column = "reward_after" if reward == "hps20" else "heldout.hps20.after"
            if not len(runs) or column not in runs:
                continue
            before, after = (100 * runs[column.replace("after", when)].mean() for when in ("before", "after"))
            rows.append({"variant": variant, "reward": reward, "seeds": len(runs), "before": before, "after": after})
            shown.append({"method": variant, "reward": reward, "seeds": seeds_of(results, variant, reward),
                          "base model": f"{before:.2f}", "HPSv2": f"{after:.2f}"})  # fmt: skip
    note = "Mean over seeds and held-out prompts, v2.0 x 100. " + PUBLISHED_NOTE
    title = f"HPSv2 on the published scale, suite {results.suite}"
    reference = published("table1", ["method", "", "", "", "hps"])
    columns = ["method", "reward", "seeds", "base model", "HPSv2"]
    shown = pd.DataFrame(shown, columns=columns)
    return Table("published_scale", title, note, pd.DataFrame(rows), shown, published=reference)


def against(results: Results, name: str, title: str, note: str, ours: str, others: list[str]) -> Table:
    """Variants beside ``ours``, with the paired difference of their final reward to it."""
    rewards = [r for r in results.rewards() if any(results.expected(v, r) for v in others)]
    numbers = []

    def show(variant: str, reward: str) -> str | None:
        runs = results.of(variant, reward)
        if runs.empty:
            return None
        text = f"{runs.reward_after.mean():.4f}"
        row = {"variant": variant, "reward": reward, "seeds": len(runs), "final": runs.reward_after.mean()}
        if variant != ours and (gaps := results.paired(variant, ours, reward)) is not None:
            gap, expected = crossed_interval(gaps), len(results.expected(variant, reward))
            text += f" ({marked(gap, len(gaps), 4)}; {len(gaps)}{f' of {expected}' * (len(gaps) < expected)})"
            row |= {"difference": gap.value, "difference_low": gap.low, "difference_high": gap.high}
        numbers.append(row)
        return text

    shown, runs = wide(results, [ours, *others], rewards, show)
    note = (
        f"Mean final target reward (paired difference to {ours} in the change from the base [95% interval]; seeds). "
        + note
    )
    reference = published(name, ["method", *rewards]) if name in PUBLISHED else []
    return Table(name, f"{title}, suite {results.suite}", note, pd.DataFrame(numbers), shown, runs, reference)


def variants_where(results: Results, **options) -> list[str]:
    """The profile's variants of ShortFT that set exactly these options."""
    return [name for name, given in results.profile.variants.items() if given == {"method": "shortft", **options}]


def table2(results: Results) -> Table:
    return against(
        results, "table2", "Table 2. Tuning the base model through shortcuts, or the few-step model itself",
        PUBLISHED_NOTE, "shortft", variants_where(results, policy="shortcut"),
    )  # fmt: skip


def table3(results: Results) -> Table:
    ablations = variants_where(results, timestep_aware=False) + variants_where(results, progressive=False)
    return against(results, "table3", "Table 3. Ablations of ShortFT", PUBLISHED_NOTE, "shortft", ablations)


def controls(results: Results) -> Table:
    others = [m for m in ("draft_coarse",) if m in results.profile.methods()]
    others += variants_where(results, shortcut="naive") + variants_where(results, rank=4)
    others += variants_where(results, method="benchmark.controls:ShortFTEverywhere")
    note = (
        "Is the few-step model needed? draft_coarse: 10 large DDIM steps, no few-step model; naive jumps: one DDIM "
        "step in each shortcut's place. Is it the parameters? rank4: four LoRAs with as many as one of the others' "
        "has. Is it where its LoRAs act? everywhere: the same gradient, LoRAs on at all steps."
    )
    return against(results, "controls", "Controls of ShortFT", note, "shortft", others)


def spacing(results: Results) -> Table:
    """Each method with the last step of the sampler almost powerless (leading) and not (trailing)."""
    rows, shown, runs = [], [], {}
    for name, given in results.profile.variants.items():
        if "spacing" not in given:
            continue
        for reward in results.rewards():
            if not results.expected(name, reward):
                continue
            line = {"method": given["method"], "reward": reward}
            for label, variant in (("leading", given["method"]), (given["spacing"], name)):
                gains = results.gains(variant, reward)
                line[label] = NOT_MEASURED if gains is None else f"{crossed_interval(gains):+.4f}"
                runs[len(shown), label] = [] if gains is None else results.of(variant, reward).folder.tolist()
            if (gaps := results.paired(name, given["method"], reward)) is not None:
                gap = crossed_interval(gaps)
                line["difference"] = f"{gap:+.4f} ({len(gaps)})"
                rows.append({"method": given["method"], "reward": reward, "seeds": len(gaps), "value": gap.value,
                             "low": gap.low, "high": gap.high})  # fmt: skip
            ours = next((v for v, g in results.profile.variants.items() if g == given | {"method": "shortft"}), "")
            for label, variant, other in (("leading", given["method"], "shortft"), (given["spacing"], name, ours)):
                gaps = results.paired(variant, other, reward)
                missing = "" if variant == other else NOT_MEASURED
                line[f"{label}, less shortft's"] = (
                    missing if gaps is None or variant == other else f"{crossed_interval(gaps):+.4f}"
                )
            shown.append(line)
    note = (
        "Change of the target reward from the base model of the same sampler [95% interval]; difference (seeds); and "
        "the change less ShortFT's under the same spacing."
    )
    title = f"Spacing of the sampler's steps, suite {results.suite}"
    return Table("spacing", title, note, pd.DataFrame(rows), pd.DataFrame(shown).fillna(NOT_MEASURED), runs)


def side_effects(results: Results) -> Table:
    """What else changed while the target reward rose."""
    rows, shown, behind = [], [], {}
    for reward in results.rewards():
        for variant in results.variants():
            runs = results.of(variant, reward)
            if runs.empty:
                continue
            row = {"variant": variant, "reward": reward, "target": (runs.reward_after - runs.reward_before).mean()}
            if known := (gains := results.gains(variant, reward, "oracle")) is not None:  # Stable Diffusion has none
                oracle = crossed_interval(gains)
                row |= {"oracle": oracle.value, "oracle_low": oracle.low, "oracle_high": oracle.high}
            row["diversity"] = (runs.diversity_after - runs.diversity_before).mean()
            row["drift"] = runs.drift.mean()
            for name in [c[8:-6] for c in runs if c.startswith("heldout.") and c.endswith(".after")]:
                row[name] = (runs[f"heldout.{name}.after"] - runs[f"heldout.{name}.before"]).mean()
            rows.append(row)
            line = {k: v if isinstance(v, str) else "" if pd.isna(v) else f"{v:+.3f}" for k, v in row.items()
                    if k not in ("oracle_low", "oracle_high")}  # fmt: skip
            behind[len(shown), "target"] = runs.folder.tolist()
            shown.append(line | ({"oracle": marked(oracle, len(gains))} if known else {}))
    return Table(
        "side_effects", f"What else changed, suite {results.suite}",
        "Mean change on held-out prompts: target reward, oracle of truth [95% interval], diversity, "
        "and the rewards that were not trained; drift is the distance of the final latents from the base model's. Both "
        "distances are of latents: once a model has collapsed they say little.",
        pd.DataFrame(rows), pd.DataFrame(shown).fillna(""), behind,
    )  # fmt: skip


def rates(results: Results) -> Table:
    """The learning rates that equal tuning chose."""
    rewards = results.rewards()
    found = {reward: results.rates(reward) for reward in rewards}
    rows = [{"method": v} | {r: found[r].get(v, np.nan) for r in rewards} for v in results.variants()]
    shown = pd.DataFrame(
        [{"method": row["method"]} | {r: (NOT_MEASURED if np.isnan(row[r]) else f"{row[r]:g}")
                                      if results.expected(row["method"], r) else "" for r in rewards} for row in rows]
    )  # fmt: skip
    tuning = results.profile.tuning
    return Table(
        "rates", f"Learning rates, suite {results.suite}",
        f"All rows begin with the same rates ({', '.join(f'{rate:g}' for rate in tuning.rates)}; {tuning.budget} on "
        f"seed {tuning.seed}, validation prompts), and one whose best lies on the edge of what it tried gets the next, "
        f"up to {tuning.growths} times. Rates are chosen at {tuning.budget}, runs are of {results.profile.budget}: "
        f"what is best there may be too large here. The evidence is in `results/{results.suite}/tuning`.",
        pd.DataFrame(rows), shown,
    )  # fmt: skip


def state(results: Results) -> Table:
    """How much of the matrix is there, and what was left out."""
    runs = [(row.variant, row.reward, row.status) for row in results.runs.itertuples()]  # evaluated or not
    rows = []
    for variant, reward in itertools.product(results.variants(), results.rewards()):
        if expected := len(results.expected(variant, reward)):
            counts = {status: runs.count((variant, reward, status)) for status in ("done", "diverged")}
            rows.append({"variant": variant, "reward": reward, "seeds": sum(counts.values()), "expected": expected}
                        | counts)  # fmt: skip
    frame = pd.DataFrame(rows)
    left = " ".join(f"{row.folder}: {row.problem}." for row in results.problems.itertuples()) or "Nothing."
    done = len(results.runs)
    note = f"{done} of {done + len(results.missing)} cells of the profile are there. Left out: {left}"
    return Table("state", f"State of the matrix, suite {results.suite}", note, frame, frame.astype(str))
