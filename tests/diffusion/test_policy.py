import pytest
import torch
from diffusers import StableDiffusionPipeline

from benchmark.diffusion import Executor, Hop, Policy, sampler_plan
from benchmark.diffusion.ledger import count_operations
from tests.conftest import PROMPTS, build_executor, embed, noise, predict_noise, randomise, tiny_unet


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
        base = predict_noise(policy, "base", noise(), 501, embeds)
        assert torch.equal(predict_noise(policy, "base", noise(), 501, embeds, (1, 2)), base)
        randomise(policy)
        assert torch.equal(predict_noise(policy, "base", noise(), 501, embeds), base)
        assert not torch.equal(predict_noise(policy, "base", noise(), 501, embeds, (1,)), base)


def test_the_seed_decides_the_slots():
    policies = [Policy(tiny_unet(), slots=1, rank=2, seed=seed) for seed in (0, 0, 1)]
    first, same, other = ([p.detach() for p in policy.parameters()] for policy in policies)
    assert all(torch.equal(a, b) for a, b in zip(first, same, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_misuse_is_refused():
    policy = Policy(tiny_unet(), slots=1, rank=2)
    with pytest.raises(ValueError, match="no shortcut"):
        predict_noise(policy, "shortcut", noise(), 501, torch.zeros(2, 3, 16))
    with pytest.raises(ValueError, match="rank"):
        Policy(tiny_unet(), rank=0)


@pytest.mark.parametrize("model", ["base", "shortcut"])
def test_beside_the_weights_equals_merged_into_them(model):
    results = []
    for lora in ("merged", "beside"):
        policy = Policy(tiny_unet().double(), tiny_unet(1).double(), slots=3, rank=2, lora=lora)
        randomise(policy)
        embeds = torch.randn((2, 3, 16), generator=torch.Generator().manual_seed(1)).double()
        off = predict_noise(policy, model, noise(dtype=torch.float64), 501, embeds)
        on = predict_noise(policy, model, noise(dtype=torch.float64), 501, embeds, (1, 3))
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
        found = predict_noise(policy, "base", noise(), 501, torch.ones(2, 3, 16), (1, 2))
        assert found.dtype == torch.float32
        policy.backward(found.square().mean())
        assert {tensor.dtype for p in policy.parameters() for tensor in (p, p.grad)} == {torch.float32}
        gradients.append(torch.cat([p.grad.flatten() for p in policy.parameters()]))
    assert torch.nn.functional.cosine_similarity(*gradients, dim=0) > 0.99


def test_beside_refuses_a_convolution():
    with pytest.raises(ValueError, match=r"linear layers; .*conv1 is none"):
        Policy(tiny_unet(), slots=1, rank=2, targets=["conv1"], lora="beside")


def test_compiled_calls_are_the_same_calls_and_stay_compiled(pipeline):
    """Through the executor, whose ledger counts operations of a call of each kind between the calls."""
    ran = []

    def backend(graph, inputs):  # the graph as torch.compile sees it, without the minute that its code takes
        return lambda *given: ran.append(len(ran)) or graph(*given)

    results = []
    for compiled in (False, True):
        policy = Policy(tiny_unet(), tiny_unet(1), slots=2, rank=2, lora="beside")
        executor = Executor(policy, pipeline.vae, pipeline.scheduler, embed(pipeline, [""]))
        randomise(policy)
        if compiled:
            policy.compile(backend)
        x, embeds, found = noise(), embed(pipeline, PROMPTS), []
        for t, slots in ((501, (1,)), (481, (1, 2)), (461, ()), (501, (1,)), (481, (1, 2)), (461, ())):
            before = len(ran)
            found.append(executor.predict(Hop(t, t - 20, slots=slots, eps_grad=bool(slots)), x, embeds))
            assert (len(ran) > before) == compiled
        policy.backward(sum(y.square().mean() for y in found))
        results.append([*found, *(p.grad for p in policy.parameters())])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_beside_the_weights_every_slot_costs(pipeline):
    policy = Policy(tiny_unet(), slots=2, rank=2, lora="beside")
    executor = Executor(policy, pipeline.vae, pipeline.scheduler, embed(pipeline, [""]), guidance_scale=None)
    x, embeds, costs = noise(1), embed(pipeline, PROMPTS[:1]), []
    for slots in ((), (1,), (1, 2)):
        before = executor.ledger.operations
        executor.predict(Hop(501, 481, slots=slots, guidance=False), x, embeds)
        costs.append(executor.ledger.operations - before)
        with torch.no_grad():
            assert costs[-1] == count_operations(
                lambda slots=slots: predict_noise(policy, "base", x, 501, embeds, slots)
            )
    assert costs[0] < costs[1] < costs[2]
