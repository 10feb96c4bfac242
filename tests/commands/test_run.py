"""The command line as a user meets it, and what a run leaves behind."""

import json
import shutil
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file
from typer.testing import Result

import methods
from benchmark.records import Summary
from benchmark.records.files import RECORDS
from benchmark.records.reader import read_tree
from benchmark.run import main
from benchmark.suites.mini import card
from benchmark.suites.mini.suite import Mini
from tests.conftest import call, few_steps, refused, share

pytestmark = pytest.mark.slow
# Three prompts only, so that they come again and again.
SETTINGS = ("test_prompts=8", "batch=2", "train_prompts=3", "curve_points=2", "curve_prompts=4")
SMALL = ("--reward", "symmetry", *(word for setting in SETTINGS for word in ("--set", setting)))
SHORTFT = ("--method", "shortft", "--budget", "6step", *SMALL)
# ``python -m benchmark.run`` that evaluates as few images as the runs in this process do.
PROCESS = """
from benchmark.training import cell
cell.VARIED = cell.VARIED_ON_CURVE = 2
from benchmark.run import main
main()
"""


def run(*arguments, out) -> Result:
    return call(main, *arguments, "--out", out)


def only_folder(out):
    (folder,) = out.glob("mini/*/*/seed-*")
    return folder


def artifacts_of(out):
    (folder,) = out.glob("artifacts/mini/*/*/seed-*")
    return folder


def assert_same_lora(out, other):
    ours, theirs = artifacts_of(out), artifacts_of(other)
    parts = sorted(p.relative_to(theirs) for p in (theirs / "lora").rglob("*.safetensors"))
    assert parts
    for part in parts:
        a, b = load_file(ours / part), load_file(theirs / part)
        assert all(a[name].equal(b[name]) for name in b)


@pytest.fixture(scope="module")
def finished(base, tmp_path_factory):
    """One whole run of ShortFT, six steps through its four stages."""
    out = share(base, tmp_path_factory.mktemp("runs") / "runs")
    return run(*SHORTFT, out=out), out


@pytest.fixture(scope="module")
def one_step_each(base, tmp_path_factory):
    """One real step of every method, through trainer, evaluation and records."""
    out = share(base, tmp_path_factory.mktemp("steps") / "runs")
    with pytest.MonkeyPatch.context() as patch:
        for name in methods.names():
            patch.setattr(Mini, "steps", few_steps(name))
            result = run("--method", name.replace("_", "-"), "--budget", "1step", *SMALL, out=out)
            assert result.exit_code == 0, (name, result.output)
    return out


def test_the_main_job(finished):
    result, out = finished
    assert result.exit_code == 0, result.output
    first = result.stdout.splitlines()[0]
    assert "mini" in first
    assert "--suite sd15" in first
    folder = only_folder(out)
    summary = Summary.model_validate_json((folder / "summary.json").read_text())
    assert (summary.status, summary.suite, summary.method, summary.reward) == ("done", "mini", "shortft", "symmetry")
    assert (summary.steps, summary.images) == (6, 12)
    assert summary.denoiser_forwards > summary.denoiser_backwards > 0
    assert set(summary.heldout) == {"hps", "pickscore", "imagereward", "compressibility"}
    assert len(pd.read_csv(folder / "log.csv")) == 6
    scores = pd.read_csv(folder / "scores.csv")
    test = scores[scores.split == "test"]
    assert test.groupby("when").symmetry.mean()["after"] == pytest.approx(summary.reward_after, abs=1e-5)
    assert {p.name for p in folder.iterdir()} == set(RECORDS)
    assert {p.name for p in artifacts_of(out).iterdir()} == {"lora", "before_after.png"}
    assert not [p for p in out.rglob("*") if p.name.endswith(".part")]
    assert set(summary.prior_seconds) == {"shortcut"}
    assert summary.peak_memory_mb > 100


