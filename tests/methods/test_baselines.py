"""What must be true of the published methods, on a tiny random model; gradients in float64."""

import itertools
import types

import pytest
import torch
from pydantic import ValidationError

from benchmark.diffusion import CLEAN, END, Hop
from methods import Batch, find
from tests.conftest import PROMPTS, brightness, build_executor, embed, noise, predict_noise, randomise

LEADING = list(range(981, 0, -20))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def executor(pipeline):
    for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        part.double()
    executor = build_executor(pipeline)
    randomise(executor.policy)
    return executor


@pytest.fixture
def given(pipeline, executor):
    return Batch(PROMPTS, embed(pipeline, PROMPTS), noise(dtype=torch.float64), seeded(), 0.0)


def gradient(method, executor, batch):
    """The first gradient estimate of a method, flattened."""
    for parameter in executor.policy.parameters():
        parameter.grad = None
    batch = Batch(batch.prompts, batch.prompt_embeds, batch.latents, seeded(), batch.progress)
    next(iter(method.updates(executor, batch, brightness)))
    return torch.cat([p.grad.flatten() for p in executor.policy.parameters()])


def by_hand(executor, loss):
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, executor.policy.parameters())])


def guided(executor, x, t, embeds):
    """Classifier-free guidance, two calls."""
    negative = executor.negative_embeds.expand_as(embeds)
    unconditional, conditional = (
        predict_noise(executor.policy, "base", x, t, part, (1,)) for part in (negative, embeds)
    )
    return unconditional + 7.5 * (conditional - unconditional)


def same(one, other):
    torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-13)
    assert one.norm() > 0


# -- DRaFT


def test_draft_k_of_all_steps_is_draft(executor, given):
    full = gradient(find("draft")(), executor, given)
    same(gradient(find("draft_k")(k=50), executor, given), full)


def test_draft_lv_without_fresh_noise_is_draft_1(executor, given):
    same(gradient(find("draft_lv")(n=0), executor, given), gradient(find("draft_k")(), executor, given))


def test_draft_lv_by_hand(executor, given):
    """The mean over the chain's own last step and two fresh noisings of the detached image."""
    found = gradient(find("draft_lv")(), executor, given)
    plan = find("draft_lv")().sampler_plan(executor.timesteps)
    with torch.no_grad():
        before = executor.run(plan[:-1], given.latents, given.prompt_embeds)
        finished = executor.run(plan[-1:], before, given.prompt_embeds)
    generator, level = seeded(), executor.alpha_bar(1)
    starts = [before]
    for _ in range(2):
        z = torch.randn(finished.shape, generator=generator, dtype=torch.float64)
        starts.append(level**0.5 * finished + (1 - level) ** 0.5 * z)
    a, b, _ = executor.move_coefficients(Hop(1, END))
    ends = [a * x + b * guided(executor, x, 1, given.prompt_embeds) for x in starts]
    loss = -sum(brightness(executor.decode(x), PROMPTS).mean() for x in ends) / 3
    same(found, by_hand(executor, loss))


# -- AlignProp


def test_alignprop_with_a_fixed_cut_is_draft_k(executor, given):
    one = gradient(find("alignprop")(truncation="fixed", k=3), executor, given)
    same(one, gradient(find("draft_k")(k=3), executor, given))


def test_alignprop_per_step_keeps_hop_i_with_probability_i_plus_1_over_51():
    generator, draws = seeded(), 4000
    kept = torch.tensor([find("alignprop")().kept(50, generator) for _ in range(draws)]).double().mean(0)
    expected = torch.arange(1, 51) / 51
    assert ((kept - expected).abs() < 4.5 * (expected * (1 - expected) / draws).sqrt()).all()


def test_alignprop_gaussian_keeps_the_end_from_one_cut_on():
    generator = seeded()
    kept = torch.tensor([find("alignprop")(truncation="gaussian").kept(50, generator) for _ in range(2000)]).double()
    assert (kept.diff(dim=1) >= 0).all()  # once kept, kept to the end
    cuts = 50 - kept.sum(1)
    assert cuts.min() >= 1
    assert cuts.max() < 50
    # N(42, 5) below 50, cut to whole numbers: its mean is 41.0.
    assert abs(cuts.mean() - 41.0) < 0.4


def test_alignprop_lets_the_gradient_pass_where_a_prediction_is_dropped():
    plan = find("alignprop")(eta=1.0).plan(LEADING, seeded(), 0.0)
    assert 10 < sum(hop.eps_grad for hop in plan) < 40
    assert all(hop.input_grad == hop.eps_grad == hop.checkpoint for hop in plan)
    assert {hop.eta for hop in plan} == {1.0}


