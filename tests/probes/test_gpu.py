"""The GPU's speed command, on a CPU with narrow models: what it does, not what it measures."""

from __future__ import annotations

import json

import pytest
import torch
from typer.testing import CliRunner

from benchmark import gpu
from benchmark.probes import gpu as probe
from benchmark.suites.sd15.suite import StableDiffusion15

NARROW = ["--narrow", "--device", "cpu", "--pixels", "64", "--reward", "clipscore", "--set", "rank=4"]


@pytest.fixture(autouse=True)
def _one_round(monkeypatch):
    monkeypatch.setattr(gpu, "ROUNDS", 1)


@pytest.fixture
def eight_steps(monkeypatch):
    """A chain of them shows as much as one of 50, of methods that are defined on any."""
    monkeypatch.setattr(StableDiffusion15, "steps", 8)


def run(*arguments: str):
    return CliRunner().invoke(gpu.main, list(arguments))


@pytest.mark.usefixtures("eight_steps")
def test_a_dry_run_steps_without_a_connection_and_writes_nothing(tmp_path):
    done = run("--dry-run", "--reward", "clipscore", "--set", "rank=4", "--out", str(tmp_path),
               "--method", "draft_k")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "diffusers==" in done.output
    assert "nothing was downloaded" in done.output
    assert not list(tmp_path.iterdir())


def test_the_record_has_every_method_and_batch(tmp_path):
    methods = ["--method", "shortft", "--method", "shortft checkpoint=true"]
    done = run(*NARROW, *methods, "--batch", "1", "--batch", "2", "--out", str(tmp_path))
    assert done.exit_code == 0, done.output
    (path,) = tmp_path.glob("cpu-*-narrow-part.json")
    record = json.loads(path.read_text())
    rows = {(row["variant"], row["batch"]): row for row in record["rows"]}
    assert set(rows) == {(v, b) for v in ("shortft", "shortft checkpoint=true") for b in (1, 2)}
    assert record["narrow"]
    assert record["environment"]["versions"]["torch"]
    for (variant, batch), row in rows.items():
        assert row["images"] == batch
        assert (row["recomputations"] > 0) == ("checkpoint" in variant)
        assert row["peak_mb"] is None  # a process's memory says nothing of one step
        assert row["seconds"] > 0
        assert row["operations"] > 0
    assert rows["shortft", 2]["operations"] == 2 * rows["shortft", 1]["operations"]


@pytest.mark.usefixtures("eight_steps")
def test_what_does_not_fit_and_what_is_left_out_is_said(tmp_path, monkeypatch):
    true_measure = probe.measure

    def measure(bench, rounds, rate):
        if bench.config.settings.batch > 1:
            raise torch.OutOfMemoryError("full")
        return true_measure(bench, rounds, rate)

    monkeypatch.setattr(probe, "measure", measure)
    sizes = ["--batch", "1", "--batch", "2", "--batch", "4"]
    done = run(*NARROW, "--method", "draft_k", *sizes, "--out", str(tmp_path))
    record = json.loads(next(tmp_path.iterdir()).read_text())
    assert [row["batch"] for row in record["rows"]] == [1]
    assert record["out_of_memory"] == [["draft_k", 2], ["draft_k", 4]]
    assert "do not fit into memory: draft_k at batch 2, draft_k at batch 4" in done.output

    def fail(bench, rounds, rate):
        raise RuntimeError("CUBLAS_STATUS_ALLOC_FAILED\nand more")

    monkeypatch.setattr(probe, "measure", fail)
    done = run(*NARROW, "--method", "draft_k", "--batch", "1", "--out", str(tmp_path / "failed"))
    assert done.exit_code == 0
    record = json.loads(next((tmp_path / "failed").iterdir()).read_text())
    assert record["failed"] == [["draft_k", 1, "RuntimeError: CUBLAS_STATUS_ALLOC_FAILED and more"]]

    done = run(*NARROW, "--method", "draft_k", "--batch", "1", "--limit", "-1", "--out", str(tmp_path / "late"))
    assert "not measured: draft_k at batch 1" in done.output


@pytest.mark.usefixtures("eight_steps")
def test_the_same_command_goes_on_from_its_record(tmp_path, monkeypatch):
    command = [*NARROW, "--method", "draft_k", "--out", str(tmp_path)]
    assert run(*command, "--batch", "1").exit_code == 0
    (path,) = tmp_path.iterdir()
    first = json.loads(path.read_text())
    measured, true_measure = [], probe.measure

    def measure(bench, rounds, rate):
        measured.append(bench.config.settings.batch)
        return true_measure(bench, rounds, rate)

    monkeypatch.setattr(probe, "measure", measure)
    done = run(*command, "--batch", "1", "--batch", "2")
    assert "going on from" in done.output
    second = json.loads(path.read_text())
    assert measured == [2]
    assert second["rows"][0] == first["rows"][0]
    assert [row["batch"] for row in second["rows"]] == [1, 2]
    assert second["matmul_tflops"] == first["matmul_tflops"]

    run(*command, "--batch", "1", "--set", "rank=8")  # other settings: another record
    assert measured == [2, 1]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--device", "cuda"], "--device cuda: this PyTorch sees"),
        (["--device", "cpu", "--method", "nothing"], "unknown method 'nothing'"),
        (["--device", "cpu", "--reward", "beauty"], "unknown reward 'beauty'"),
        (["--device", "cpu", "--set", "speed=9"], "unknown setting of alignprop 'speed'"),
    ],
)
def test_wrong_arguments_are_one_line(arguments, line, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)  # also where there is one
    done = run(*arguments)
    assert done.exit_code == 2
    assert line in done.output


def test_a_connection_ends_it_in_one_line(monkeypatch, tmp_path):
    import socket

    def build(*_):
        socket.create_connection(("127.0.0.1", 9), timeout=1)

    monkeypatch.setattr(gpu.random_weights, "build", build)
    done = run("--dry-run", "--method", "draft_k")
    assert done.exit_code == 2
    assert "something connects to ('127.0.0.1', 9)" in done.output