def test_the_records_are_read(finished):
    _, out = finished
    runs, curves, problems = read_tree(out)
    assert problems.empty
    assert runs[["method", "reward", "status", "steps"]].to_numpy().tolist() == [["shortft", "symmetry", "done", 6]]
    assert runs["settings.batch"].tolist() == [2]
    assert curves.share.tolist() == [0, 0.5, 1]


def test_the_curve_is_of_the_same_prompts_at_every_point(finished):
    _, out = finished
    curve, scores = (pd.read_csv(only_folder(out) / name) for name in ("curve.csv", "scores.csv"))
    assert curve.share.tolist() == [0, 0.5, 1]
    assert curve.step.tolist() == [0, 3, 6]
    assert curve.drift[0] == 0 < curve.drift[1]
    first = scores[scores.split == "test"].groupby("when", sort=False).head(4).groupby("when")
    for column in ("symmetry", "hps", "oracle"):
        ends = first[column].mean()
        assert curve[column].iloc[[0, -1]].tolist() == pytest.approx([ends["before"], ends["after"]], abs=1e-5)
    assert curve.symmetry[1] != curve.symmetry[0]


def test_evaluating_changes_nothing_of_training(finished, out):
    """Ten points instead of two, and a tracker: the same log and the same weights."""
    _, whole = finished
    result = run(*SHORTFT, "--set", "curve_points=10", "--track", "tensorboard", out=out)
    assert result.exit_code == 0, result.output
    ours, theirs = only_folder(out), only_folder(whole)
    assert len(pd.read_csv(ours / "curve.csv")) == 7  # a point a step at most
    a, b = (pd.read_csv(folder / "log.csv").drop(columns="seconds") for folder in (ours, theirs))
    assert a.equals(b)
    assert_same_lora(out, whole)


def test_the_same_command_again_says_that_it_is_done(finished):
    _, out = finished
    before = {p: p.lstat().st_mtime_ns for p in out.rglob("*")}
    result = run(*SHORTFT, out=out)
    assert result.exit_code == 0
    assert "is done" in result.stdout
    assert {p: p.lstat().st_mtime_ns for p in out.rglob("*")} == before


@pytest.mark.parametrize(("part", "other"), [("protocol", True), ("method", True), ("code", False)])
def test_what_other_code_made(part, other, finished):
    """Another protocol or method file is refused; a finished run outlives a change of shared code alone."""
    _, out = finished
    record = only_folder(out) / "run.json"
    content = record.read_text()
    record.write_text(json.dumps(json.loads(content) | {part: "0"}))
    result = run(*SHORTFT, out=out)
    record.write_text(content)
    assert result.exit_code == (2 if other else 0)
    assert (f"made by other {part}" in result.stderr) is other
    assert ("is done" in result.stdout) is not other


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_run_resumes_to_the_same_numbers(how, finished, out):
    _, whole = finished
    line = [sys.executable, "-c", PROCESS, *SHORTFT, "--checkpoint-seconds", "0", "--out", str(out)]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + 240
    while not list(out.glob("artifacts/mini/*/*/seed-*/checkpoint.pt")):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.02)
    process.send_signal(how)
    process.communicate(timeout=240)
    assert process.returncode == (130 if how == signal.SIGTERM else -how)
    if how == signal.SIGKILL:  # and the pipeline takes a stage's outputs away before it runs it again
        shutil.rmtree(only_folder(out))
        other_code_refuses_the_checkpoint(out)
    result = run(*SHORTFT, out=out)
    assert result.exit_code == 0, result.output
    assert "resumed at step" in result.stdout
    assert_same_lora(out, whole)
    ours, theirs = only_folder(out), only_folder(whole)
    assert (ours / "scores.csv").read_text() == (theirs / "scores.csv").read_text()
    a, b = (pd.read_csv(folder / "curve.csv") for folder in (ours, theirs))
    columns = [c for c in a.columns if "seconds" not in c]
    assert a[columns].equals(b[columns])
    changing = {"seconds", "evaluation_seconds", "peak_memory_mb"}
    a, b = (json.loads((folder / "summary.json").read_text()) for folder in (ours, theirs))
    assert {k: v for k, v in a.items() if k not in changing} == {k: v for k, v in b.items() if k not in changing}


