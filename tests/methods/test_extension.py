"""Methods from outside of the repository, and tuned LoRAs outside of it."""

import json
import re
import sys
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from typer.testing import CliRunner

import methods
from benchmark.config import InputError, resolve
from benchmark.run import main
from benchmark.slots import SLOTS_FILE, attach_slots
from tests.conftest import PROMPTS, ROOT, build_executor, embed, noise, randomise, tiny_unet

EXTENDING = ROOT / "docs/extending.md"


@pytest.fixture
def example(tmp_path, monkeypatch):
    """The example of docs/extending.md, saved as it says."""
    (code,) = (c for c in re.findall(r"```python\n(.*?)```", EXTENDING.read_text(), re.DOTALL) if "RandomTail" in c)
    assert len(code.splitlines()) <= 30
    (tmp_path / "random_tail.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("random_tail", None)


def configured(method, *overrides):
    return resolve("mini", method, "hps", 0, None, "cpu", None, list(overrides))


def test_a_method_by_its_import_path(example):
    config = configured("random_tail:RandomTail", "longest=5")
    assert config.options == {"longest": 5}
    assert config.folder(Path("runs")).parent == Path("runs/mini/hps/random_tail.RandomTail")
    plan = config.build_method().plan(list(range(981, 0, -20)), torch.Generator().manual_seed(0), 0.0)
    assert 1 <= sum(hop.eps_grad for hop in plan) <= 5
    assert methods.sources("random_tail:RandomTail")[0] == example / "random_tail.py"


def test_a_method_by_entry_point(example):
    info = example / "somebody-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: somebody\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[benchmark.methods]\nrandom-tail = random_tail:RandomTail\n")
    assert "random-tail" in methods.names()
    assert configured("random-tail").options == {"longest": 3}


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("nowhere:Nothing", "cannot be imported"),
        ("random_tail:Absent", "cannot be imported"),
        ("json:loads", "not a subclass"),
    ],
)
def test_a_method_that_is_none_is_one_line(example, method, words):
    with pytest.raises(InputError, match=words) as error:
        configured(method)
    assert "\n" not in str(error.value)


def test_a_method_explains_itself():
    result = CliRunner().invoke(main, ["--method", "shortft", "--help-method"])
    assert result.exit_code == 0
    assert "arXiv:2507.22604" in result.output
    assert "timestep_aware" in result.output


def test_slots_in_plain_diffusers_give_our_images(pipeline, tmp_path):
    embeds, components = embed(pipeline, PROMPTS), pipeline.components
    method = methods.find("shortft")()
    executor = build_executor(pipeline, method.slots)
    randomise(executor.policy)
    with torch.no_grad():
        ours = executor.run(method.sampler_plan(executor.timesteps), noise(), embeds)
    executor.policy.save_lora(tmp_path)
    active = {t: method.slots_at(t, executor.timesteps) for t in executor.timesteps}
    (tmp_path / SLOTS_FILE).write_text(json.dumps(active))

    plain = StableDiffusionPipeline(**components | {"unet": tiny_unet()}, requires_safety_checker=False)
    plain.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": 50, "latents": noise(), "output_type": "latent"}
    base = plain(PROMPTS, **options).images
    attach_slots(plain, tmp_path)
    theirs = plain(PROMPTS, **options).images
    torch.testing.assert_close(theirs, ours, rtol=1e-3, atol=1e-3)
    assert (theirs - base).abs().max() > 0.05
    with pytest.raises(ValueError, match="no timestep 951"):
        plain(PROMPTS, **options | {"num_inference_steps": 20})
