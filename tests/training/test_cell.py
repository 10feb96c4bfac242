"""Runs whose scores cease to be numbers."""

import pandas as pd
import pytest
from rich.console import Console

from benchmark.config import resolve
from benchmark.records import Summary
from benchmark.records.reader import read_tree
from benchmark.run import main
from benchmark.suites.mini.suite import Mini
from benchmark.training.cell import Cell
from tests.conftest import call

pytestmark = pytest.mark.slow
SETTINGS = ["test_prompts=8", "batch=2", "train_prompts=3", "curve_points=2", "curve_prompts=4"]


@pytest.fixture(autouse=True)
def _eight_steps(monkeypatch):
    """A chain of them shows as much as one of 50."""
    monkeypatch.setattr(Mini, "steps", 8)


def test_a_run_whose_scores_are_not_finite_counts_as_at_its_last_evaluation(out):
    """Of its first step, at this rate, nothing finite comes; the evaluation before it is the base model's."""
    settings = [f"--set={setting}" for setting in (*SETTINGS, "learning_rate=1e30")]
    result = call(main, "--method", "draft_k", "--reward", "symmetry", "--budget", "4step", *settings, "--out", out)
    assert result.exit_code == 0, result.output
    (path,) = out.glob("mini/*/*/seed-*/summary.json")
    summary = Summary.model_validate_json(path.read_text())
    assert summary.status == "diverged"
    assert summary.reward_after == pytest.approx(summary.reward_before, abs=1e-6)
    assert read_tree(out).problems.empty


def test_a_run_that_breaks_late_counts_as_at_its_last_evaluation(out, monkeypatch):
    config = resolve("mini", "draft_k", "symmetry", 0, "4step", "cpu", None, [*SETTINGS, "learning_rate=0.01"])
    cell = Cell(config, out / "run", out, Console(quiet=True))
    train = cell.train

    def train_and_break(before):
        status = train(before)
        for parameter in cell.policy.parameters():
            parameter.data.fill_(float("nan"))
        cell.policy.refresh()
        return status

    monkeypatch.setattr(cell, "train", train_and_break)
    summary = cell()
    middle, end = pd.read_csv(out / "run/curve.csv").symmetry.iloc[[1, 2]]
    assert summary.status == "diverged"
    assert end == pytest.approx(middle, abs=1e-5)
    assert summary.reward_after != pytest.approx(summary.reward_before, abs=1e-5)
