"""Tables, and all that is made of records, from an invented tree."""

import dataclasses
import hashlib
import subprocess
import sys
from types import SimpleNamespace

import pandas as pd
import pytest

from benchmark import tables
from benchmark.findings.tables import NAMES, matrix, probes
from benchmark.findings.tables import curves as along
from benchmark.records import read_json, write_json
from benchmark.records.profile import Profile
from benchmark.records.results import Results
from tests.conftest import ROOT

SMOKE = ROOT / "profiles/smoke.yaml"


def command(*arguments, **options):
    line = [sys.executable, "-m", "benchmark.tables", "--params", str(SMOKE), *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, timeout=120, check=False, cwd=ROOT, **options)


def test_the_numbers_are_those_of_the_records(root):
    results = Results.read(root, Profile.read(SMOKE), "mini")
    made = {table.name: table for table in tables.build(results)}
    row = made["table1"].frame.set_index(["variant", "reward"]).loc["shortft", "hps"]
    runs = results.of("shortft", "hps")
    assert row.gain == pytest.approx((runs.reward_after - runs.reward_before).mean(), rel=1e-4)
    assert (row.seeds, row.expected) == (2, 2)
    shown = made["table1"].shown.set_index("method")
    assert shown.loc["shortft", "hps"].startswith(f"{runs.reward_after.mean():.4f}")
    assert shown.loc["draft_k", "symmetry"] == ""  # no cell of the profile
    assert ["ShortFT (published)", "33.88"] in [row[:2] for row in made["table1"].published]
    assert "| DRTune (published) | 32.79 |" in made["table1"].markdown()
    assert "DRTune (published)" in made["table1"].latex()
    assert made["table1"].runs[2, "hps"] == runs.folder.tolist()
    assert made["table3"].shown.method.tolist() == ["shortft", "shortft-one-lora"]
    gap = made["table3"].frame.set_index(["variant", "reward"]).loc["shortft-one-lora", "hps"]
    lora, ours = (results.gains(v, "hps")[:1] for v in ("shortft-one-lora", "shortft"))
    assert gap.difference == pytest.approx((lora - ours).mean())
    assert made["state"].frame.seeds.sum() == len(results.runs) == 9


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("run.json", '"protocol": 2', '"protocol": 1', "of protocol 1"),
        ("run.json", '"learning_rate": 0.001', '"learning_rate": 0.7', "has learning_rate = 0.7"),
        ("run.json", '"batch": 2', '"batch": 3', "has batch = 3"),
        ("run.json", '"options": {}', '"options": {"spacing": "trailing"}', ""),  # an option's default: methods know it
        ("run.json", '"weights": "w"', '"weights": "other"', "other weights"),
        ("summary.json", '"done"', '"interrupted"', "ended as interrupted"),
        ("both", '"budget": "4step"', '"budget": "9step"', "of budget 9step"),
        ("both", '"seed": 0', '"seed": 1', "of seed 1"),
        ("scores.csv", "test prompt 0", "no prompt", "on other prompts"),
    ],
)
def test_a_run_that_is_not_the_profiles_cell_is_left_out(root, name, old, new, said):
    folder = root / "mini/hps/shortft/seed-0"
    for path in [folder / "run.json", folder / "summary.json"] if name == "both" else [folder / name]:
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))
    results = Results.read(root, Profile.read(SMOKE), "mini")
    assert [said in problem for problem in results.problems.problem] == [True] * bool(said)
    assert (str(folder) in set(results.runs.folder)) == (not said)
    assert len(results.missing) == bool(said)


