"""Where along the chain a LoRA acts."""

import pandas as pd
import pytest
import torch

import methods
from benchmark import placement
from benchmark.config import resolve
from benchmark.probes.placement import acting_at, parts
from benchmark.training.workbench import Workbench
from tests.conftest import build_executor, call, refused

LEADING = list(range(981, 0, -20))


def test_the_parts_cover_the_chain():
    sets = parts(LEADING)
    assert len(sets["shortft's 15"]) == 15
    assert sets["shortft's 15"] | sets["the other 35"] == sets["all 50"] == set(LEADING)
    stretches = [sets[name] for name in ("1-12", "13-24", "25-36", "37-49", "50")]
    assert sum(map(len, stretches)) == 50
    assert set().union(*stretches) == set(LEADING)


def test_slots_are_on_at_those_steps_and_as_the_method_has_them():
    shortft, draft = methods.find("shortft")(), methods.find("draft")()
    assert acting_at(draft, LEADING, set(LEADING)) == draft.sampler_plan(LEADING)
    assert acting_at(shortft, LEADING, set(LEADING)) == shortft.sampler_plan(LEADING)
    on = {hop.t: hop.slots for hop in acting_at(shortft, LEADING, {981, 501, 481}) if hop.slots}
    assert on == {981: (1,), 501: (1, 2)}


@pytest.mark.parametrize("slots", [1, 3])
def test_a_saved_lora_is_read_back(pipeline, tmp_path, slots):
    policy = build_executor(pipeline, slots=slots).policy
    for parameter in policy.parameters():
        torch.nn.init.normal_(parameter)
    saved = policy.state_dict()
    policy.save_lora(tmp_path / "lora")
    for parameter in policy.parameters():
        torch.nn.init.zeros_(parameter)
    policy.load_lora(tmp_path / "lora")
    read = policy.state_dict()
    assert read.keys() == saved.keys()
    assert all(torch.equal(read[name], saved[name]) for name in saved)


@pytest.mark.slow
def test_the_command(tmp_path):
    """On a LoRA that changes nothing (B = 0) every gain is zero; on one that does, all steps change more than none."""
    config = resolve("mini", "draft_k", "symmetry", 0, None, "cpu", None, [])
    executor = Workbench(config).executor
    executor.policy.save_lora(tmp_path / "loras/mini/symmetry/draft_k")
    for parameter in executor.policy.parameters():
        torch.nn.init.normal_(parameter, std=0.03)
    executor.policy.save_lora(tmp_path / "loras/mini/symmetry/draft")
    result = call(placement.main, "--reward", "symmetry", "--prompts", 8, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    table = pd.read_csv(tmp_path / "mini/placement/symmetry.csv").set_index(["variant", "steps"])
    assert (table.loc["draft_k"].gain == 0).all()
    assert (table.loc["draft"].gain != 0).all()


def test_bad_input_is_one_line(tmp_path):
    for arguments in (["--out", tmp_path], ["--params", "no.yaml"]):
        assert refused(call(placement.main, *arguments))
