"""The pipeline's graph, with invented records in place of runs: what depends on what. CI runs it for real."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from benchmark.records.profile import Profile
from tests.synthetic import write_tree

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """A copy of the repository with the smoke profile and records of it, which DVC takes for its own."""
    there = tmp_path_factory.mktemp("clone")
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    for name in files:
        recorded = name.startswith("results/") and not name.startswith("results/gpu/")
        if not recorded and (ROOT / name).exists():
            (there / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, there / name)
    subprocess.run(["git", "init", "--quiet"], cwd=there, check=True)
    shutil.copy(there / "profiles/smoke.yaml", there / "params.yaml")
    write_tree(there / "results", Profile.read(there / "params.yaml"))
    for made in ("paper_figures/out", "results/tables"):
        (there / made).mkdir(parents=True, exist_ok=True)
    for made in ("claims.md", "claims.json", "report.html"):
        (there / "results" / made).write_text("")
    assert dvc(there, "commit", "--force", "--quiet") == ""
    return there


def dvc(where: Path, *arguments: str) -> str:
    line = [sys.executable, "-m", "dvc", *arguments]
    result = subprocess.run(line, cwd=where, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def stale(where: Path) -> set[str]:
    """Stages of which something changed."""
    return set(json.loads(dvc(where, "status", "--json")))


@pytest.fixture
def changed(clone):
    """Change a file of the clone by a function of its text; it is put back afterwards."""
    kept = {}

    def change(name: str, edit) -> Path:
        path = clone / name
        kept.setdefault(path, path.read_text())
        path.write_text(edit(path.read_text()))
        assert path.read_text() != kept[path], "nothing was changed"
        return clone

    yield change
    for path, text in kept.items():
        path.write_text(text)


def settings(**changes):
    def edit(text):
        content = yaml.safe_load(text)
        for name, value in changes.items():
            *above, last = name.split("__")
            part = content
            for step in above:
                part = part[step]
            part[last] = value
        return yaml.safe_dump(content)

    return edit


CELLS = {key.stage for key in Profile.read(ROOT / "profiles/smoke.yaml").cells()}


def test_a_stage_for_every_cell(clone):
    listed = {line.split()[0] for line in dvc(clone, "stage", "list", "--name-only").splitlines()}
    assert listed >= CELLS
    groups = {stage.split("@")[0] for stage in CELLS}
    assert {stage for stage in listed if stage.split("@")[0] in groups} == CELLS


def test_what_is_recorded_is_up_to_date(clone):
    assert stale(clone) == set()
    assert "up to date" in dvc(clone, "repro", "--dry")


def test_the_budget_is_every_cells(changed):
    assert CELLS <= stale(changed("params.yaml", settings(budget="5step"))) <= CELLS | {"tables", "figures", "report"}


def test_a_rate_is_its_cells_alone(changed):
    clone = changed("results/mini/tuning/hps.yaml", lambda text: text.replace("one-lora: 0.001", "one-lora: 0.003"))
    assert stale(clone) & CELLS == {"ablation@mini-shortft-one-lora-hps-0"}


def test_a_variant_is_its_cells_alone(changed):
    clone = changed("params.yaml", settings(**{"variants__shortft-few-step-policy__policy": "base"}))
    assert stale(clone) & CELLS == {"control@mini-shortft-few-step-policy-hps-0"}


def test_a_method_is_its_cells_alone(changed):
    clone = changed("methods/draft_k.py", lambda text: text + "\n# changed\n")
    assert stale(clone) & CELLS == {stage for stage in CELLS if "draft_k" in stage}


def test_a_new_protocol_is_every_cells(changed):
    clone = changed("benchmark/protocol.py", lambda text: text.replace("PROTOCOL_VERSION = ", "PROTOCOL_VERSION = 1"))
    assert stale(clone) >= CELLS


def test_a_claim_is_no_cells(changed):
    clone = changed("claims.yaml", lambda text: text.replace("2.1", "2.2"))
    assert stale(clone) & CELLS == set()
    assert "tables" in stale(clone)


def test_a_new_seed_is_one_cell(changed):
    clone = changed("params.yaml", settings(groups__main__seeds=[0, 1, 2]))
    new = {f"main@mini-{method}-hps-2" for method in ("draft_k", "shortft")}
    assert new <= stale(clone)
    assert stale(clone) & CELLS == set()
    assert not any(stage.startswith("tune") for stage in stale(clone))


def test_what_lies_beside_the_records_is_nobodys(clone):
    folder = clone / "results/mini/hps/draft_k/seed-0"
    (folder / "lora").mkdir()
    for name in ("lora/weights.safetensors", "checkpoint.pt", "before_after.png", ".log.csv.7.part"):
        (folder / name).write_text("x")
    (clone / "results/mini/base").mkdir()
    (clone / "results/mini/base/0.pt").write_text("x")
    assert stale(clone) == set()
    lying = subprocess.run(
        ["git", "status", "--porcelain", "--untracked-files=all", "results"],
        cwd=clone, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert not any(word in lying for word in ("/lora/", "checkpoint", "before_after", ".part", "/base/"))