@pytest.mark.parametrize(
    "name",
    [
        "gradients/hps.csv",
        "fidelity/jumps-leading.csv",
        "fidelity/images-leading.csv",
        "placement/hps.csv",
        "cost.json",
    ],
)
@pytest.mark.parametrize("spoil", [lambda text: text[: len(text) // 2], lambda text: text.replace("0.", "zero."),
                                   lambda text: "a,b\n1,2\n", lambda text: ""])  # fmt: skip
def test_a_broken_probe_is_left_out_and_named(root, name, spoil):
    path = root / "mini" / name
    path.write_text(spoil(path.read_text()))
    results = Results.read(root, Profile.read(SMOKE), "mini")
    tables.build(results)
    half = spoil("0.123456") == "0.12"  # half a table of numbers may be a shorter table
    assert results.problems.folder.tolist() == [str(path)] or (half and name != "cost.json")


def test_probes_are_found_under_their_earlier_names(root):
    results = Results.read(root, Profile.read(SMOKE), "mini")
    for now, earlier in (("fidelity", "shortcut"), ("placement", "acting")):
        (root / "mini" / now).rename(root / "mini" / earlier)
    older = Results.read(root, Profile.read(SMOKE), "mini")
    for now, then in ((results.jumps(), older.jumps()), (results.placement("hps"), older.placement("hps"))):
        assert then.equals(now)


def test_whether_the_order_of_methods_has_settled():
    """Three methods, two seeds: a and b change places between half of the budget and its end."""
    ends = {"a": (0.0, 0.2, 0.3), "b": (0.0, 0.1, 0.4), "c": (0.0, 0.0, 0.1)}
    curves = {
        name: pd.DataFrame({"share": [0, 0.5, 1] * 2, "hps": [1 + x + off for off in (-0.01, 0.01) for x in gains]})
        for name, gains in ends.items()
    }
    invented = SimpleNamespace(suite="mini", rewards=lambda: ["hps"], profile=SimpleNamespace(methods=lambda: [*ends]),
                               curve=lambda variant, reward: curves[variant])  # fmt: skip
    (row,) = along.settled(invented).frame.to_dict("records")
    assert row == {"reward": "hps", "share": 0.5, "methods": 3, "tau": pytest.approx(1 / 3),
                   "gained": pytest.approx(0.3 / 0.8)}  # fmt: skip
    assert along.settled(invented).shown["after 50.0%"].item() == "0.33 (38%)"
    del ends["c"]
    assert along.settled(invented).note == "Not measured."


def test_hps_on_the_published_scale(root):
    results = Results.read(root, Profile.read(SMOKE), "mini")
    assert "published_scale" not in [table.name for table in tables.build(results)]
    runs = results.runs.assign(**{"heldout.hps20.before": 0.2691, "heldout.hps20.after": 0.3388})
    results = dataclasses.replace(results, runs=runs)
    row = matrix.published_scale(results).shown.iloc[0]
    assert (row["base model"], row["HPSv2"]) == ("26.91", "33.88")
    assert ["SD 1.5 (published)", "", "", "", "26.91"] in matrix.published_scale(results).published
    nothing = dataclasses.replace(results, runs=results.runs[:0])
    assert "26.91" in matrix.published_scale(nothing).latex()


def test_without_an_oracle_nothing_is_said_to_be_kept(root):
    results = Results.read(root, Profile.read(SMOKE), "mini")
    assert matrix.choice(results).shown["largest gain, oracle kept"].iloc[0] != "not measured"
    for path in root.glob("mini/*/*/seed-*/scores.csv"):
        pd.read_csv(path).drop(columns="oracle").to_csv(path, index=False)
    for path in root.glob("mini/*/*/seed-*/summary.json"):
        write_json(path, read_json(path) | {"oracle_before": None, "oracle_after": None, "oracle_se": None})
    results = Results.read(root, Profile.read(SMOKE), "mini")
    assert len(results.runs) == 9
    assert set(matrix.choice(results).shown["largest gain, oracle kept"]) == {"not measured"}
    tables.write(tables.build(results), root / "tables")


def test_the_gpus_table_is_of_true_architectures_only(root):
    results = Results.read(root, Profile.read(SMOKE), "mini")
    assert probes.gpu(results).note == "Not measured."
    row = {"variant": "draft_k", "batch": 4, "seconds": 1.5, "images_per_second": 2.667, "peak_mb": 9000.0,
           "ratio": 1.01, "share": 0.4, "images": 4, "operations": 10}  # fmt: skip
    for name, narrow in (("one", False), ("two", True)):
        record = {"environment": {"device": f"GPU {name}"}, "narrow": narrow, "pixels": 512, "rows": [row],
                  "out_of_memory": [["draft_k", 16], ["draft", 4]]}  # fmt: skip
        write_json(root / "gpu" / f"{name}.json", record)
    part = record | {"narrow": False, "environment": {"device": "GPU one"}, "rows": [row | {"seconds": 9.0}]}
    write_json(root / "gpu" / "one-part.json", part)
    table = probes.gpu(Results.read(root, Profile.read(SMOKE), "mini"))
    assert table.shown.to_dict("records") == [
        {"GPU": "GPU one", "method": "draft", "batch 4, s": "does not fit", "batch 4, GiB": "", "batch 16, s": "",
         "batch 16, GiB": ""},
        {"GPU": "GPU one", "method": "draft_k", "batch 4, s": "1.50", "batch 4, GiB": "8.8",
         "batch 16, s": "does not fit", "batch 16, GiB": ""},
    ]  # fmt: skip


def test_what_is_missing_or_bad_is_said(root):
    (root / "mini/hps/draft_k/seed-0/summary.json").write_text("{")
    (root / "mini/hps/somebody/seed-0").mkdir(parents=True)
    (root / "mini/hps/somebody/seed-0/run.json").write_text("{}")
    for gone in ("gradients/hps.csv", "cost.json", "fidelity/jumps-leading.csv"):
        (root / "mini" / gone).unlink()
    result = command("--results", root)
    assert result.returncode == 0, result.stderr
    assert "8 runs, 1 cells missing, 2 folders left out" in result.stdout
    assert "draft_k/seed-0: summary.json is missing or no JSON object" in result.stdout
    assert "1 of 2" in (root / "tables/mini/table1.md").read_text()
    assert "Not measured" in (root / "tables/mini/cost.md").read_text()
    assert "not measured" in (root / "claims.md").read_text()


def test_made_again_they_are_the_same_bytes(root):
    def digests():
        assert command("--results", root).returncode == 0
        files = [*(root / "tables").rglob("*.*"), root / "claims.md", root / "claims.json"]
        return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    first = digests()
    (root / "tables/mini/old.csv").write_text("left over")
    assert digests() == first
    assert len(first) == 3 * len(NAMES) + 2
    assert pd.read_csv(root / "tables/mini/table1.csv").shape[0] == 7  # a row for each variant and reward


def test_bad_input_is_one_line(tmp_path):
    for arguments in (("--results", tmp_path / "nothing"), ("--claims", tmp_path / "no.yaml", "--results", tmp_path)):
        (tmp_path / "mini").mkdir(exist_ok=True)
        result = command(*arguments)
        assert result.returncode == 2
        assert len(result.stderr.strip().splitlines()) == 1


def test_no_torch_is_needed(root):
    code = "import sys; from benchmark import tables; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
