"""The pipeline's graph, with invented records in place of runs: what depends on what. CI runs it for real."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo

from benchmark.records.profile import Profile
from tests.conftest import ROOT
from tests.synthetic import write_tree

pytestmark = pytest.mark.slow


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


def commented(text: str) -> str:
    return text + "\n# changed\n"


CELLS = {key.stage for key in Profile.read(ROOT / "profiles/smoke.yaml").cells()}
# Changes after which ``dvc repro`` reads the code anew, by their file.
READ_ANEW = {f"methods/{name}.py": commented for name in ("draft_k", "shortft", "interface")}
READ_ANEW |= {"params.yaml": settings(**{"variants__shortft-few-step-policy__policy": "base"})}
# In one process for all of them: what ``benchmark.about`` writes down after each, and at last of the code as it is.
READER = """
import json, sys
from pathlib import Path
from benchmark.about import main
changes, made = json.load(sys.stdin), {}
for name, text in changes.items():
    kept = Path(name).read_text()
    Path(name).write_text(text)
    main([], standalone_mode=False)
    made[name] = Path("results/mini/about.json").read_text()
    Path(name).write_text(kept)
main([], standalone_mode=False)
Path("made.json").write_text(json.dumps(made))
"""


def read_the_code(where: Path) -> dict[str, str]:
    """The stage that ``dvc repro`` runs first; also what it would write down after each change of READ_ANEW."""
    changes = {name: edit((where / name).read_text()) for name, edit in READ_ANEW.items()}
    line, given = [sys.executable, "-c", READER], json.dumps(changes)
    subprocess.run(line, cwd=where, input=given, text=True, capture_output=True, timeout=300, check=True)
    made = json.loads((where / "made.json").read_text())
    (where / "made.json").unlink()
    return made


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """A copy of the repository with the smoke profile and records of it."""
    there = tmp_path_factory.mktemp("clone")
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    for name in files:
        recorded = name == "dvc.lock" or (name.startswith("results/") and not name.startswith("results/gpu/"))
        if not recorded and (ROOT / name).exists():
            (there / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, there / name)
    subprocess.run(["git", "init", "--quiet"], cwd=there, check=True)
    shutil.copy(there / "profiles/smoke.yaml", there / "params.yaml")
    write_tree(there / "results", Profile.read(there / "params.yaml"))
    for made in ("docs/figures", "docs/methods", "results/tables"):
        (there / made).mkdir(parents=True, exist_ok=True)
    for made in ("claims.md", "claims.json", "report.html"):
        (there / "results" / made).write_text("")
    return there


@pytest.fixture(scope="module")
def read_anew(copy) -> dict[str, str]:
    return read_the_code(copy)


@pytest.fixture(scope="module")
def clone(copy, read_anew) -> Path:
    """The copy with its code read, which DVC takes for its own."""
    assert dvc(copy, "commit", "--force", "--quiet") == ""
    return copy


def dvc(where: Path, *arguments: str) -> str:
    line = [sys.executable, "-m", "dvc", *arguments]
    result = subprocess.run(line, cwd=where, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def stale(where: Path) -> set[str]:
    """Stages of which something changed: ``dvc status``, without a process of its own each time."""
    with Repo(str(where)) as repo:
        return {name.rpartition(":")[2] for name in repo.status()}


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

    kept[clone / "results/mini/about.json"] = (clone / "results/mini/about.json").read_text()
    yield change
    for path, text in kept.items():
        path.write_text(text)


def stale_after_reading(changed, read_anew, name: str) -> tuple[bool, set[str]]:
    """After a change of READ_ANEW: whether the code has to be read anew, and the stale cells once it has been."""
    clone = changed(name, READ_ANEW[name])
    unread = "about@mini" in stale(clone)
    (clone / "results/mini/about.json").write_text(read_anew[name])
    return unread, stale(clone) & CELLS


def test_a_stage_for_every_cell(clone):
    listed = {line.split()[0] for line in dvc(clone, "stage", "list", "--name-only").splitlines()}
    assert listed >= CELLS
    groups = {stage.split("@")[0] for stage in CELLS}
    assert {stage for stage in listed if stage.split("@")[0] in groups} == CELLS


def test_what_is_recorded_is_up_to_date(clone):
    assert stale(clone) == set()
    assert "up to date" in dvc(clone, "repro", "--dry")


def test_the_budget_is_every_cells(changed):
    others = {"about@mini", "tables", "figures", "report", "docs"}
    assert CELLS <= stale(changed("params.yaml", settings(budget="5step"))) <= CELLS | others


def test_a_rate_is_its_cells_alone(changed):
    faster = changed("results/mini/tuning/hps.yaml", lambda text: text.replace("one-lora: 0.001", "one-lora: 0.003"))
    assert stale(faster) & CELLS == {"ablation@mini-shortft-one-lora-hps-0"}


def test_a_variant_is_its_cells_alone(changed, read_anew):
    found = stale_after_reading(changed, read_anew, "params.yaml")
    assert found == (True, {"control@mini-shortft-few-step-policy-hps-0"})


@pytest.mark.parametrize(("file", "rows"), [("draft_k", "draft_k"), ("shortft", "shortft"), ("interface", "")])
def test_a_method_is_its_cells_alone(changed, read_anew, file, rows):
    """Also those of what inherits from it: all methods do from the interface."""
    found = stale_after_reading(changed, read_anew, f"methods/{file}.py")
    assert found == (True, {stage for stage in CELLS if rows in stage})


def test_a_new_protocol_is_every_cells(changed):
    clone = changed(
        "benchmark/records/protocol.py", lambda text: text.replace("PROTOCOL_VERSION = ", "PROTOCOL_VERSION = 1")
    )
    assert stale(clone) >= CELLS


def test_a_claim_is_no_cells(changed):
    found = stale(changed("claims.yaml", lambda text: text.replace("2.1", "2.2")))
    assert found & CELLS == set()
    assert "tables" in found


def test_a_new_seed_is_one_cell(changed):
    found = stale(changed("params.yaml", settings(groups__main__seeds=[0, 1, 2])))
    new = {f"main@mini-{method}-hps-2" for method in ("draft_k", "shortft")}
    assert new <= found
    assert found & CELLS == set()
    assert not any(stage.startswith("tune") for stage in found)


def test_artifacts_are_nobodys(clone):
    folder = clone / "results/artifacts/mini/hps/draft_k/seed-0"
    (folder / "lora").mkdir(parents=True)
    for name in ("lora/weights.safetensors", "checkpoint.pt", "before_after.png"):
        (folder / name).write_text("x")
    part = clone / "results/mini/hps/draft_k/seed-0/.log.csv.7.part"
    part.write_text("x")
    assert stale(clone) == set()
    line = ["git", "status", "--porcelain", "--untracked-files=all", "results"]
    lying = subprocess.run(line, cwd=clone, capture_output=True, text=True, check=True).stdout
    assert not any(word in lying for word in ("artifacts", ".part"))
