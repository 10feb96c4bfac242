"""The house: which rooms need torch, what a record belongs to, names that others rely on."""

import json
import subprocess
import sys

import pandas as pd
import pytest

import methods
from benchmark import renew
from benchmark.config import resolve
from benchmark.diffusion import sampler_plan
from benchmark.records.profile import Profile, rate_file
from benchmark.training.identity import identity
from tests.conftest import ROOT, call
from tests.synthetic import write_cell

SMOKE = ROOT / "profiles/smoke.yaml"
# In a process of its own: this one has torch already.
WALL = """
import importlib, pkgutil, sys
import benchmark.findings, benchmark.records, paper_figures
for room in (benchmark.findings, benchmark.records, paper_figures):
    for module in pkgutil.walk_packages(room.__path__, room.__name__ + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
import benchmark.tables, benchmark.docs, benchmark.report, methods
assert "shortft" in methods.names()
sys.exit("torch" in sys.modules)
"""


def test_records_findings_and_figures_import_no_torch():
    assert subprocess.run([sys.executable, "-c", WALL], timeout=100, check=False).returncode == 0


BASE = """
from methods.draft_k import DraftK

class Base(DraftK):
    pass
"""
CHILD = """
import methods_base_of_a_test

class Child(methods_base_of_a_test.Base):
    pass
"""


def test_a_record_belongs_to_every_class_that_its_method_inherits_from(tmp_path, monkeypatch):
    """As of ``shortft-everywhere``, whose class has little code of its own."""
    base, child = tmp_path / "methods_base_of_a_test.py", tmp_path / "methods_child_of_a_test.py"
    base.write_text(BASE)
    child.write_text(CHILD)
    monkeypatch.syspath_prepend(tmp_path)
    name = "methods_child_of_a_test:Child"
    names = [path.name for path in methods.sources(name)]
    assert names == [child.name, base.name, "draft_k.py", "interface.py"]
    config = resolve("mini", name, "hps", 0, None, "cpu", None, [])
    before = identity(config)["method"]
    base.write_text(BASE + "# changed")
    assert identity(config)["method"] != before
    everywhere = [path.name for path in methods.sources("benchmark.controls:ShortFTEverywhere")]
    assert everywhere == ["controls.py", "shortft.py", "interface.py"]


def test_old_names_are_known():
    import benchmark.ledger
    import benchmark.reader
    import benchmark.shortcut

    assert benchmark.reader is benchmark.records.reader
    assert benchmark.reader.__spec__.name == "benchmark.records.reader"
    assert benchmark.ledger is benchmark.diffusion.ledger
    line = [sys.executable, "-m", "benchmark.acting", "--reward", "hps"]
    result = subprocess.run(line, capture_output=True, text=True, timeout=100, check=False)
    assert result.returncode == 1
    assert "benchmark.acting is now benchmark.placement" in result.stderr


@pytest.mark.slow
def test_records_are_renewed_where_the_first_steps_are_the_recorded_ones(tmp_path):
    profile = Profile.read(SMOKE)
    (key,) = (k for k in profile.cells() if (k.variant, k.reward, k.seed) == ("draft_k", "hps", 0))
    folder, rates = write_cell(tmp_path, key, profile), rate_file(tmp_path, "mini", "hps")
    rates.parent.mkdir(parents=True)
    rates.write_text("".join(f"{variant}: 0.001\n" for variant in profile.tuned("hps")))
    config, _ = renew.resolve_cell(profile, "mini", "draft_k", "hps", 0, "cpu", tmp_path)
    now = identity(config)
    bench = renew.Workbench(config)
    texts, plan = bench.suite.prompts("test", 8), sampler_plan(bench.executor.timesteps, lambda t: ())
    rewards = bench.suite.scored_rewards()
    with bench.executor.ledger.paused():
        scores = pd.DataFrame(renew.score(bench, plan, rewards, texts)[1])
    scores.insert(0, "split", "test")
    scores.insert(1, "prompt", texts)
    scores.assign(when="before").to_csv(folder / "scores.csv", index=False, float_format="%.6g")
    log = pd.DataFrame([row for row, _ in zip(bench.trainer.steps(), range(2), strict=False)])
    log.to_csv(folder / "log.csv", index=False)
    record = folder / "run.json"
    record.write_text(json.dumps(now | {"method": "of earlier code"}))
    command = (renew.main, "--params", SMOKE, "--reward", "hps", "--out", tmp_path)

    log.assign(reward=log.reward * 1.01).to_csv(folder / "log.csv", index=False)
    moved = call(*command)
    assert moved.exit_code == 1
    assert "draft_k on hps: scores differ by" in moved.output
    assert json.loads(record.read_text())["method"] == "of earlier code"

    log.to_csv(folder / "log.csv", index=False)
    result = call(*command)
    assert result.exit_code == 0, result.output
    assert json.loads(record.read_text()) == now
    row = pd.read_csv(tmp_path / "mini/renewed/hps.csv").iloc[0]
    assert (row.variant, row.method_before, row.method) == ("draft_k", "of earlier code", now["method"])
    assert max(row.scores_differ, row.log_differs) < 1e-5

    record.write_text(json.dumps(now | {"protocol": 1, "method": "of earlier code"}))  # other rules: no renewal
    assert call(*command).exit_code == 0
    assert json.loads(record.read_text())["method"] == "of earlier code"
