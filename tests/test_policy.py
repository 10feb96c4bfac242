import pytest
import torch
from conftest import PROMPTS, build_executor, embed, noise, randomise, tiny_unet
from diffusers import StableDiffusionPipeline

from benchmark.diffusion import Policy, sampler_plan


def test_the_lora_of_one_slot_loads_in_plain_diffusers(pipeline, tmp_path):
    embeds = embed(pipeline, PROMPTS)
    components = pipeline.components
    executor = build_executor(pipeline)
    randomise(executor.policy)
    with torch.no_grad():
        ours = executor.run(sampler_plan(executor.timesteps), noise(), embeds)
    executor.policy.save_lora(tmp_path / "lora")

    plain = StableDiffusionPipeline(**components | {"unet": tiny_unet()}, requires_safety_checker=False)
    plain.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": 50, "latents": noise(), "output_type": "latent"}
    base = plain(PROMPTS, **options).images
    plain.load_lora_weights(tmp_path / "lora")
    theirs = plain(PROMPTS, **options).images
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
    assert (theirs - base).abs().max() > 0.05


def test_slots_are_saved_apart(pipeline, tmp_path):
    build_executor(pipeline, slots=3).policy.save_lora(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["slot-1", "slot-2", "slot-3"]


def test_state_goes_round(pipeline):
    policy = build_executor(pipeline, slots=2).policy
    randomise(policy)
    state = policy.state_dict()
    before = [p.clone() for p in policy.parameters()]
    randomise(policy, seed=9)
    policy.load_state_dict(state)
    for a, b in zip(before, policy.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_fresh_slot_changes_nothing_and_a_slot_acts_only_where_it_is_on(pipeline):
    embeds = embed(pipeline, PROMPTS)
    policy = build_executor(pipeline, slots=2).policy
    with torch.no_grad():
        base = policy.noise_pred("base", noise(), 501, embeds)
        assert torch.equal(policy.noise_pred("base", noise(), 501, embeds, (1, 2)), base)
        randomise(policy)
        assert torch.equal(policy.noise_pred("base", noise(), 501, embeds), base)
        assert not torch.equal(policy.noise_pred("base", noise(), 501, embeds, (1,)), base)


def test_the_seed_decides_the_slots():
    policies = [Policy(tiny_unet(), slots=1, rank=2, seed=seed) for seed in (0, 0, 1)]
    first, same, other = ([p.detach() for p in policy.parameters()] for policy in policies)
    assert all(torch.equal(a, b) for a, b in zip(first, same, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_misuse_is_refused():
    policy = Policy(tiny_unet(), slots=1, rank=2)
    with pytest.raises(ValueError, match="no shortcut"):
        policy.noise_pred("shortcut", noise(), 501, torch.zeros(2, 3, 16))
    with pytest.raises(ValueError, match="rank"):
        Policy(tiny_unet(), rank=0)
