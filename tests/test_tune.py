import subprocess
import sys

import pandas as pd
import pytest
import yaml

from benchmark.sweep import read_rates
from benchmark.tune import GRID, grown, winners


def test_a_winner_on_the_edge_grows_the_grid_there():
    assert grown(GRID, [3e-4, 3e-4]) == GRID
    assert grown(GRID, [3e-4, 1e-3]) == (*GRID, 3e-3)
    assert grown(GRID, [1e-4, 1e-3]) == (3e-5, *GRID, 3e-3)
    assert grown((1e-2, 3e-2), [3e-2]) == (1e-2, 3e-2)  # the end of the ladder


def test_the_winner_is_the_best_rate_and_a_method_without_results_has_none():
    table = pd.DataFrame(
        {"method": ["a", "a", "b", "b", "c"], "learning_rate": [1e-4, 1e-3, 1e-4, 1e-3, 1e-4],
         "reward_after": [0.2, 0.1, 0.1, 0.3, None]}
    )  # fmt: skip
    assert winners(table) == {"a": 1e-4, "b": 1e-3}


@pytest.mark.slow
def test_the_command(tmp_path):
    def run(module, *arguments):
        line = [sys.executable, "-m", module, "--reward", "symmetry", "--budget", "1step", *arguments]
        return subprocess.run(line, capture_output=True, text=True, timeout=500, check=False)

    arguments = ("--method", "draft_k k=2", "--grow", "0", "--runs", str(tmp_path / "runs"),
                 "--set", "test_prompts=8", "--set", "batch=2")  # fmt: skip
    result = run("benchmark.tune", *arguments, "--out", str(tmp_path / "results"))
    assert result.returncode == 0, result.stderr + result.stdout
    folder = tmp_path / "results/mini/tuning"
    table = pd.read_csv(folder / "symmetry.csv")
    assert len(table) == len(GRID)
    assert (table.status == "done").all()
    rates = yaml.safe_load((folder / "rates.yaml").read_text())
    best = table.loc[table.groupby("method").reward_after.idxmax()].set_index("method").learning_rate
    assert rates == {"symmetry": best.to_dict()}
    assert read_rates(folder / "rates.yaml") == rates
    planned = run("benchmark.sweep", "--method", "draft_k k=2", "--rates", str(folder / "rates.yaml"), "--dry-run")
    assert "k=2" in planned.stdout
    unknown = run("benchmark.sweep", "--method", "refl", "--rates", str(folder / "rates.yaml"))
    assert (unknown.returncode, len(unknown.stderr.strip().splitlines())) == (2, 1)
    assert "no rate for refl on symmetry" in unknown.stderr
