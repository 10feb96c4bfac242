"""Tables from run folders; the real ones are read in test_run.py."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from benchmark import reader
from benchmark.records import Summary

COUNTS = dict.fromkeys(
    ("denoiser_forwards", "denoiser_backwards", "denoiser_recomputations", "decoder_forwards", "decoder_backwards",
     "reward_forwards", "reward_backwards", "images", "operations"), 1
)  # fmt: skip


def write_run(root, method="draft_k", seed=0):
    folder = root / f"mini/hps/{method}/seed-{seed}"
    folder.mkdir(parents=True)
    before, after = np.array([0.1, 0.3, 0.2]), np.array([0.3, 0.4, 0.5]) + seed / 10
    scores = pd.DataFrame(
        {"split": "test", "prompt": list("abc") * 2, "hps": [*before, *after], "when": ["before"] * 3 + ["after"] * 3}
    ).assign(oracle=0.5)
    scores.to_csv(folder / "scores.csv", index=False)
    curve = {"share": [0, 1], "step": [0, 9], "operations": [0, 10], "hps": [before.mean(), after.mean()]}
    pd.DataFrame(curve).to_csv(folder / "curve.csv", index=False)
    summary = Summary(
        status="done", suite="mini", method=method, reward="hps", seed=seed, budget="9step", steps=9, seconds=1.0,
        evaluation_seconds=1.0, reward_before=before.mean(), reward_after=after.mean(), reward_se=0.1,
        oracle_before=0.5, oracle_after=0.6, oracle_se=0.1, diversity_before=1.0, diversity_after=0.9, drift=0.1,
        peak_memory_mb=1.0, prior_seconds={"shortcut": 2.0, "hps": 3.0}, heldout={"pickscore": (0.1, 0.2)},
        combinations={}, training={}, **COUNTS,
    )  # fmt: skip
    (folder / "summary.json").write_text(summary.model_dump_json())
    config = {"suite": "mini", "method": method, "reward": "hps", "seed": seed, "budget": "9step", "device": "cpu",
              "settings": {"learning_rate": 0.001, "split": "test"}, "options": {"k": 1}}  # fmt: skip
    (folder / "run.json").write_text(json.dumps({"config": config, "protocol": 1, "weights": "w"}))
    return folder


def test_a_tree_becomes_tables(tmp_path):
    folders = [write_run(tmp_path, seed=seed) for seed in (0, 1)]
    runs, curves, problems = reader.read_tree(tmp_path)
    assert problems.empty
    assert runs.seed.tolist() == [0, 1]
    assert runs["settings.learning_rate"].tolist() == [0.001, 0.001]
    assert runs["heldout.pickscore.after"].tolist() == [0.2, 0.2]
    assert runs.prior_seconds.tolist() == [5, 5]
    assert len(curves) == 4
    assert set(curves.folder) == set(map(str, folders))
    changes = reader.paired_scores(runs.folder.tolist(), "hps", "test")
    assert changes == pytest.approx(np.array([[0.2, 0.1, 0.3], [0.3, 0.2, 0.4]]))


def broken(name, change):
    def spoil(folder):
        path = folder / name
        path.unlink() if change is None else path.write_text(change(path.read_text()))

    return spoil


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (broken("run.json", None), "run.json is missing"),
        (broken("summary.json", None), "the run has not ended"),
        (broken("summary.json", lambda text: text[: len(text) // 2]), "no JSON object"),
        (broken("summary.json", lambda text: text.replace('"done"', '"finished"')), "status"),
        (broken("summary.json", lambda text: text.replace('"record_version":3', '"record_version":1')), "version 1"),
        (broken("summary.json", lambda text: text.replace('"seed":7', '"seed":8')), "seed"),
        (broken("run.json", lambda text: text.replace('"settings"', '"setting"')), "no whole configuration"),
        (broken("run.json", lambda text: "[]"), "no JSON object"),
        (broken("scores.csv", None), "scores.csv is missing"),
        (broken("scores.csv", lambda text: text.replace("hps", "hpz")), "lacks the column 'hps'"),
        (broken("scores.csv", lambda text: "\n".join(text.splitlines()[:-1])), "does not give"),
        (broken("scores.csv", lambda text: text.replace("oracle", "miracle")), "lacks the column 'oracle'"),
        (broken("scores.csv", lambda text: text.replace(",0.5", ",half", 1)), "something else than numbers"),
        (broken("scores.csv", lambda text: text.replace("test,a", "test,z", 1)), "other prompts after tuning"),
        (broken("curve.csv", lambda text: "\n".join(text.splitlines()[:-1])), "a single evaluation"),
        (broken("curve.csv", lambda text: text.replace("9", "nine")), "something else than numbers"),
        (broken("scores.csv", lambda text: ""), "cannot be read"),
        (broken("curve.csv", lambda text: text.splitlines()[0] + "\n"), "no rows"),
    ],
)
def test_a_bad_run_is_named_and_left_out(spoil, words, tmp_path):
    write_run(tmp_path)
    bad = write_run(tmp_path, seed=7)
    spoil(bad)
    runs, curves, problems = reader.read_tree(tmp_path)
    assert runs.seed.tolist() == [0]
    assert len(curves) == 2
    assert problems.folder.tolist() == [str(bad)]
    assert words in problems.problem[0]
    assert "\n" not in problems.problem[0]


def test_what_is_no_run_is_not_looked_at(tmp_path):
    write_run(tmp_path)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/readme.txt").write_text("hello")
    assert reader.read_tree(tmp_path).problems.empty
    shutil.rmtree(tmp_path / "mini")
    runs, curves, problems = reader.read_tree(tmp_path)
    assert runs.empty
    assert curves.empty
    assert problems.empty


def test_runs_on_other_prompts_are_not_paired(tmp_path):
    folders = [write_run(tmp_path, seed=seed) for seed in (0, 1)]
    scores = folders[1] / "scores.csv"
    scores.write_text(scores.read_text().replace("test,c,", "test,d,"))
    with pytest.raises(ValueError, match="other prompts"):
        reader.paired_scores(folders, "hps", "test")


def test_reading_needs_no_torch():
    code = "import sys; from benchmark import reader; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
