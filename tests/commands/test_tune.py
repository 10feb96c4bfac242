import pandas as pd
import pytest
import yaml

from benchmark import tune
from benchmark.records.profile import read_rates
from benchmark.run import main as run_main
from benchmark.tune import grown, winners
from tests.conftest import ROOT, call, refused, share

GRID = (1e-4, 3e-4, 1e-3)


def test_a_winner_on_the_edge_grows_its_grid_there():
    assert grown(GRID, 3e-4) == GRID
    assert grown(GRID, 1e-3) == (*GRID, 3e-3)
    assert grown(GRID, 1e-4) == (3e-5, *GRID)
    assert grown((3e-2, 1e-1), 1e-1) == (3e-2, 1e-1)  # the end of the ladder
    assert grown(GRID, None) == GRID  # no run gave a result


def test_the_winner_is_the_best_rate_and_a_method_without_results_has_none():
    table = pd.DataFrame(
        {"variant": ["a", "a", "b", "b", "c"], "learning_rate": [1e-4, 1e-3, 1e-4, 1e-3, 1e-4],
         "reward_after": [0.2, 0.1, 0.1, 0.3, None], "status": "done"}
    )  # fmt: skip
    assert winners(table) == {"a": 1e-4, "b": 1e-3}
    table.loc[table.reward_after == 0.3, "status"] = "diverged"  # and counts as it was before
    assert winners(table)["b"] == 1e-4
    table.loc[table.variant == "b", "status"] = "diverged"
    assert winners(table)["b"] == 1e-3
    assert winners(pd.DataFrame()) == {}


@pytest.mark.slow
def test_the_command(base, tmp_path):
    profile = yaml.safe_load((ROOT / "profiles/smoke.yaml").read_text())
    profile["tuning"] |= {"rates": [1e-4, 1e-3], "growths": 0}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(profile))
    folder, runs = tmp_path / "results/mini/tuning", share(base, tmp_path / "runs")

    def run(*arguments, main=tune.main):
        given = ("--params", tmp_path / "params.yaml", "--reward", "symmetry", "--out", tmp_path / "results")
        return call(main, *given, *arguments)

    def tuned(*arguments):
        return run("--runs", runs, "--jobs", 1, *arguments)

    result = tuned("--method", "draft_k k=2")
    assert result.exit_code == 0, result.output
    table = pd.read_csv(folder / "symmetry.csv")
    assert table.learning_rate.tolist() == [1e-4, 1e-3]
    assert (table.status == "done").all()
    rates = read_rates(folder / "symmetry.yaml")
    assert rates == {"draft_k k=2": table.learning_rate[table.reward_after.idxmax()]}

    # The evidence is enough: nothing runs again, and another method's is left alone.
    made = set(runs.rglob("summary.json"))
    for path in made:
        path.unlink()
    assert tuned("--method", "draft_k k=2").exit_code == 0
    assert not set(runs.rglob("summary.json"))
    assert read_rates(folder / "symmetry.yaml") == rates
    assert pd.read_csv(folder / "symmetry.csv").equals(table)

    unknown = run("--method", "shortft", main=run_main)
    assert refused(unknown, "no rate for shortft")
    assert "benchmark.tune" in unknown.stderr
    assert refused(run("--reward", "pickscore", "--runs", runs))