def test_alignprop_longer_than_the_chain_is_refused():
    with pytest.raises(ValueError, match="longer than the chain"):
        find("alignprop")(truncation="fixed", k=51).plan(LEADING, seeded(), 0.0)


# -- ReFL


def test_refl_predicts_the_image_at_a_late_step_of_40(executor):
    grid = executor.grid(40)
    assert len(grid) == 40
    assert grid[-1] == 1
    assert find("refl")().chain_steps == 40
    generator, stops = seeded(), set()
    for _ in range(300):
        *chain, last = find("refl")().plan(grid, generator, 0.0)
        assert not any(hop.eps_grad for hop in chain)
        assert last.s == CLEAN
        assert {(hop.eta, hop.guidance) for hop in chain} == {(1.0, False)}
        stops.add(len(chain))
    assert stops == set(range(30, 40))


def test_refl_by_hand(executor, given):
    """x0_hat = (x_t - sigma_t eps) / alpha_t, eps without guidance, x_t a constant."""
    found = gradient(find("refl")(), executor, given)
    generator = seeded()
    *chain, last = find("refl")().plan(executor.grid(40), generator, 0.0)
    with torch.no_grad():
        x = executor.run(tuple(chain), given.latents, given.prompt_embeds, generator)
    level = executor.alpha_bar(last.t)
    predicted = predict_noise(executor.policy, "base", x, last.t, given.prompt_embeds, (1,))
    clean = (x - (1 - level) ** 0.5 * predicted) / level**0.5
    same(found, by_hand(executor, -brightness(executor.decode(clean), PROMPTS).mean()))


def test_refl_with_a_margin_stops_above_it():
    rewards = torch.tensor([1.0, 3.0], requires_grad=True)
    find("refl")(margin=2.0).loss(rewards).backward()
    assert rewards.grad.tolist() == [-0.5, 0.0]


def test_refl_refuses_to_stop_after_its_chain():
    with pytest.raises(ValidationError, match="must be below"):
        find("refl")(steps=30, earliest=30)


# -- DRTune


def test_drtune_trains_k_equally_spaced_steps_on_detached_latents():
    generator, phases, stops = seeded(), set(), set()
    for _ in range(400):
        plan = find("drtune")().plan(LEADING, generator, 0.0)
        trained = [i for i, hop in enumerate(plan) if hop.eps_grad]
        assert all(b - a == 10 for a, b in itertools.pairwise(trained))
        assert not any(hop.input_grad for hop in plan)
        assert plan[-1].s == CLEAN
        phases.add(trained[0])
        stops.add(len(plan) - 1)
    assert phases == set(range(10))
    assert stops == set(range(30, 50))
    assert sum(hop.eps_grad for hop in find("drtune")(m=0).plan(LEADING, generator, 0.0)) == 5


def test_drtune_by_hand(executor, given):
    """The gradient down the linear path: the image depends on a trained eps_i through b_i and the later a_j alone."""
    found = gradient(find("drtune")(m=0), executor, given)
    plan = find("drtune")(m=0).plan(executor.timesteps, seeded(), 0.0)
    x, trained = given.latents, []
    with torch.no_grad():
        for hop in plan:
            a, b, _ = executor.move_coefficients(hop)
            if hop.eps_grad:
                trained.append((x, hop.t, b))
            trained = [(start, t, share * a if t != hop.t else share) for start, t, share in trained]
            x = a * x + b * guided(executor, x, hop.t, given.prompt_embeds)
    end = x.requires_grad_()
    (slope,) = torch.autograd.grad(-brightness(executor.decode(end), PROMPTS).mean(), end)
    surrogate = sum(
        (slope * share * guided(executor, start, t, given.prompt_embeds)).sum() for start, t, share in trained
    )
    same(found, by_hand(executor, surrogate))


def test_drtune_with_every_step_and_no_early_stop_makes_the_samplers_image(executor, given):
    plan = find("drtune")(k=50, m=0).plan(executor.timesteps, seeded(), 0.0)
    assert all(hop.eps_grad for hop in plan)
    sampled = executor.run(find("drtune")().sampler_plan(executor.timesteps), given.latents, given.prompt_embeds)
    assert torch.equal(executor.run(plan, given.latents, given.prompt_embeds), sampled)


