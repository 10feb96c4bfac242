import dataclasses
from itertools import pairwise

import pytest
import torch
from pydantic import ValidationError

import methods
from benchmark.diffusion import CLEAN, END
from methods import Batch, DirectReward
from tests.conftest import (
    PROMPTS,
    brightness,
    build_executor,
    embed,
    few_steps,
    noise,
    predict_noise,
    randomise,
    tiny_unet,
)

LEADING = list(range(981, 0, -20))
TRAILING = list(range(999, 0, -20))


def batch(pipeline, progress=0.0, dtype=torch.float32):
    return Batch(PROMPTS, embed(pipeline, PROMPTS), noise(dtype=dtype), torch.Generator().manual_seed(0), progress)


def test_the_registry_is_the_folder():
    assert set(methods.names()) >= {
        "alignprop", "ddpo", "draft", "draft_coarse", "draft_k", "draft_lv", "drtune", "refl", "shortft"
    }  # fmt: skip
    for name in methods.names():
        cls = methods.find(name)
        assert cls.__doc__
        assert all(field.description for field in cls.model_fields.values())
    assert methods.find("draft-k") is methods.find("draft_k")
    with pytest.raises(KeyError):
        methods.find("interface")


@pytest.mark.parametrize("name", [name for name in methods.names() if issubclass(methods.find(name), DirectReward)])
def test_every_plan_is_one_chain_from_noise_to_image(name):
    method = methods.find(name)()
    for progress in (0.0, 0.3, 0.6, 0.9):
        plan = method.plan(LEADING, torch.Generator().manual_seed(0), progress)
        assert plan[0].t == LEADING[0]
        assert plan[-1].s == (CLEAN if name in ("refl", "drtune") else END)
        assert all(a.s == b.t for a, b in pairwise(plan))


@pytest.mark.parametrize("name", methods.names())
def test_every_method_makes_gradients(name, pipeline):
    method = methods.find(name)()
    executor = build_executor(pipeline, method.slots, shortcut=tiny_unet(7), steps=few_steps(name))
    updates = list(method.updates(executor, batch(pipeline), brightness))
    assert len(updates) == (1 if isinstance(method, DirectReward) else method.minibatches)
    assert all(0 <= update.reward <= 1 for update in updates)
    norms = [sum(p.grad.square().sum() for p in executor.policy.slot_parameters(s)) for s in executor.policy.slots]
    assert all(norm > 0 for norm in norms)


# -- DRaFT-K


def test_draft_k_keeps_the_gradient_of_the_last_k_hops():
    plan = methods.find("draft_k")(k=3).plan(LEADING, None, 0.0)
    assert [hop.eps_grad for hop in plan] == [False] * 47 + [True] * 3
    assert all(hop.slots == (1,) for hop in plan)


def test_draft_k_longer_than_the_chain_is_refused():
    with pytest.raises(ValueError, match="longer than the chain"):
        methods.find("draft_k")(k=51).plan(LEADING, None, 0.0)


def test_draft_1_by_hand(pipeline):
    """The gradient of DRaFT-1 is b * dr/dx0 * d noise_pred/d theta at the last step, x_1 a constant."""
    pipeline.unet.double(), pipeline.vae.double(), pipeline.text_encoder.double()
    executor = build_executor(pipeline)
    randomise(executor.policy)
    given = batch(pipeline, dtype=torch.float64)
    list(methods.find("draft_k")().updates(executor, given, brightness))
    found = [p.grad.clone() for p in executor.policy.parameters()]

    plan = methods.find("draft_k")().sampler_plan(executor.timesteps)
    with torch.no_grad():
        x = executor.run(plan[:-1], given.latents, given.prompt_embeds)
    a, b, _ = executor.move_coefficients(plan[-1])
    unconditional, conditional = (
        predict_noise(executor.policy, "base", x, 1, embeds, (1,))
        for embeds in (executor.negative_embeds.expand(2, -1, -1), given.prompt_embeds)
    )
    noise_pred = unconditional + 7.5 * (conditional - unconditional)
    images = pipeline.vae.decode((a * x + b * noise_pred) / pipeline.vae.config.scaling_factor).sample / 2 + 0.5
    loss = -brightness(images.clamp(0, 1), PROMPTS).mean()
    expected = torch.autograd.grad(loss, executor.policy.parameters())
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-14)


