"""The benchmark's tables from its records: CSV (numbers), Markdown and LaTeX (to read). No torch.

    python -m benchmark.tables                       results/<suite> -> results/tables, results/claims.md and .json
    python -m benchmark.tables --params profiles/smoke.yaml --results build/results

Also gives the verdicts on the claims (``benchmark.claims``), since they are made of the same records.
"""

from __future__ import annotations

import dataclasses
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer
import yaml
from rich.console import Console
from scipy import stats

from .claims import efficiency, judge, markdown, overview, read_claims
from .profile import Profile, ProfileError
from .records import write_json, write_text
from .results import Results
from .statistics import Interval, crossed_interval, geometric_mean, iqm

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = Console(highlight=False, soft_wrap=True)

PUBLISHED = yaml.safe_load(Path(__file__).with_name("published.yaml").read_text(encoding="utf-8"))
NOT_MEASURED = "not measured"
MARKS = "<!-- {} -->", "<!-- end of {} -->"  # around what a README has of the results


def piped(rows: Iterable[Iterable]) -> list[str]:
    """Rows as lines of a Markdown table; the second is the rule below the heads."""
    return ["| " + " | ".join(map(str, row)) + " |" for row in rows]


@dataclasses.dataclass(frozen=True)
class Table:
    """A table: ``frame`` has its numbers, ``shown`` the strings that people read, in the same or another shape.

    runs       folders behind a shown cell, by (row, column) of ``shown``
    published  rows of the paper that stand below, in the same columns
    """

    name: str
    title: str
    note: str
    frame: pd.DataFrame
    shown: pd.DataFrame
    runs: dict[tuple[int, str], list[str]] = dataclasses.field(default_factory=dict)
    published: list[list[str]] = dataclasses.field(default_factory=list)

    def lines(self) -> list[str]:
        rows = [self.shown.columns, ["---"] * self.shown.shape[1], *self.shown.itertuples(index=False), *self.published]
        return piped(rows)

    def markdown(self) -> str:
        return "\n".join([f"# {self.title}", "", self.note, "", *self.lines(), ""])

    def latex(self) -> str:
        whole = pd.DataFrame([*self.shown.values.tolist(), *self.published], columns=self.shown.columns)
        return f"% {self.title}\n" + whole.to_latex(index=False, escape=True)


PUBLISHED_NOTE = (
    "Rows marked published are Stable Diffusion 1.5's (arXiv:2507.22604): another model, another scale, one seed, not "
    "to be compared number by number."
)


def published(name: str, columns: list[str]) -> list[list[str]]:
    """The published rows of a table, in its columns."""
    return [
        [f"{row['method']} (published)" if column == "method" else str(row.get(column, "")) for column in columns]
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
                 "seconds", "prior_seconds"):  # fmt: skip
        row[name] = runs[name].mean()
    return row


