"""What the trainer does with a loss that is no longer a number, for every method."""

from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator

import methods
from benchmark.config import resolve
from benchmark.rewards import Reward
from benchmark.training.trainer import Diverged, Trainer
from tests.conftest import brightness, build_executor, embed, few_steps, tiny_unet


class Breaking(Reward):
    """Brightness, until its image or gradient is spoilt from a given call on."""

    name = "breaking"

    def __init__(self, value: float):
        self.value, self.broken = value, False

    def __call__(self, images, prompts):
        return brightness(images, prompts) * (self.value if self.broken else 1.0)


class TinySuite:
    """What the trainer asks of a suite."""

    device, precision = torch.device("cpu"), torch.float32

    def __init__(self, pipeline, reward):
        self.pipeline, self.own = pipeline, reward

    def reward(self, name):
        return self.own

    def embed(self, prompts):
        return embed(self.pipeline, prompts)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", methods.names())
def test_a_broken_loss_ends_the_run_at_its_step_with_the_last_good_parameters(name, value, pipeline):
    config, reward = resolve("mini", name, "hps", 0, "5step", "cpu", None, ["batch=2"]), Breaking(value)
    method = config.build_method()
    executor = build_executor(pipeline, method.slots, shortcut=tiny_unet(7), steps=few_steps(name))
    suite, given = TinySuite(pipeline, reward), {"prompts": ["a red circle"], "accelerator": Accelerator(cpu=True)}
    parts = {"suite": suite, "executor": executor, "policy": executor.policy}
    trainer = Trainer(SimpleNamespace(config=config, method=method, **parts, **given))
    steps = trainer.steps()
    next(steps), next(steps)
    good = {name: value.clone() for name, value in executor.policy.state_dict().items()}
    reward.broken = True
    with pytest.raises(Diverged, match="step 2: "):
        next(steps)
    kept = executor.policy.state_dict()
    assert all(torch.equal(kept[name], good[name]) for name in good)
    assert all(value.isfinite().all() for value in kept.values())
    assert (trainer.step, len(trainer.log)) == (2, 2)