# -- the coarse control


def test_draft_coarse_takes_every_fifth_step_and_the_last():
    plan = methods.find("draft_coarse")().plan(LEADING, None, 0.0)
    assert [hop.t for hop in plan] == [981, 881, 781, 681, 581, 481, 381, 281, 181, 81, 1]
    assert all(hop.eps_grad and hop.input_grad and hop.model == "base" for hop in plan)


# -- ShortFT


def with_gradient(plan):
    return [(hop.t, hop.s, hop.model, hop.slots) for hop in plan if hop.eps_grad]


FIRST_STAGE = [
    (781, 761, "base", (1,)),
    (761, 741, "base", (1,)),
    (741, 501, "shortcut", ()),
    (501, 481, "base", (1, 2)),
    (481, 261, "shortcut", ()),
    (261, 241, "base", (1, 2, 3)),
    (241, 1, "shortcut", ()),
    (1, END, "base", (1, 2, 3, 4)),
]


@pytest.mark.parametrize(("progress", "first"), [(0.0, 0), (0.2, 0), (0.25, 3), (0.5, 5), (0.75, 7), (0.99, 7)])
def test_shortft_stages(progress, first):
    """The published chain: stage i runs the base chain down to LoRA i, shortcuts stand in only after it."""
    plan = methods.find("shortft")().plan(LEADING, None, progress)
    assert with_gradient(plan) == FIRST_STAGE[first:]
    assert all(hop.model == "base" for hop in plan if not hop.eps_grad)
    bearing = dict.fromkeys(LEADING[:12], (1,)) | {501: (1, 2), 261: (1, 2, 3), 1: (1, 2, 3, 4)}
    assert all(hop.slots == bearing.get(hop.t, ()) for hop in plan if hop.model == "base")


def test_shortft_samples_on_the_original_chain():
    plan = methods.find("shortft")().sampler_plan(LEADING)
    assert [hop.t for hop in plan] == LEADING
    assert {hop.model for hop in plan} == {"base"}
    active = {hop.t: hop.slots for hop in plan if hop.slots}
    assert active == dict.fromkeys(LEADING[:12], (1,)) | {501: (1, 2), 261: (1, 2, 3), 1: (1, 2, 3, 4)}


def test_shortft_on_trailing_timesteps():
    plan = methods.find("shortft")().plan(TRAILING, None, 0.0)
    bearing = [hop.t for hop in plan if hop.slots]
    assert bearing == [*TRAILING[:12], 519, 279, 19]


@pytest.mark.parametrize(("progress", "trained"), [(0.0, {1, 2, 3, 4}), (0.3, {2, 3, 4}), (0.6, {3, 4}), (0.9, {4})])
def test_shortft_trains_only_the_later_loras(progress, trained, pipeline):
    method = methods.find("shortft")()
    executor = build_executor(pipeline, method.slots, shortcut=tiny_unet(7))
    randomise(executor.policy)
    list(method.updates(executor, batch(pipeline, progress), brightness))
    got = {
        slot
        for slot in executor.policy.slots
        if any(p.grad is not None and p.grad.abs().sum() > 0 for p in executor.policy.slot_parameters(slot))
    }
    assert got == trained


def test_shortft_without_progressive_training_stays_in_stage_one():
    method = methods.find("shortft")(progressive=False)
    assert method.plan(LEADING, None, 0.9) == method.plan(LEADING, None, 0.0)
    assert method.trained_slots(0.9) == (1, 2, 3, 4)


def test_shortft_with_one_lora():
    method = methods.find("shortft")(timestep_aware=False)
    assert method.slots == 1
    assert {hop.slots for hop in method.plan(LEADING, None, 0.0)} == {(), (1,)}


