"""The command that measures the cost of a step."""

import json

import pytest

from benchmark import cost
from tests.conftest import call


@pytest.mark.slow
def test_the_cost_of_a_step(tmp_path):
    line = ["--method", "draft_k", "--reward", "symmetry", "--set", "batch=2", "--set", "k=2", "--steps", 1]
    result = call(cost.main, *line, "--rounds", 1, "--out", tmp_path / "cost.json")
    assert result.exit_code == 0, result.output
    row = json.loads((tmp_path / "cost.json").read_text())["methods"]["draft_k"]
    assert (row["forwards"], row["backwards"], row["recomputations"]) == (200, 8, 0)
    assert row["ratio"] == pytest.approx(row["seconds"] / row["alone"])
