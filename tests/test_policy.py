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


@pytest.mark.parametrize("model", ["base", "shortcut"])
def test_beside_the_weights_equals_merged_into_them(model):
    results = []
    for lora in ("merged", "beside"):
        policy = Policy(tiny_unet().double(), tiny_unet(1).double(), slots=3, rank=2, lora=lora)
        randomise(policy)
        embeds = torch.randn((2, 3, 16), generator=torch.Generator().manual_seed(1)).double()
        off = policy.noise_pred(model, noise(dtype=torch.float64), 501, embeds)
        on = policy.noise_pred(model, noise(dtype=torch.float64), 501, embeds, (1, 3))
        policy.backward(on.square().mean())
        results.append([off, on, *(p.grad for slot in (1, 3) for p in policy.slot_parameters(slot))])
        assert all(p.grad is None for p in policy.slot_parameters(2))
    for merged, beside in zip(*results, strict=True):
        torch.testing.assert_close(beside, merged)
    assert not torch.equal(results[0][0], results[0][1])


def test_in_bfloat16_the_slots_and_their_gradients_are_float32():
    gradients = []
    for dtype, lora in ((torch.float32, "merged"), (torch.bfloat16, "beside")):
        policy = Policy(tiny_unet().to(dtype), slots=2, rank=2, lora=lora)
        randomise(policy)
        found = policy.noise_pred("base", noise(), 501, torch.ones(2, 3, 16), (1, 2))
        assert found.dtype == torch.float32
        policy.backward(found.square().mean())
        assert {tensor.dtype for p in policy.parameters() for tensor in (p, p.grad)} == {torch.float32}
        gradients.append(torch.cat([p.grad.flatten() for p in policy.parameters()]))
    assert torch.nn.functional.cosine_similarity(*gradients, dim=0) > 0.99


def test_beside_refuses_a_convolution():
    with pytest.raises(ValueError, match=r"linear layers; .*conv1 is none"):
        Policy(tiny_unet(), slots=1, rank=2, targets=["conv1"], lora="beside")


def test_compiled_calls_are_the_same_calls():
    plain, compiled = (Policy(tiny_unet(), tiny_unet(1), slots=2, rank=2, lora="beside") for _ in range(2))
    compiled.compile(backend="eager")  # the graph as torch.compile sees it, without the minute that code takes
    embeds, gradients = torch.ones(2, 3, 16), []
    for policy in (plain, compiled):
        randomise(policy)
        found = [policy.noise_pred(model, noise(), t, embeds, slots)
                 for model in ("base", "shortcut") for t in (501, 1) for slots in ((), (1,), (1, 2))]  # fmt: skip
        policy.backward(sum(x.square().mean() for x in found))
        gradients.append([*found, *(p.grad for p in policy.parameters())])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
