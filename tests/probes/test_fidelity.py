"""The fidelity probe."""

import numpy as np
import pandas as pd
import pytest
import torch

from benchmark import fidelity
from benchmark.probes.fidelity import chains, errors, stretches
from tests.conftest import call, refused

LEADING = list(range(981, 0, -20))


def test_errors_are_relative_and_by_image():
    chain = torch.ones(2, 4, 8, 8)
    found = chain.clone()
    found[1] *= 1.5
    assert errors(found, chain).tolist() == [0.0, 0.5]


def test_the_stretches_are_those_that_shortft_skips():
    assert stretches(LEADING) == [(741, 501), (481, 261), (241, 1)]


def test_the_chains_are_untuned_and_go_from_noise_to_image():
    for name, plan in chains(LEADING).items():
        assert plan[0].t == 981, name
        assert not any(hop.slots or hop.eps_grad for hop in plan)
    assert {hop.model for hop in chains(LEADING)["naive x4"]} == {"base"}
    assert {hop.model for hop in chains(LEADING)["shortcut x4"]} == {"shortcut"}
    assert len(chains(LEADING)["shortcut x4"]) == len(chains(LEADING)["naive x4"]) == 4


@pytest.mark.slow
def test_the_command(tmp_path):
    result = call(fidelity.main, "--prompts", 24, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    jumps = pd.read_csv(tmp_path / "mini/fidelity/jumps-leading.csv").set_index("stretch")
    # The shipped shortcut's card has the same errors over 256 prompts, measured by another program.
    assert (jumps.ratio < 0.75).all()
    assert (jumps.shortcut_low <= jumps.shortcut).all()
    images = pd.read_csv(tmp_path / "mini/fidelity/images-leading.csv")
    base = images[images.chain == "base"]
    assert np.allclose(base.absolute_change, 0)
    oracle = images[images.reward == "oracle"].set_index("chain")["mean"]
    assert oracle["shortcut x4"] > oracle["naive x4"] + 0.1


def test_bad_input_is_one_line(tmp_path):
    for arguments in (["--suite", "maxi"], ["--spacing", "wide"]):
        assert refused(call(fidelity.main, *arguments, "--out", tmp_path))
