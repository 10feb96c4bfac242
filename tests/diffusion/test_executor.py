import dataclasses

import pytest
import torch
from diffusers.models.attention_processor import Attention
from torch.nn.functional import scaled_dot_product_attention

import methods
from benchmark.diffusion import CLEAN, Hop, describe, sampler_plan
from benchmark.diffusion.ledger import Ledger, count_operations
from methods import Batch
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


def diffusers_latents(pipeline, **options):
    return pipeline(
        PROMPTS, num_inference_steps=50, guidance_scale=7.5, latents=noise(), output_type="latent", **options
    ).images


def test_fresh_lora_samples_exactly_what_diffusers_samples(pipeline):
    expected = diffusers_latents(pipeline)
    executor = build_executor(pipeline, slots=4)
    plan = sampler_plan(executor.timesteps, lambda t: (1, 2, 3, 4))
    with torch.no_grad():
        latents = executor.run(plan, noise(), embed(pipeline, PROMPTS))
    torch.testing.assert_close(latents, expected, rtol=1e-4, atol=1e-4)


def test_the_decoder_is_that_of_diffusers(pipeline):
    expected = pipeline(PROMPTS, num_inference_steps=2, latents=noise(), output_type="pt").images
    latents = pipeline(PROMPTS, num_inference_steps=2, latents=noise(), output_type="latent").images
    images = build_executor(pipeline).decode(latents)
    torch.testing.assert_close(images.detach(), expected, rtol=1e-5, atol=1e-5)


def test_merged_slots_equal_stacked_peft_adapters(pipeline):
    executor = build_executor(pipeline, slots=3)
    policy, embeds = executor.policy, embed(pipeline, PROMPTS)
    randomise(policy)
    merged = predict_noise(policy, "base", noise(), 501, embeds, (1, 3))
    policy.unet.enable_adapters()
    policy.unet.set_adapters(["slot1", "slot3"], [1.0, 1.0])
    stacked = policy.unet(noise(), 501, embeds).sample
    torch.testing.assert_close(merged, stacked, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_timesteps(pipeline, spacing):
    timesteps = build_executor(pipeline, spacing=spacing).timesteps
    assert timesteps == list(range(981, 0, -20) if spacing == "leading" else range(999, 0, -20))


def test_a_stochastic_hop_keeps_the_marginal_variance(pipeline):
    """With eta = 1 a DDIM hop is DDPM's posterior: signal and noise of the next level add up (eq. 12)."""
    executor = build_executor(pipeline)
    hop = Hop(501, 481, eta=1.0)
    a, b, std = executor.move_coefficients(hop)
    now, then = executor.alpha_bar(501), executor.alpha_bar(481)
    # For x_t = sqrt(now) x0 + sqrt(1 - now) e and noise_pred = e, the next latents must have variance 1 - then.
    assert a * now**0.5 == pytest.approx(then**0.5)
    assert (a * (1 - now) ** 0.5 + b) ** 2 + std**2 == pytest.approx(1 - then)
    assert executor.move_coefficients(dataclasses.replace(hop, eta=0.0))[2] == 0


def test_a_hop_to_clean_predicts_the_clean_latents(pipeline):
    executor = build_executor(pipeline)
    a, b, _ = executor.move_coefficients(Hop(501, CLEAN))
    level = executor.alpha_bar(501)
    assert a == pytest.approx(level**-0.5)
    assert b == pytest.approx(-(((1 - level) / level) ** 0.5))


def double_executor(pipeline, slots=4):
    for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        part.double()
    executor = build_executor(pipeline, slots, shortcut=tiny_unet(7).double())
    randomise(executor.policy)
    return executor


def reward_of(executor, pipeline, plan):
    latents = executor.run(plan, noise(dtype=torch.float64), embed(pipeline, PROMPTS))
    return brightness(executor.decode(latents), PROMPTS).mean()


def gradients(executor, pipeline, plan):
    for parameter in executor.policy.parameters():
        parameter.grad = None
    executor.policy.backward(reward_of(executor, pipeline, plan))
    return [None if p.grad is None else p.grad.clone() for p in executor.policy.parameters()]


def test_gradient_agrees_with_finite_differences(pipeline):
    executor = double_executor(pipeline)
    plan = methods.find("shortft")().plan(executor.timesteps, None, 0.0)
    chain = tuple(hop.with_gradient() for hop in plan[10:])  # a chain whose every hop has its gradient
    found = gradients(executor, pipeline, chain)
    generator = torch.Generator().manual_seed(5)
    directions = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in executor.policy.parameters()]
    expected = sum((g * d).sum() for g, d in zip(found, directions, strict=True) if g is not None)
    values = []
    for step in (1e-5, -1e-5):
        with torch.no_grad():
            for parameter, direction in zip(executor.policy.parameters(), directions, strict=True):
                parameter.add_(direction, alpha=step)
            executor.policy.refresh()
            values.append(reward_of(executor, pipeline, chain))
            for parameter, direction in zip(executor.policy.parameters(), directions, strict=True):
                parameter.sub_(direction, alpha=step)
            executor.policy.refresh()
    torch.testing.assert_close((values[0] - values[1]) / 2e-5, expected, rtol=1e-5, atol=1e-9)