@pytest.mark.parametrize("options", [{"k": 51}, {"m": 51}])
def test_drtune_longer_than_the_chain_is_refused(options):
    with pytest.raises(ValueError, match="must not exceed"):
        find("drtune")(**options).plan(LEADING, seeded(), 0.0)


# -- DDPO


def test_ddpo_before_any_update_is_reinforce(executor, given):
    """With rho = 1 the gradient of the clipped objective is -A d log p / d theta, by torch's own density."""
    method = find("ddpo")(samples=2, minibatches=1)
    found = gradient(method, executor, given)

    generator, embeds = seeded(), given.prompt_embeds.repeat(2, 1, 1)
    fresh = torch.randn(given.latents.shape, generator=generator, dtype=torch.float64)
    x, transitions = torch.cat([given.latents, fresh]), []
    chain = [Hop(t, s, slots=(1,), eta=1.0) for t, s in zip(LEADING, [*LEADING[1:], END], strict=True)]
    with torch.no_grad():
        for hop in chain:
            a, b, std = executor.move_coefficients(hop)
            z = torch.randn(x.shape, generator=generator, dtype=torch.float64)
            after = a * x + b * guided(executor, x, hop.t, embeds) + std * z
            transitions.append((hop, x, after))
            x = after
        rewards = brightness(executor.decode(x), PROMPTS)
    first, second = rewards[0::2].mean(), rewards[1::2].mean()  # each prompt has every other image
    advantages = (rewards - torch.stack([first, second, first, second])) / rewards.std()
    loss = 0.0
    for hop, start, after in transitions:
        a, b, std = executor.move_coefficients(hop)
        density = torch.distributions.Normal(a * start + b * guided(executor, start, hop.t, embeds), std)
        loss = loss - (advantages * density.log_prob(after).mean(dim=(1, 2, 3))).mean() / 50
    torch.testing.assert_close(found, by_hand(executor, loss), rtol=1e-5, atol=1e-12)  # std + 1e-8 there


def test_ddpo_clips_the_ratio():
    method, advantages = find("ddpo")(clip=0.1), torch.tensor([1.0, 1.0, -1.0, -1.0])
    log_ratio = torch.tensor([0.5, -0.5, 0.5, -0.5], requires_grad=True)
    losses = method.surrogate(log_ratio, advantages)
    torch.testing.assert_close(
        losses, torch.tensor([-1.1, -(-0.5 * torch.ones(())).exp(), torch.tensor(0.5).exp(), 0.9])
    )
    losses.sum().backward()
    assert (log_ratio.grad != 0).tolist() == [False, True, True, False]  # no reward for going further than the clip


def test_ddpo_makes_one_update_per_minibatch(executor, given):
    updates = list(find("ddpo")(samples=2, minibatches=2).updates(executor, given, brightness))
    assert len(updates) == 2
    assert executor.ledger.denoiser_forwards == 2 * 50 * 4 * 2  # guided: sampled once, trained on once
    assert executor.ledger.denoiser_backwards == 50 * 4 * 2


def test_ddpo_on_a_gaussian_step_has_the_analytic_gradient():
    """One step x_0 = x_T / 2 + theta + 0.3 z with reward c.x_0: the gradient of the expected reward is along c."""
    theta = torch.zeros(1, 3, 1, 1, dtype=torch.float64, requires_grad=True)
    direction = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    policy = types.SimpleNamespace(
        train_slots=lambda slots: None, refresh=lambda: None, backward=lambda loss, keep_merged: loss.backward()
    )
    toy = types.SimpleNamespace(
        timesteps=[1], policy=policy, move_coefficients=lambda hop: (0.5, 1.0, 0.3), decode=lambda x: x,
        predict=lambda hop, x, embeds: theta.expand_as(x),
    )  # fmt: skip
    count = 20000
    start = torch.randn((count, 3, 1, 1), generator=seeded(1), dtype=torch.float64)
    batch = Batch(["x"] * count, torch.zeros(count, 1, 1), start, seeded(), 0.0)
    list(find("ddpo")(minibatches=1).updates(toy, batch, lambda images, prompts: images[:, :, 0, 0] @ direction))
    # A = (r - mean of 4) / std, so E[A (x_0 - mean)] = (1 - 1/4) 0.09 c / std; the density is a mean over 3 dimensions.
    expected = -0.75 * direction / (direction.norm() * (0.25 + 0.09) ** 0.5) / 3
    torch.testing.assert_close(theta.grad.flatten(), expected, rtol=0, atol=0.01)