def interval_of(row: dict, name: str) -> str:
    """A number of ``cell_row`` with its interval; empty where the row has none."""
    return f"{Interval(*(row[name + end] for end in ('', '_low', '_high'))):+.3f}" if name in row else ""


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
        change = Interval(row["gain"], row["gain_low"], row["gain_high"])
        return f"{row['iqm']:.4f} ({change:+.4f}; {seeds_of(results, variant, reward)})"

    shown, runs = wide(results, variants, rewards, show)
    bases = {r: np.mean([row["base"] for (_, reward), row in found.items() if reward == r and row] or np.nan)
             for r in rewards}  # fmt: skip
    base = {"method": "base model"} | {r: f"{x:.4f}" if np.isfinite(x) else NOT_MEASURED for r, x in bases.items()}
    shown = pd.concat([pd.DataFrame([base]), shown], ignore_index=True)
    return Table(
        "table1", f"Table 1. Methods and rewards at equal compute, suite {results.suite}",
        f"Interquartile mean over seeds of the final target reward on held-out prompts, {results.profile.budget} "
        "each (mean change from the base model [95% interval for new seeds and prompts]; seeds). "
        + PUBLISHED_NOTE,
        pd.DataFrame([row for row in found.values() if row]), shown, {(i + 1, r): f for (i, r), f in runs.items()},
        published("table1", ["method", *rewards]),
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
            runs[len(shown), "gain"] = results.of(row["variant"], reward).folder.tolist()
            shown.append({
                "reward": reward, "variant": row["variant"], "seeds": seeds_of(results, row["variant"], reward),
                "gain": interval_of(row, "gain"), "less ShortFT's": interval_of(row, "gap"),
                "oracle": interval_of(row, "oracle"), "less ShortFT's oracle": interval_of(row, "oracle_gap"),
                "diversity": f"{row['diversity']:+.3f}", "steps": f"{row['steps']:.0f}",
                "prior seconds": f"{row['prior_seconds']:.0f}",
            })  # fmt: skip
            rows.append(row)
    return Table(
        "ranking", f"Who won, and by how much, suite {results.suite}",
        "Change of the target reward on held-out prompts, its paired difference to ShortFT's, and the same of the "
        "oracle of truth [95% intervals for new seeds and prompts; of a single seed for new prompts alone]; change of "
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
    return Table("published_scale", title, note, pd.DataFrame(rows), pd.DataFrame(shown), published=reference)


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
            gap = crossed_interval(gaps)
            text += f" ({gap:+.4f}; {len(gaps)})"
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
    others += variants_where(results, shortcut="naive")
    note = "draft_coarse: 10 large DDIM steps, no few-step model; naive jumps: one DDIM step in each shortcut's place."
    return against(results, "controls", "Controls. Is the few-step model needed?", note, "shortft", others)


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
            row = {"reward": reward, "variant": variant, "target": (runs.reward_after - runs.reward_before).mean()}
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
            shown.append(line | ({"oracle": f"{oracle:+.3f}"} if known else {}))
    return Table(
        "side_effects", f"What else changed, suite {results.suite}",
        "Mean change on held-out prompts: target reward, oracle of truth [95% interval], diversity, and the rewards "
        "that were not trained; drift is the distance of the final latents from the base model's. Both distances are "
        "of latents: once a model has collapsed they say little.",
        pd.DataFrame(rows), pd.DataFrame(shown).fillna(""), behind,
    )  # fmt: skip


def cost(results: Results) -> Table:
    """What a step costs, and a whole run at that price."""
    table = results.cost
    formats = {"method": "{}", "forwards": "{:.0f}", "backwards": "{:.0f}", "recomputations": "{:.0f}",
               "seconds": "{:.3f}", "ratio": "{:.3f}", "peak_mb": "{:.0f}", "step_mb": "{:.0f}",
               "run_seconds": "{:.0f}", "books": "{:.4f}", "slots": "{:.3f}", "switching": "{:.3f}"}  # fmt: skip
    if table is None:
        return Table("cost", f"Cost of a step, suite {results.suite}", "Not measured.", pd.DataFrame(),
                     pd.DataFrame(columns=list(formats)))  # fmt: skip
    frame = table.copy()
    reward = results.rewards()[0]
    operations = [results.of(v, reward).operations.mean() if len(results.runs) else np.nan for v in frame.method]
    frame["run_seconds"] = frame.seconds / frame.operations * operations
    shown = frame[[column for column in formats if column in frame]].copy()
    for column in shown:
        shown[column] = ["" if pd.isna(x) else formats[column].format(x) for x in shown[column]]
    return Table(
        "cost", f"Cost of an optimiser step, suite {results.suite}",
        "Denoiser calls of a step, image by image (guidance counts twice); seconds of a step, alone on the machine; "
        "ratio to the same calls timed alone; peak memory, and what a step adds to the loaded models; run_seconds is a "
        f"run's on {reward} at this speed, by operations (ShortFT's step is one of its first stage, the cheapest); "
        "books: share of the step that ledger and log take; slots, switching: a call with all LoRA slots on, and one "
        "that switches them, over a call with none. `draft` and `alignprop` recompute (checkpoint) by default.",
        frame, shown,
    )  # fmt: skip


def gpu(results: Results) -> Table:
    """What a step costs at Stable Diffusion 1.5's shape."""
    title, table = "Cost of an optimiser step at Stable Diffusion 1.5's shape, on GPUs", results.gpu
    columns = {"seconds": "{:.3f}", "images_per_second": "{:.2f}", "peak_mb": "{:.0f}", "ratio": "{:.3f}",
               "share": "{:.0%}"}  # fmt: skip
    if table.empty:
        return Table("gpu", title, "Not measured.", pd.DataFrame(), pd.DataFrame(columns=["method", *columns]))
    frame = table.sort_values(["device", "variant", "batch"], kind="stable")
    shown = frame.rename(columns={"variant": "method"})[["device", "method", "batch", *columns]].copy()
    for column, code in columns.items():
        shown[column] = ["" if pd.isna(x) else code.format(x) for x in shown[column]]
    return Table(
        "gpu", title,
        "Random weights in the true architectures (`results/gpu`), bfloat16; seconds of a step, images a second, peak "
        "memory of the GPU, ratio to the same calls timed alone, share of the rate of a large matrix product there.",
        frame, shown,
    )  # fmt: skip


def gradients(results: Results) -> Table:
    """Variance and bias of the gradient estimates."""
    title = f"Gradient estimates, suite {results.suite}"
    table = results.gradients
    if table is None:
        return Table("gradients", title, "Not measured.", pd.DataFrame(), pd.DataFrame(columns=["method"]))
    shown = []
    for row in table.to_dict("records"):
        line = {"step": row["reference_step"], "method": row["method"], "from": f"{row['progress']:.0%}",
                "slot": row["slot"], "norm": f"{row['norm']:.3g}"}  # fmt: skip
        for name in ("normalised_variance", "cosine"):
            line[name] = f"{Interval(row[name], row[f'{name}_low'], row[f'{name}_high']):.3g}"
        for name in ("cosine_of_means", "from_method", "from_noise", "from_prompts", "variance_x_tflop"):
            line[name] = "" if pd.isna(row.get(name)) else f"{row[name]:.3g}"
        shown.append(line)
    return Table(
        "gradients", title,
        "At checkpoints of one reference run, same prompts and noise: normalised variance tr Cov / |mean|^2 and paired "
        "cosine with the full chain's gradient [95% intervals], shares of the variance, variance times operations. "
        "`from`: share of the budget at which this phase of ShortFT begins; `slot`: one LoRA slot, or all.",
        table, pd.DataFrame(shown),
    )  # fmt: skip


def acting(results: Results) -> Table:
    """Where along the chain a tuned LoRA acts."""
    title, frames, shown = f"Where a LoRA earns its reward, suite {results.suite}", [], []
    for reward in results.rewards():
        table = results.acting(reward)
        if table is None:
            continue
        frames.append(table.assign(reward=reward))
        for variant, rows in table.groupby("variant", sort=False):
            gains = {
                f"steps {row.steps}": f"{Interval(row.gain, row.gain_low, row.gain_high):+.3f}"
                for row in rows.itertuples()
            }
            shown.append({"LoRA of": variant, "reward": reward} | gains)
    if not frames:
        return Table("acting", title, "Not measured.", pd.DataFrame(), pd.DataFrame(columns=["LoRA of"]))
    return Table(
        "acting", title,
        "Change of the target reward on held-out prompts where the tuned LoRA of seed 0 is on at these of the "
        "sampler's 50 steps alone [95% interval over prompts]; `shortft's 15`: those where ShortFT's LoRAs act.",
        pd.concat(frames, ignore_index=True), pd.DataFrame(shown),
    )  # fmt: skip


def time_to_target(results: Results) -> Table:
    """Who gets sooner to where the other ends: ShortFT against every other method, both ways, reward by reward."""
    rows, shown = [], []
    others = [method for method in results.profile.methods() if method != "shortft"]
    for of, over in [("shortft", other) for other in others] + [(other, "shortft") for other in others]:
        line = {"method": of, "to where ends": over}
        for reward in results.rewards():
            found = efficiency(results, of, over, reward) if len(results.curves) else None
            if found is None:
                line[reward] = NOT_MEASURED
                continue
            ratios, censored = found
            mean = geometric_mean([ratios])
            rows.append({"of": of, "over": over, "reward": reward, "seeds": len(ratios), "ratio": mean.value,
                         "low": mean.low, "high": mean.high, "never_reached": int(censored.sum())})  # fmt: skip
            bound = "< " if censored.all() else "<= " if censored.any() else ""
            line[reward] = f"{bound}{mean.value:.2f} ({int(censored.sum())} of {len(ratios)} never)"
        shown.append(line)
    return Table(
        "time_to_target", f"Time to target, suite {results.suite}",
        "Compute of the other's whole run over what a method needs to reach, and keep to the next evaluation, the "
        "other's mean final reward: above 1 it is cheaper (geometric mean over seeds; how many runs never did: then an "
        "upper bound). Evaluations are an eighth of the budget apart, so no ratio is much above 8.",
        pd.DataFrame(rows), pd.DataFrame(shown),
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
    rows = []
    for variant in results.variants():
        for reward in results.rewards():
            expected = results.expected(variant, reward)
            if expected:
                runs = results.of(variant, reward)
                rows.append(
                    {"variant": variant, "reward": reward, "seeds": len(runs), "expected": len(expected)}
                    | {s: int((runs.status == s).sum()) if len(runs) else 0 for s in ("done", "diverged")}
                )
    frame = pd.DataFrame(rows)
    left = " ".join(f"{row.folder}: {row.problem}." for row in results.problems.itertuples()) or "Nothing."
    done = len(results.runs)
    note = f"{done} of {done + len(results.missing)} cells of the profile are there. Left out: {left}"
    return Table("state", f"State of the matrix, suite {results.suite}", note, frame, frame.astype(str))


TABLES = (
    ranking, table1, table2, table3, controls, spacing, side_effects, time_to_target, cost, gpu, gradients, acting,
    rates, settled, state,
)  # fmt: skip


def build(results: Results) -> list[Table]:
    made = [make(results) for make in TABLES]
    return made + [published_scale(results)] * (results.suite == "sd15")


def write(tables: list[Table], folder: Path) -> None:
    """CSV, Markdown and LaTeX of every table; what is not among them goes from the folder."""
    shutil.rmtree(folder, ignore_errors=True)
    for table in tables:
        csv = table.frame.to_csv(index=False, float_format="%.6g") if len(table.frame.columns) else "\n"
        for ending, text in (("csv", csv), ("md", table.markdown()), ("tex", table.latex())):
            write_text(folder / f"{table.name}.{ending}", text)


def progress(results: Results) -> list[str]:
    """How much of the matrix is there, in a sentence."""
    cells = pd.DataFrame([key for key in results.profile.cells() if key.suite == results.suite])
    expected = cells.reward.value_counts()
    here = results.runs.reward.value_counts() if len(results.runs) else {}
    parts = ", ".join(f"`{reward}` {here.get(reward, 0)} of {expected[reward]}" for reward in results.rewards())
    return [f"{len(results.runs)} of {len(cells)} cells of the standard matrix are there: {parts}."]


def summary(results: Results) -> list[str]:
    """Gain and oracle of every method on every reward that has runs, in a few columns."""
    rewards = [reward for reward in results.rewards() if len(results.runs) and (results.runs.reward == reward).any()]
    rows = [["method", *(head for reward in rewards for head in (f"{reward}, gain", "oracle"))]]
    rows.append(["---"] * len(rows[0]))
    for variant in results.profile.methods():
        line = [f"`{variant}`"]
        for reward in rewards:
            row = cell_row(results, variant, reward)
            if row is None:
                line += [NOT_MEASURED, ""]
                continue
            line += [f"{interval_of(row, 'gain')} ({seeds_of(results, variant, reward)})", interval_of(row, "oracle")]
        rows.append(line)
    return piped(rows)


def into_readme(readme: Path, parts: dict[str, list[str]]) -> None:
    """Put lines between the marks that bear their names in a text file. Raises ProfileError where it has no marks."""
    text = readme.read_text(encoding="utf-8")
    for name, lines in parts.items():
        first, last = (mark.format(name) for mark in MARKS)
        if not text.count(first) == text.count(last) == 1:
            raise ProfileError(f"{readme} must have the lines {first} and {last} once each")
        text = "\n".join([text.split(first)[0] + first, *lines, last]) + text.split(last)[1]
    write_text(readme, text)


def open_results(params: Path, root: Path) -> list[Results]:
    """The results of every suite of a profile. Raises ProfileError."""
    profile = Profile.read(params)
    for suite in profile.suites:
        if not (root / suite).is_dir():
            raise ProfileError(f"{root / suite} is no folder of results; the pipeline or benchmark.sweep makes it")
    return [Results.read(root, profile, suite) for suite in profile.suites]


@app.command()
def main(
    params: Annotated[Path, typer.Option(help="The profile: what the matrix should have.")] = Path("params.yaml"),
    results: Annotated[Path, typer.Option(help="The folder with the records.")] = Path("results"),
    claims: Annotated[Path, typer.Option(help="The claims and the rules that decide.")] = Path("claims.yaml"),
    readme: Annotated[
        Path | None,
        typer.Option(
            help="Also put the first suite's verdicts, state, results and cost between the marks of this file."
        ),
    ] = None,
) -> None:
    """Make all tables and verdicts anew from the records."""
    try:
        loaded, stated = open_results(params, results), read_claims(claims)
    except ProfileError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    texts, verdicts = [], []
    for part in loaded:
        write(build(part), results / "tables" / part.suite)
        judged = [judge(claim, part) for claim in stated]
        verdicts += judged
        texts.append(markdown(judged, f"suite {part.suite}"))
        console.print(
            f"suite {part.suite}: {len(part.runs)} runs, {len(part.missing)} cells missing, "
            f"{len(part.problems)} folders left out"
        )
        for row in part.problems.itertuples():
            console.print(f"  {row.folder}: {row.problem}")
    try:
        if readme:
            judged = [verdict for verdict in verdicts if verdict["suite"] == loaded[0].suite]
            parts = {"verdicts": overview(judged), "state": progress(loaded[0]), "results": summary(loaded[0]),
                     "cost": cost(loaded[0]).lines()}  # fmt: skip
            into_readme(readme, parts)
    except (OSError, ProfileError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    write_text(results / "claims.md", "\n".join(texts))
    write_json(results / "claims.json", verdicts)
    console.print(f"written to {results / 'tables'}, {results / 'claims.md'}")


if __name__ == "__main__":
    app()