def test_checkpointing_changes_no_gradient(pipeline):
    executor = double_executor(pipeline)
    plans = [methods.find("shortft")(checkpoint=c).plan(executor.timesteps, None, 0.0) for c in (False, True)]
    plain, checkpointed = (gradients(executor, pipeline, plan) for plan in plans)
    for a, b in zip(plain, checkpointed, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
    assert executor.ledger.denoiser_recomputations > 0


def test_a_detached_input_leaves_the_linear_path(pipeline):
    """d x_s / d x_t is the coefficient a alone when the denoiser sees a detached input."""
    executor = double_executor(pipeline)
    x = noise(dtype=torch.float64).requires_grad_()
    hop = Hop(501, 481, slots=(1,), eps_grad=True)
    moved = executor.run((hop,), x, embed(pipeline, PROMPTS))
    (gradient,) = torch.autograd.grad(moved.sum(), x)
    torch.testing.assert_close(gradient, torch.full_like(x, executor.move_coefficients(hop)[0]))


def test_hops_without_gradient_build_no_graph(pipeline):
    executor = build_executor(pipeline)
    plan = sampler_plan(executor.timesteps)
    assert not executor.run(plan[:3], noise(), embed(pipeline, PROMPTS)).requires_grad


def test_hops_are_checked():
    with pytest.raises(ValueError, match="towards the image"):
        Hop(481, 501)
    with pytest.raises(ValueError, match="input_grad"):
        Hop(501, 481, input_grad=True)


def test_describe_joins_like_hops():
    lines = describe(sampler_plan([981, 961, 941]))
    assert lines == ["981->end    3 x base      slots 1       no gradient"]


def test_the_ledger_counts_the_calls_of_a_step(pipeline):
    executor = build_executor(pipeline, 4, shortcut=tiny_unet(7))
    plan = methods.find("shortft")().plan(executor.timesteps, None, 0.0)
    executor.policy.backward(-executor.decode(executor.run(plan, noise(), embed(pipeline, PROMPTS))).mean())
    ledger = executor.ledger
    base, shortcut = 12 + 3, 3
    assert ledger.denoiser_forwards == 2 * (2 * base + shortcut)
    assert ledger.denoiser_backwards == 2 * (2 * 5 + shortcut)
    assert (ledger.images, ledger.decoder_forwards, ledger.decoder_backwards) == (2, 2, 2)


@pytest.mark.parametrize("name", methods.names())
def test_operations_agree_with_the_counter_over_a_whole_step(name, pipeline):
    method = methods.find(name)()
    executor = build_executor(pipeline, method.slots, shortcut=tiny_unet(7), steps=few_steps(name))
    prompts = PROMPTS * 4  # the batch of a real step: merging LoRAs is then less than 1%
    embeds = embed(pipeline, prompts)

    def step():
        batch = Batch(prompts, embeds, noise(8), torch.Generator().manual_seed(0), 0.0)
        for _ in method.updates(executor, batch, brightness):
            pass

    step()  # costs of single calls are measured now, so that the counter below sees the step alone
    executor.ledger.operations = 0
    whole = count_operations(step)
    assert executor.ledger.operations == pytest.approx(whole, rel=0.01)


def test_a_denoiser_call_by_hand_from_layer_shapes(pipeline):
    """Every convolution, linear layer and attention of the UNet, from the shapes that go through them."""
    counts = []

    def layer(module, inputs, output):
        taps = module.weight[0].numel()  # of each output
        counts.append(2 * output.numel() * taps)

    def attention(module, inputs, options, output):
        hidden, context = inputs[0], options.get("encoder_hidden_states")
        context = hidden if context is None else context
        products = 2  # queries with keys, weights with values
        counts.append(products * 2 * len(hidden) * hidden.shape[1] * context.shape[1] * module.to_q.out_features)

    for module in pipeline.unet.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            module.register_forward_hook(layer)
        elif isinstance(module, Attention):
            module.register_forward_hook(attention, with_kwargs=True)
    embeds = embed(pipeline, PROMPTS)
    with torch.no_grad():
        pipeline.unet(noise(), 1, embeds)
    by_hand = sum(counts)
    assert sum(counts) > 1e6
    executor = build_executor(pipeline)
    executor.run((Hop(981, 961, guidance=False),), noise(), embeds)
    assert executor.ledger.operations == pytest.approx(by_hand, rel=1e-6)


def test_operations_by_hand():
    x, weight = torch.randn(3, 5), torch.randn(5, 7)
    assert count_operations(lambda: x @ weight) == 2 * 3 * 5 * 7
    query = torch.randn(2, 4, 6, 8)
    attention = count_operations(lambda: scaled_dot_product_attention(query, query, query))
    assert attention == 2 * (2 * 2 * 4 * 6 * 6 * 8)


def test_a_call_is_measured_once():
    ledger, asked = Ledger(), []

    def cost():
        asked.append(1)
        return 10, 20

    for _ in range(3):
        ledger.call("denoiser", 4, "key", cost, backward=True)
    assert len(asked) == 1
    assert ledger.operations == 3 * 4 * 30
