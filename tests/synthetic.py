"""A results tree of invented numbers, for tests of what is made from records: tables, verdicts, figures, report.

python -m tests.synthetic FOLDER      writes one for params.yaml
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from PIL import Image

from benchmark.records import Summary
from benchmark.records.profile import CellKey, Profile, rate_file
from benchmark.records.protocol import PROTOCOL_VERSION

COUNTS = {"denoiser_forwards": 9000, "denoiser_backwards": 900, "denoiser_recomputations": 0, "decoder_forwards": 80,
          "decoder_backwards": 80, "reward_forwards": 80, "reward_backwards": 80, "images": 640}  # fmt: skip
REWARDS = ("hps", "pickscore", "imagereward", "symmetry", "compressibility")
STRENGTH = {"shortft": 0.10, "draft_k": 0.08, "draft_lv": 0.07, "draft_coarse": 0.06, "ddpo": 0.01}


def write_cell(root: Path, key: CellKey, profile: Profile, prompts: int = 16) -> Path:
    """One run of invented numbers; stronger methods end higher."""
    method = profile.method(key.variant)
    rng = np.random.default_rng([key.seed, *key.variant.encode(), *key.reward.encode()])
    folder = key.folder(root)
    folder.mkdir(parents=True)
    columns = [*REWARDS, *({key.reward} - set(REWARDS)), "oracle"]
    gain = STRENGTH.get(key.variant, 0.05) + rng.normal(0, 0.004)
    tables = []
    for split, count in (("test", prompts), ("combinations", prompts // 4), ("train", prompts // 4)):
        fixed = np.random.default_rng(len(split))
        before = pd.DataFrame(fixed.uniform(0.2, 0.6, (count, len(columns))), columns=columns)
        after = before + rng.normal(gain / 2, 0.02, before.shape)
        after[key.reward] = before[key.reward] + gain + rng.normal(0, 0.02, count)
        after["oracle"] = before["oracle"] - gain / 4 + rng.normal(0, 0.02, count)
        for when, table in (("before", before), ("after", after)):
            names = {"split": split, "prompt": [f"{split} prompt {i}" for i in range(count)], "when": when}
            tables.append(table.assign(**names))
    scores = pd.concat(tables).sort_values("when", ascending=False, kind="stable")
    scores.to_csv(folder / "scores.csv", index=False, float_format="%.6g")
    mean = scores.groupby(["split", "when"])[columns].mean()

    def pair(column: str, split: str = "test") -> tuple[float, float]:
        return mean.loc[(split, "before"), column], mean.loc[(split, "after"), column]

    share = np.linspace(0, 1, 9)
    curve = pd.DataFrame({"share": share, "step": (200 * share).astype(int), "seconds": 100 * share,
                          "operations": (1e13 * share).astype(int), "images": (1600 * share).astype(int)})  # fmt: skip
    for column in columns:
        first, last = pair(column)
        curve[column] = first + (last - first) * (1 - (1 - share) ** 2)
    curve["diversity"], curve["drift"], curve["evaluation_seconds"] = 1 - 0.2 * share, 0.3 * share, 1.0
    curve.to_csv(folder / "curve.csv", index=False)
    log = pd.DataFrame({"step": range(1, 201), "reward": pair(key.reward)[0] + gain * np.linspace(0, 1, 200)})
    log.assign(grad_norm=1.0, progress=np.linspace(0, 1, 200)).to_csv(folder / "log.csv", index=False)
    heldout = {name: pair(name) for name in REWARDS if name != key.reward}
    summary = Summary(
        status="done", suite=key.suite, method=method, reward=key.reward, seed=key.seed, budget=profile.budget,
        steps=200, seconds=100.0 + rng.uniform(0, 5), evaluation_seconds=50.0, reward_before=pair(key.reward)[0],
        reward_after=pair(key.reward)[1], reward_se=0.01, oracle_before=pair("oracle")[0],
        oracle_after=pair("oracle")[1], oracle_se=0.01, diversity_before=1.0, diversity_after=0.8, drift=0.3,
        peak_memory_mb=800.0, prior_seconds={"shortcut": 100.0, "hps": 50.0}, heldout=heldout,
        combinations={key.reward: pair(key.reward, "combinations")}, training={key.reward: pair(key.reward, "train")},
        operations=10_000_000_000_000, **COUNTS,
    )  # fmt: skip
    (folder / "summary.json").write_text(summary.model_dump_json(indent=2))
    options = {k: v for k, v in profile.variants.get(key.variant, {}).items() if k != "method"}
    settings = {"learning_rate": 1e-3, "split": "test", "spacing": options.pop("spacing", "leading")} | profile.settings
    config = {"suite": key.suite, "method": method, "reward": key.reward, "seed": key.seed, "budget": profile.budget,
              "device": "cpu", "settings": settings, "options": options}  # fmt: skip
    (folder / "run.json").write_text(json.dumps({"config": config, "protocol": PROTOCOL_VERSION, "weights": "w"}))
    environment = {"python": "3.11", "versions": {"torch": "2.11"}, "device": "cpu (invented)", "threads": 1}
    (folder / "environment.json").write_text(json.dumps(environment))
    picture = rng.uniform(0, 255, (2 * 32, 8 * 32, 3)).astype(np.uint8)
    Image.fromarray(picture).save(folder / "samples.jpg", quality=40)
    return folder


def write_probes(root: Path, profile: Profile, suite: str) -> None:
    """Gradient and fidelity figures, cost and tuning."""
    folder = root / suite
    rng = np.random.default_rng(0)
    names = ["alignprop", "ddpo", "draft", "draft_coarse", "draft_k", "draft_lv", "drtune", "refl", "shortft",
             *(f"draft_k k={k}" for k in (2, 5, 10, 20)), "shortft shortcut=naive",
             "shortft timestep_aware=false"]  # fmt: skip
    rows = []
    for step in (20, 100):
        for name in names:
            stages = (0.0, 0.25, 0.5, 0.75) if name.startswith("shortft") else (0.0,)
            for stage in stages:
                slots = ["all", *range(1 + round(stage * 4), 5)] if name == "shortft" and stage < 0.75 else ["all"]
                for slot in slots:
                    value, cosine, norm = rng.uniform(0.5, 4), rng.uniform(0.1, 0.9), rng.uniform(0.001, 0.1)
                    row = {"reference_step": step, "method": name, "progress": stage, "slot": slot, "batches": 128}
                    for figure, x in (("norm", norm), ("normalised_variance", value), ("cosine", cosine)):
                        row |= {figure: x, f"{figure}_low": 0.9 * x, f"{figure}_high": 1.1 * x}
                    row |= {"mean_norm": norm / 2, "variance": norm**2, "cosine_of_means": cosine**0.5}
                    if slot == "all":
                        row |= {"from_method": 0.0, "from_noise": 0.6, "from_prompts": 0.4, "tflop": 0.05,
                                "variance_x_tflop": value * 0.05}  # fmt: skip
                    rows.append(row)
    (folder / "gradients").mkdir(parents=True)
    pd.DataFrame(rows).to_csv(folder / f"gradients/{profile.gradients.reward}.csv", index=False)
    (folder / f"gradients/{profile.gradients.reward}.json").write_text("{}")
    (folder / "fidelity").mkdir()
    for spacing in profile.fidelity.spacings:
        (folder / f"fidelity/{spacing}.json").write_text("{}")
        stretches = ["741->501", "481->261", "241->1", "four jumps", "ShortFT's chain"]
        jumps = [{"stretch": name, "shortcut": 0.1, "shortcut_low": 0.09, "shortcut_high": 0.11, "naive": 0.2,
                  "naive_low": 0.19, "naive_high": 0.21, "ratio": 0.5, "ratio_low": 0.45, "ratio_high": 0.55}
                 for name in stretches]  # fmt: skip
        pd.DataFrame(jumps).to_csv(folder / f"fidelity/jumps-{spacing}.csv", index=False)
        images = [{"chain": chain, "error": 0.1, "reward": reward, "mean": 0.5, "change": -0.01, "change_low": -0.02,
                   "change_high": 0.0, "absolute_change": 0.03, "absolute_change_low": 0.02,
                   "absolute_change_high": 0.04}
                  for chain in ("base", "shortcut x4", "naive x4", "shortft", "shortft naive", "coarse")
                  for reward in (*REWARDS, "oracle")]  # fmt: skip
        pd.DataFrame(images).to_csv(folder / f"fidelity/images-{spacing}.csv", index=False)
        picture = (
            np.random.default_rng(0)
            .uniform(0, 255, (len({row["chain"] for row in images}) * 32, 8 * 32, 3))
            .astype(np.uint8)
        )
        Image.fromarray(picture).save(folder / f"fidelity/pictures-{spacing}.jpg", quality=40)
    gains = {"all 50": 0.1, "shortft's 15": 0.04, "the other 35": 0.08, "50": 0.01}
    acting = [{"variant": variant, "steps": steps, "gain": gain, "gain_low": gain - 0.01, "gain_high": gain + 0.01}
              for variant in profile.methods() for steps, gain in gains.items()]  # fmt: skip
    (folder / "placement").mkdir()
    pd.DataFrame(acting).to_csv(folder / "placement/hps.csv", index=False)
    (folder / "placement/hps.json").write_text("{}")
    cost = {name: {"forwards": 800.0, "backwards": 100.0, "recomputations": 0.0, "operations": 5e10,
                   "seconds": 0.5 + i / 10, "seconds_low": 0.45 + i / 10, "seconds_high": 0.55 + i / 10, "alone": 0.5,
                   "ratio": 1.02, "peak_mb": 800.0, "step_mb": 100.0 + 10 * i, "slots": 1.0, "switching": 1.0}
            for i, name in enumerate(profile.cost.methods)}  # fmt: skip
    environment = {"device": "cpu (invented)", "threads": 1}
    (folder / "cost.json").write_text(json.dumps({"environment": environment, "suite": suite, "methods": cost}))
    for reward in {key.reward for key in profile.cells()}:
        path = rate_file(root, suite, reward)
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump(dict.fromkeys(profile.tuned(reward), 1e-3)))
        evidence = [{"reward": reward, "variant": variant, "learning_rate": rate, "status": "done",
                     "reward_before": 0.4, "reward_after": 0.5 - abs(np.log10(rate) + 3) / 10, "reward_se": 0.01,
                     "oracle_after": 0.5, "steps": 80, "operations": 4e12, "fingerprint": f"{variant}{rate}"}
                    for variant in profile.tuned(reward) for rate in profile.tuning.rates]  # fmt: skip
        pd.DataFrame(evidence).to_csv(path.with_suffix(".csv"), index=False)


def write_tree(root: Path, profile: Profile, seeds: int = 5) -> Path:
    """A whole tree for a profile, with at most that many seeds of each cell."""
    for key in profile.cells():
        if key.seed < seeds:
            write_cell(root, key, profile)
    for suite in profile.suites:
        write_probes(root, profile, suite)
    return root


if __name__ == "__main__":
    write_tree(Path(sys.argv[1]), Profile.read(Path("params.yaml")))