def test_shortft_with_naive_jumps():
    plan = methods.find("shortft")(shortcut="naive").plan(LEADING, None, 0.0)
    jumps = [(hop.t, hop.s) for hop in plan if hop.t - hop.s > 20]
    assert jumps == [(741, 501), (481, 261), (241, 1)]
    assert {hop.model for hop in plan} == {"base"}


@pytest.mark.parametrize("progress", [0.0, 0.3, 0.6, 0.9])
def test_shortft_everywhere_differs_in_where_loras_act_alone(progress):
    """A control: calls and gradients are ShortFT's; at every step act the LoRAs of the last bearing timestep."""
    published = methods.find("shortft")()
    control = methods.find("benchmark.controls:ShortFTEverywhere")()
    ours, theirs = (method.plan(LEADING, None, progress) for method in (control, published))
    calls = [[dataclasses.replace(hop, slots=()) for hop in plan] for plan in (ours, theirs)]
    assert calls[0] == calls[1]
    assert [hop.slots for hop in ours if hop.eps_grad] == [hop.slots for hop in theirs if hop.eps_grad]
    active = [hop.slots for hop in control.sampler_plan(LEADING)]
    assert active == [(1,)] * 24 + [(1, 2)] * 12 + [(1, 2, 3)] * 13 + [(1, 2, 3, 4)]


def test_shortft_shares_move_the_stages():
    method = methods.find("shortft")(shares=(0.7, 0.1, 0.1, 0.1))
    assert [method.stage(p) for p in (0.0, 0.69, 0.7, 0.85, 0.95)] == [1, 1, 2, 3, 4]
    assert methods.find("shortft")(shares=(1, 0, 0, 0)).stage(0.999) == 1


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.5, 0.5, 0.5, -0.5), (0.1, 0.1, 0.1, 0.1)])
def test_shortft_refuses_bad_shares(shares):
    with pytest.raises(ValidationError, match="4 shares"):
        methods.find("shortft")(shares=shares)


def test_tuning_the_few_step_model_itself():
    method = methods.find("shortft")(policy="shortcut")
    plan = method.plan(LEADING, None, 0.9)
    assert with_gradient(plan) == [
        (t, s, "shortcut", (1,)) for t, s in ((981, 741), (741, 501), (501, 261), (261, END))
    ]
    assert [(hop.t, hop.s) for hop in method.sampler_plan(LEADING)] == [(hop.t, hop.s) for hop in plan]
    assert method.needs_shortcut
    assert (method.slots, method.trained_slots(0.9)) == (1, (1,))


def test_a_slot_on_the_few_step_model_changes_its_weights_and_gets_its_gradient(pipeline):
    """Against the few-step model with the update written into its weights, and finite differences."""
    pipeline.unet.double(), pipeline.vae.double(), pipeline.text_encoder.double()
    shortcut = tiny_unet(7).double()
    executor = build_executor(pipeline, 1, shortcut=shortcut)
    policy = executor.policy
    randomise(policy)
    x, embeds = noise(dtype=torch.float64), embed(pipeline, PROMPTS)
    found = predict_noise(policy, "shortcut", x, 501, embeds, (1,))
    written = tiny_unet(7).double()
    for path, layer in policy.layers.items():
        update = layer.lora_B["slot1"].weight @ layer.lora_A["slot1"].weight
        written.get_submodule(path).weight.data += update.detach()
    torch.testing.assert_close(found, written(x, 501, embeds).sample, rtol=1e-9, atol=1e-11)
    assert not torch.allclose(found, shortcut(x, 501, embeds).sample)

    parameter = policy.slot_parameters(1)[1]
    (gradient,) = torch.autograd.grad(found.square().mean(), parameter)
    values = []
    for step in (1e-5, -1e-5):
        with torch.no_grad():
            parameter[0, 0] += step
            policy.refresh()
            values.append(predict_noise(policy, "shortcut", x, 501, embeds, (1,)).square().mean())
            parameter[0, 0] -= step
            policy.refresh()
    torch.testing.assert_close((values[0] - values[1]) / 2e-5, gradient[0, 0], rtol=1e-6, atol=1e-12)
