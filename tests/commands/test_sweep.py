import json

import pandas as pd
import pytest

from benchmark.sweep import main
from tests.conftest import call, refused

pytestmark = pytest.mark.slow


def sweep(*arguments):
    return call(main, *arguments)


def test_the_cells_are_the_product(tmp_path):
    result = sweep(
        "--method", "draft_k", "--method", "shortft", "--seed", "0", "--seed", "1",
        "--grid", "learning_rate=1e-4,1e-3", "--out", str(tmp_path), "--dry-run",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    lines = result.stdout.replace("\n", " ").split("-m benchmark.run")[1:]
    assert len(lines) == 2 * 2 * 2
    assert sum("learning_rate=0.0001" in line for line in lines) == 4  # 1e-3 is the default


def test_bad_input_is_one_line():
    assert refused(sweep("--method", "draft", "--grid", "k=0"))


def test_a_dry_run_names_the_cells_that_wait_for_tuning(tmp_path):
    result = sweep("--params", "profiles/smoke.yaml", "--out", str(tmp_path), "--dry-run")
    assert result.exit_code == 0, result.output
    assert "main@mini-draft_k-hps-0  # waits: " in result.stdout
    assert refused(sweep("--params", "profiles/smoke.yaml", "--out", tmp_path))


def test_what_is_done_is_kept(out, tmp_path):
    arguments = (
        "--method", "draft_k", "--reward", "symmetry", "--budget", "1step", "--set", "test_prompts=8", "--set",
        "batch=2", "--set", "train_prompts=3", "--seed", "0", "--seed", "1", "--jobs", "2", "--out", out,
    )  # fmt: skip
    first = sweep(*arguments, "--csv", str(tmp_path / "table.csv"))
    assert first.exit_code == 0, first.output
    assert "change on held-out prompts" in first.stdout
    table = pd.read_csv(tmp_path / "table.csv")
    summaries = [json.loads(path.read_text()) for path in tmp_path.rglob("summary.json")]
    assert table.seeds.tolist() == [2]
    changes = [s["reward_after"] - s["reward_before"] for s in summaries]
    assert table.change[0] == pytest.approx(sum(changes) / 2, rel=1e-3)
    assert table.change_low[0] < table.change[0] < table.change_high[0]
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("summary.json")}
    assert len(stamps) == 2
    again = sweep(*arguments)
    assert again.exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("summary.json")} == stamps


def test_a_profile_decides(tmp_path):
    """What belongs together is said once: a profile's cells take no settings from the command line."""
    assert refused(sweep("--params", "profiles/smoke.yaml", "--budget", "1step"))
    assert refused(sweep("--params", "profiles/smoke.yaml", "--seed", 7, "--out", tmp_path), "no such cell")
