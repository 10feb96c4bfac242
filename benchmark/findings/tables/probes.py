"""Tables of what is measured outside the matrix: cost, gradients, where LoRAs act."""

import numpy as np
import pandas as pd

from ...records.results import Results
from ...statistics import Interval
from .table import Table

SHARES = ("from_method", "from_noise", "from_prompts")
COST = {"method": "{}"} | dict.fromkeys(("forwards", "backwards", "recomputations"), "{:.0f}")
COST |= dict.fromkeys(("seconds", "ratio"), "{:.3f}") | dict.fromkeys(("peak_mb", "step_mb"), "{:.0f}")
COST |= dict.fromkeys(("run_seconds", "few_step_seconds"), "{:.0f}")
COST |= {"books": "{:.4f}", "slots": "{:.3f}", "switching": "{:.3f}"}  # columns as they are shown, and how


def cost(results: Results) -> Table:
    """What a step costs, and a whole run at that price."""
    if results.cost is None:
        return Table.missing(results, "cost", *COST)
    frame, reward = results.cost.copy(), results.rewards()[0]
    runs = [results.of(v, reward) for v in frame.method]
    frame["run_seconds"] = frame.seconds / frame.operations * [r.operations.mean() if len(r) else np.nan for r in runs]
    frame["few_step_seconds"] = [r.few_step_seconds.mean() if len(r) else np.nan for r in runs]
    formats = {name: code for name, code in COST.items() if name in frame}
    shown = [
        {name: "" if pd.isna(row[name]) else code.format(row[name]) for name, code in formats.items()}
        for row in frame.to_dict("records")
    ]
    return Table.of(results, "cost", frame, shown, reward=reward)


def gpu(results: Results) -> Table:
    """What a step costs at Stable Diffusion 1.5's shape: seconds and peak memory by the number of prompts."""
    if results.gpu.empty:
        return Table.missing(results, "gpu", "GPU", "method")
    frame, shown = results.gpu.sort_values(["device", "variant", "batch"], kind="stable"), []
    for (device, pixels, variant), rows in frame.groupby(["device", "pixels", "variant"], sort=False):
        line = {"GPU": device if pixels == 512 else f"{device}, {pixels} pixels", "method": variant}
        by_batch = {row.batch: row for row in rows.itertuples()}
        for batch in sorted(frame.batch.unique()):
            row = by_batch.get(batch)
            known = row is not None and row.fits
            line[f"batch {batch}, s"] = f"{row.seconds:.2f}" if known else "" if row is None else "does not fit"
            line[f"batch {batch}, GiB"] = f"{row.peak_mb / 1024:.1f}" if known else ""
        shown.append(line)
    return Table.of(results, "gpu", frame, shown)


def gradients(results: Results) -> Table:
    """Variance and bias of the gradient estimates."""
    table, shown = results.gradients, []
    if table is None:
        return Table.missing(results, "gradients", "method")
    for row in table.to_dict("records"):
        line = {"step": row["reference_step"], "method": row["method"], "from": f"{row['progress']:.0%}"}
        line |= {"slot": row["slot"], "norm": f"{row['norm']:.3g}"}
        for name in [n for n in ("normalised_variance", "full_normalised_variance", "cosine") if n in row]:
            line[name] = f"{Interval(row[name], row[f'{name}_low'], row[f'{name}_high']):.3g}"
        possible = {"cosine_of_means": abs(row.get("cosine_of_means", np.nan)) <= 1}
        possible |= dict.fromkeys(SHARES, min(row.get(name, np.nan) for name in SHARES) >= 0)
        for name in (*possible, "variance_x_tflop"):
            x = row.get(name, np.nan)
            line[name] = "" if pd.isna(x) else f"{x:.3g}" if possible.get(name, True) else "?"
        shown.append(line)
    return Table.of(results, "gradients", table, shown)


def acting(results: Results) -> Table:
    """Where along the chain a tuned LoRA acts."""
    frames, shown = [], []
    for reward in results.rewards():
        table = results.placement(reward)
        if table is None:
            continue
        frames.append(table.assign(reward=reward))
        for variant, rows in table.groupby("variant", sort=False):
            gains = {f"steps {r.steps}": f"{Interval(r.gain, r.gain_low, r.gain_high):+.3f}" for r in rows.itertuples()}
            shown.append({"LoRA of": variant, "reward": reward} | gains)
    if not frames:
        return Table.missing(results, "acting", "LoRA of")
    return Table.of(results, "acting", pd.concat(frames, ignore_index=True), shown)
