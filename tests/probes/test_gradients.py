"""The gradient probe: its figures on estimators whose mean and covariance are known, and its command."""

import numpy as np
import pandas as pd
import pytest
import torch

from benchmark import gradients as command
from benchmark.probes import gradients as probe
from benchmark.probes.gradients import phases
from benchmark.probes.moments import Moments, numbers, split
from benchmark.statistics import normalised_variance
from methods import find
from tests.conftest import call, refused

SIZE, COUNT = 600, 500


@pytest.fixture
def gradients():
    """Estimates around a mean of norm 2 with variance 9, and references around a mean 60 degrees away, norm 1."""
    generator = torch.Generator().manual_seed(0)
    axes = torch.linalg.qr(torch.randn(SIZE, 2, generator=generator)).Q.T
    deviation = torch.linspace(0.5, 1.5, SIZE)
    deviation *= (9 / deviation.square().sum()).sqrt()
    shared = torch.randn(COUNT, SIZE, generator=generator) * deviation
    found = 2 * axes[0] + shared
    reference = 0.5 * axes[0] + 0.75**0.5 * axes[1] + 0.5 * shared  # the noise of a minibatch is common to both
    return found, reference


def moments_of(found, reference):
    moments = Moments(found.shape[1])
    for g, r in zip(found, reference, strict=True):
        moments.add(g, r)
    return moments


def test_known_mean_and_covariance_come_out(gradients):
    row = numbers([moments_of(*gradients)])
    assert row["variance"] == pytest.approx(9, rel=0.03)
    assert row["mean_norm"] == pytest.approx(2, rel=0.03)
    assert row["normalised_variance"] == pytest.approx(9 / 4, rel=0.06)
    assert row["normalised_variance_low"] < 9 / 4 < row["normalised_variance_high"]
    # The references': covariance 9/4 around a mean of norm (0.25 + 0.75)^(1/2) = 1.
    assert row["full_normalised_variance"] == pytest.approx(9 / 4, rel=0.06)
    assert row["full_normalised_variance_low"] < row["full_normalised_variance"] < row["full_normalised_variance_high"]
    # Pairs of the same minibatch share noise and would pull the cosine of the means up; they are left out.
    assert row["cosine_of_means"] == pytest.approx(0.5, abs=0.05)
    expected = torch.nn.functional.cosine_similarity(*gradients).mean().item()
    assert row["cosine"] == pytest.approx(expected, abs=1e-5)


def test_slots_apart_add_up_to_the_whole(gradients):
    """Over two slots the figures are those of the vector of both: nothing of size N x parameters is needed."""
    found, reference = gradients
    whole = numbers([moments_of(found, reference)])
    parts = [moments_of(found[:, part], reference[:, part]) for part in (slice(0, 200), slice(200, None))]
    for name, value in numbers(parts).items():
        tolerance = 0.02 if name.endswith(("low", "high")) else 1e-5  # intervals come from sketches
        assert value == pytest.approx(whole[name], rel=tolerance), name


def test_the_state_goes_round(gradients):
    found, reference = (part[:20] for part in gradients)
    first, second = moments_of(found[:10], reference[:10]), Moments(SIZE)
    second.load(first.state())
    for g, r in zip(found[10:], reference[10:], strict=True):
        second.add(g, r)
    assert numbers([second]) == numbers([moments_of(found, reference)])


def test_pure_noise_has_no_finite_normalised_variance_or_a_wide_one():
    noise = np.random.default_rng(0).normal(size=(40, 200))
    found = normalised_variance(noise @ noise.T)
    assert found.high == np.inf


def test_the_decomposition_adds_up_and_finds_the_sources():
    """Estimates p + n + m with variances 1 (prompts), 4 (noise) and 2 (the method's own)."""
    rng = np.random.default_rng(0)
    scale = {"p": 1.0, "n": 2.0, "m": 2**0.5}
    drawn = {k: [s * rng.normal(size=(400, 50)) / 50**0.5 for _ in range(3)] for k, s in scale.items()}
    first = drawn["p"][0] + drawn["n"][0] + drawn["m"][0]
    own = drawn["p"][0] + drawn["n"][0] + drawn["m"][1]
    both = drawn["p"][0] + drawn["n"][1] + drawn["m"][2]
    halves = [tuple(np.square(first - other).sum(1)[i] / 2 for other in (own, both)) for i in range(400)]
    found = split(halves, 7.0)
    assert sum(found.values()) == pytest.approx(1)
    assert found["from_method"] == pytest.approx(2 / 7, abs=0.03)
    assert found["from_noise"] == pytest.approx(4 / 7, abs=0.05)
    assert found["from_prompts"] == pytest.approx(1 / 7, abs=0.06)


def test_phases_of_shortft():
    leading = list(range(981, 0, -20))
    found = phases("shortft", find("shortft")(), lambda steps: leading)
    assert [(v.progress, v.trained()) for v in found] == [
        (0.0, (1, 2, 3, 4)), (0.25, (2, 3, 4)), (0.5, (3, 4)), (0.75, (4,))
    ]  # fmt: skip
    assert len(phases("drtune", find("drtune")(), lambda steps: leading)) == 1


@pytest.mark.slow
def test_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr(probe, "OWN_STEPS", 2)
    variants = ["draft_k k=2", "shortft", "ddpo samples=2 minibatches=1", "drtune"]
    line = ["--methods", ", ".join(variants), "--reward", "symmetry", "--batches", 3]
    line += ["--redraws", 1, "--at", 2, "--reference", "draft_k", "--set", "batch=2", "--out", tmp_path]
    result = call(command.main, *line)
    assert result.exit_code == 0, result.output
    table = pd.read_csv(tmp_path / "mini/gradients/symmetry.csv")
    assert set(table.reference_step) == {2}
    whole = table[table.slot == "all"]
    assert set(whole.method) == set(variants)
    assert (whole.norm > 0).all()
    assert (whole.tflop > 0).all()
    stages = whole[whole.method == "shortft"]
    assert stages.progress.tolist() == [0, 0.25, 0.5, 0.75]
    slots = table[(table.method == "shortft") & (table.progress == 0) & (table.slot != "all")]
    assert set(slots.slot) == {"1", "2", "3", "4"}
    shares = whole[["from_method", "from_noise", "from_prompts"]].sum(axis=1)
    assert shares.to_numpy() == pytest.approx(1, abs=1e-4)
    assert (whole[whole.method == "draft_k k=2"].from_method == 0).all()
    assert (whole[whole.method == "drtune"].from_method > 0).all()
    again = call(command.main, *line, "--jobs", 2)  # nothing is left to do
    assert again.exit_code == 0, again.output
    assert pd.read_csv(tmp_path / "mini/gradients/symmetry.csv").equals(table)


def test_bad_input_is_one_line(tmp_path):
    for arguments, words in (
        (["--methods", "draft_q"], "unknown method"),
        (["--at", "soon"], "--at 'soon'"),
        (["--reference", "shortft"], "more than one LoRA slot"),
        (["--suite", "maxi"], "unknown suite"),
    ):
        assert refused(call(command.main, *arguments, "--out", tmp_path / "out"), words)
    assert not (tmp_path / "out").exists()