def other_code_refuses_the_checkpoint(out):
    """A checkpoint knows what it belongs to."""
    path = artifacts_of(out) / "checkpoint.pt"
    content = path.read_bytes()
    state = torch.load(path, weights_only=True)
    torch.save(state | {"identity": state["identity"] | {"method": "0"}}, path)
    assert refused(run(*SHORTFT, out=out), "made by other method")
    path.write_bytes(content)


def test_another_runs_folder_is_replaced_where_asked(finished, out):
    _, whole = finished
    shutil.copytree(whole / "mini", out / "mini")
    record = only_folder(out) / "run.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"method": "0"}))
    assert run(*SHORTFT, out=out).exit_code == 2
    result = run(*SHORTFT, "--replace", out=out)
    assert result.exit_code == 0
    assert "is done" not in result.stdout
    scores = [(only_folder(where) / "scores.csv").read_text() for where in (whole, out)]
    assert scores[0] == scores[1]


def test_the_lora_of_a_run_loads_in_plain_diffusers(one_step_each):
    (folder,) = one_step_each.glob("artifacts/mini/*/draft_k/seed-*")
    pipeline = StableDiffusionPipeline.from_pretrained(card.PIPELINE)
    pipeline.load_lora_weights(folder / "lora")
    updates = [m.lora_B["default_0"].weight for m in pipeline.unet.modules() if hasattr(m, "lora_B")]
    assert updates
    assert all(weight.abs().max() > 0 for weight in updates)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--method", "shortfd"], "Did you mean 'shortft'?"),
        (["--reward", "hsp"], "Did you mean 'hps'?"),
        (["--suite", "maxi"], "unknown suite"),
        (["--reward", "hps + jpeg"], "shortft needs the reward's gradient, and 1*hps + 1*jpeg has none"),
        (["--budget", "much"], "positive amount with a unit"),
        (["--budget", "-1s"], "positive amount with a unit"),
        (["--device", "cuda:99"], "CUDA"),
        (["--device", "abacus"], "unknown device"),
        (["--prompts", "no/such/file"], "cannot be read"),
        (["--set", "k"], "name=value"),
        (["--method", "draft_k", "--set", "k=51"], "longer than the chain"),
        (["--track", "paper"], "unknown tracker"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(arguments, words, tmp_path):
    assert refused(run(*arguments, out=tmp_path / "out"), words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("content", "words"), [(b"\n \n", "is empty"), ("a café".encode("latin-1"), "not UTF-8")])
def test_a_bad_prompt_file_is_one_line_and_writes_nothing(content, words, tmp_path):
    (tmp_path / "prompts.txt").write_bytes(content)
    assert refused(run("--prompts", tmp_path / "prompts.txt", out=tmp_path / "out"), words)
    assert not (tmp_path / "out").exists()


def test_every_method_runs_from_the_command_line(one_step_each):
    summaries = [Summary.model_validate_json(p.read_text()) for p in one_step_each.rglob("summary.json")]
    assert {s.method for s in summaries} == set(methods.names())
    assert all(s.status == "done" and s.denoiser_backwards > 0 for s in summaries)


def test_bad_input_in_a_process_of_its_own(tmp_path):
    (tmp_path / "file").write_text("")
    line = [sys.executable, "-m", "benchmark.run", "--out", str(tmp_path / "file" / "runs")]
    result = subprocess.run(line, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 2
    assert "cannot be written" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_list_and_dry_run(tmp_path):
    listed = run("--list", out=tmp_path / "out")
    assert listed.exit_code == 0
    assert all(word in listed.stdout for word in ("shortft", "draft_coarse", "pickscore", "mini"))
    dry = run("--dry-run", "--budget", "7step", out=tmp_path / "out")
    assert dry.exit_code == 0
    assert "741->501" in dry.stdout
    assert '"budget": "7step"' in dry.stdout
    assert not (tmp_path / "out").exists()
