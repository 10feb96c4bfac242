"""Tables of what is measured outside the matrix: cost, gradients, where LoRAs act."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ...records.results import Results
from ...statistics import Interval
from .table import Table


def cost(results: Results) -> Table:
    """What a step costs, and a whole run at that price."""
    table = results.cost
    formats = {"method": "{}", "forwards": "{:.0f}", "backwards": "{:.0f}", "recomputations": "{:.0f}",
               "seconds": "{:.3f}", "ratio": "{:.3f}", "peak_mb": "{:.0f}", "step_mb": "{:.0f}",
               "run_seconds": "{:.0f}", "few_step_seconds": "{:.0f}",
               "books": "{:.4f}", "slots": "{:.3f}", "switching": "{:.3f}"}  # fmt: skip
    if table is None:
        return Table("cost", f"Cost of a step, suite {results.suite}", "Not measured.", pd.DataFrame(),
                     pd.DataFrame(columns=list(formats)))  # fmt: skip
    frame = table.copy()
    reward = results.rewards()[0]
    runs = [results.of(v, reward) if len(results.runs) else pd.DataFrame() for v in frame.method]
    frame["run_seconds"] = frame.seconds / frame.operations * [r.operations.mean() if len(r) else np.nan for r in runs]
    frame["few_step_seconds"] = [r.few_step_seconds.mean() if len(r) else np.nan for r in runs]
    shown = frame[[column for column in formats if column in frame]].copy()
    for column in shown:
        shown[column] = ["" if pd.isna(x) else formats[column].format(x) for x in shown[column]]
    return Table(
        "cost", f"Cost of an optimiser step, suite {results.suite}",
        "Denoiser calls of a step, image by image (guidance counts twice); seconds of a step, alone on the machine; "
        "ratio to the same calls timed alone; peak memory, and what a step "
        "adds to the peak that loading the models had (0: it stays below); run_seconds is a "
        f"run's on {reward} at this speed, by operations (ShortFT's step is one of its first stage, the cheapest); "
        "few_step_seconds: what making the few-step model took before, where it is used, other work beside it; "
        "books: share of the step that ledger and log take; slots, switching: a call with all LoRA slots on, and one "
        "that switches them, over a call with none. `draft` and `alignprop` recompute (checkpoint) by default.",
        frame, shown,
    )  # fmt: skip


def gpu(results: Results) -> Table:
    """What a step costs at Stable Diffusion 1.5's shape: seconds and peak memory by the number of prompts."""
    title, table = "Cost of an optimiser step at Stable Diffusion 1.5's shape, on GPUs", results.gpu
    if table.empty:
        return Table("gpu", title, "Not measured.", pd.DataFrame(), pd.DataFrame(columns=["GPU", "method"]))
    frame = table.sort_values(["device", "variant", "batch"], kind="stable")
    shown = []
    for (device, pixels, variant), rows in frame.groupby(["device", "pixels", "variant"], sort=False):
        name = device if pixels == 512 else f"{device}, {pixels} pixels"
        line, by_batch = {"GPU": name, "method": variant}, rows.set_index("batch")
        for batch in sorted(frame.batch.unique()):
            row = by_batch.loc[batch] if batch in by_batch.index else None
            known = row is not None and row.fits
            line[f"batch {batch}, s"] = f"{row.seconds:.2f}" if known else "" if row is None else "does not fit"
            line[f"batch {batch}, GiB"] = f"{row.peak_mb / 1024:.1f}" if known else ""
        shown.append(line)
    return Table(
        "gpu", title,
        "Random weights in the true architectures (`results/gpu`), bfloat16, 512 pixels; seconds of a step and peak "
        "memory of the GPU, by prompts a step (DDPO makes four images of each); ShortFT's step is one of its first "
        "stage. With few prompts most of the time is that of launching kernels, which wavers (`ratio` in the CSV: to "
        "the same calls timed alone; `share`: of the rate of a large matrix product). Empty: not measured.",
        frame, pd.DataFrame(shown),
    )  # fmt: skip


SHARES = ("from_method", "from_noise", "from_prompts")


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
        for name in [n for n in ("normalised_variance", "full_normalised_variance", "cosine") if n in row]:
            line[name] = f"{Interval(row[name], row[f'{name}_low'], row[f'{name}_high']):.3g}"
        known = abs(row.get("cosine_of_means", np.nan)) <= 1
        shares = [row.get(name, np.nan) for name in SHARES]
        for name, told in (("cosine_of_means", known), *((name, min(shares) >= 0) for name in SHARES),
                           ("variance_x_tflop", not pd.isna(row.get("variance_x_tflop")))):  # fmt: skip
            line[name] = f"{row[name]:.3g}" if told else "" if pd.isna(row.get(name)) else "?"
        shown.append(line)
    return Table(
        "gradients", title,
        "At checkpoints of one reference run, same prompts and noise: normalised variance tr Cov / |mean|^2 (`full_`: "
        "of the full chain of the same sampler) and paired cosine with the full chain's gradient [95% intervals], "
        "shares of the variance, variance times operations. `from`: share of the budget at which this phase of ShortFT "
        "begins; `slot`: one LoRA slot, or all. ?: the unbiased estimate lies outside of what is possible (a cosine "
        "above 1, a negative share): not determined.",
        table, pd.DataFrame(shown),
    )  # fmt: skip


def acting(results: Results) -> Table:
    """Where along the chain a tuned LoRA acts."""
    title, frames, shown = f"Where a LoRA earns its reward, suite {results.suite}", [], []
    for reward in results.rewards():
        table = results.placement(reward)
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
