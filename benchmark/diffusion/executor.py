"""The executor walks plans: the only place that knows DDIM, guidance, LoRA slots and checkpointing."""

import dataclasses
import math
from collections.abc import Callable

import torch
from diffusers import AutoencoderKL, DDIMScheduler
from torch import Generator, Tensor

from .ledger import Ledger, measure
from .plan import CLEAN, END, Hop, Plan
from .policy import Policy, Weights

SPACINGS = ("leading", "trailing")


class _Recomputed(torch.autograd.Function):
    """``call(latents, *weights)``, made again in the backward pass instead of stored.

    ``torch.utils.checkpoint`` asks Python about every tensor that a call would store, and its other variant cannot
    give gradients to weights that are themselves results, as merged ones are.
    """

    @staticmethod
    def forward(ctx, call: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        ctx.call = call
        ctx.save_for_backward(*inputs)
        return call(*inputs)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        wanted = ctx.needs_input_grad[1:]
        inputs = [x.detach().requires_grad_(need) for x, need in zip(ctx.saved_tensors, wanted, strict=True)]
        with torch.enable_grad():
            result = ctx.call(*inputs)
        found = iter(torch.autograd.grad(result, [x for x in inputs if x.requires_grad], gradient))
        return None, *(next(found) if need else None for need in wanted)


@dataclasses.dataclass(eq=False)
class Executor:
    """Runs chains of one policy and enters every call into a ledger."""

    policy: Policy
    vae: AutoencoderKL
    scheduler: DDIMScheduler  # gives the noise schedule and the timesteps of the base chain (descending)
    negative_embeds: Tensor  # prompt embedding (1, L, D) of the unconditional half of guidance
    guidance_scale: float | None = 7.5  # of the base model, as in sampling
    shortcut_guidance_scale: float | None = None  # of the few-step model; None calls it once, without guidance
    steps: int = 50
    spacing: str = "leading"
    ledger: Ledger = dataclasses.field(default_factory=Ledger)

    def __post_init__(self):
        if self.spacing not in SPACINGS:
            raise ValueError(f"unknown timestep spacing {self.spacing!r}; the spacings are {', '.join(SPACINGS)}")
        self.vae.requires_grad_(False).eval()
        self._sampler = DDIMScheduler.from_config(self.scheduler.config, timestep_spacing=self.spacing)
        self.timesteps = self.grid(self.steps)
        self._alphas_cumprod = self._sampler.alphas_cumprod.double().tolist()
        self._final_alpha_cumprod = float(self._sampler.final_alpha_cumprod)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Of one image's latents, (C, h, w)."""
        config = self.policy.unet.config
        return config.in_channels, config.sample_size, config.sample_size

    def grid(self, steps: int | None = None) -> list[int]:
        """Timesteps, descending, of a chain of ``steps`` steps; None: those of the base chain."""
        if steps is None:
            return self.timesteps
        self._sampler.set_timesteps(steps)
        return self._sampler.timesteps.tolist()

    def add_noise(self, latents: Tensor, t: int, generator: Generator) -> Tensor:
        """Finished latents, noised to timestep ``t``: ``alpha_t x_0 + sigma_t z``."""
        noise = torch.randn(latents.shape, generator=generator, dtype=latents.dtype).to(latents.device)
        return math.sqrt(self.alpha_bar(t)) * latents + math.sqrt(1 - self.alpha_bar(t)) * noise

    def alpha_bar(self, t: int) -> float:
        """Cumulative product of alphas at a timestep, at ``END`` or at ``CLEAN``."""
        if t == CLEAN:
            return 1.0
        return self._final_alpha_cumprod if t == END else self._alphas_cumprod[t]

    def run(self, plan: Plan, latents: Tensor, prompt_embeds: Tensor, generator: Generator | None = None) -> Tensor:
        """Carry ``latents`` (B, C, h, w) along the plan; the result has the gradient that the plan's hops keep.

        generator: source of the noise of hops with eta > 0.
        """
        for hop in plan:
            noise_pred = self.predict(hop, latents, prompt_embeds)
            a, b, std = self.move_coefficients(hop)
            moved = a * latents + b * noise_pred  # after the call: the order of the graph decides how gradients round
            if std:
                noise = torch.randn(latents.shape, generator=generator, dtype=latents.dtype)
                moved = moved + std * noise.to(latents.device)
            latents = moved
        return latents

    def move_coefficients(self, hop: Hop) -> tuple[float, float, float]:
        """(a, b, c) of the move ``x_s = a x_t + b noise_pred + c z`` (DDIM, Song et al. 2021, eqs. 12 and 16)."""
        now, then = self.alpha_bar(hop.t), self.alpha_bar(hop.s)
        variance = (1 - then) / (1 - now) * (1 - now / then) if hop.eta else 0.0
        std = hop.eta * math.sqrt(max(variance, 0.0))
        a = math.sqrt(then / now)
        return a, math.sqrt(max(1 - then - std**2, 0.0)) - a * math.sqrt(1 - now), std

    def guided(
        self, model: str, latents: Tensor, t: int | Tensor, prompt_embeds: Tensor, weights: Weights, scale: float | None
    ) -> Tensor:
        """Noise prediction of a model, with classifier-free guidance where a scale is given, in one call.

        t: a timestep, or one for each of the batch (B,).
        weights: take the place of the model's own, by name.
        """
        if scale is None:
            return self.policy.call(model, latents, t, prompt_embeds, weights)
        embeds = torch.cat([self.negative_embeds.expand_as(prompt_embeds), prompt_embeds])
        t = torch.cat([t, t]) if isinstance(t, Tensor) else t
        both = self.policy.call(model, torch.cat([latents, latents]), t, embeds, weights)
        unconditional, conditional = both.chunk(2)
        return unconditional + scale * (conditional - unconditional)

    def predict(self, hop: Hop, latents: Tensor, prompt_embeds: Tensor) -> Tensor:
        """The hop's noise prediction, with the gradient that the hop keeps, entered into the ledger."""
        if not hop.input_grad:
            latents = latents.detach()
        scale = self.guidance_scale if hop.model == "base" else self.shortcut_guidance_scale
        scale, weights = scale if hop.guidance else None, self.policy.weights(hop.slots, hop.model)

        def call(x: Tensor, *values: Tensor) -> Tensor:
            given = dict(zip(weights, values, strict=True))
            return self.guided(hop.model, x, hop.t, prompt_embeds, given, scale)

        inputs = (latents, *weights.values())
        with torch.set_grad_enabled(hop.eps_grad):
            recompute = hop.checkpoint and hop.eps_grad
            noise_pred = _Recomputed.apply(call, *inputs) if recompute else call(*inputs)
        backward = noise_pred.requires_grad
        attached = backward and latents.requires_grad

        def cost() -> tuple[int, int]:
            x = latents[:1].detach().clone().requires_grad_(attached)
            inputs = [w for w in weights.values() if backward and w.requires_grad] + [x] * attached
            one = (hop.model, x, hop.t, prompt_embeds[:1], weights)
            return measure(lambda: self.policy.call(*one, plain=True), inputs)

        key = (hop.model, self.policy.costly_slots(hop.slots), backward, attached)
        images = len(latents) * (1 if scale is None else 2)
        self.ledger.call("denoiser", images, key, cost, backward, backward and hop.checkpoint)
        return noise_pred

    def decode(self, latents: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] of final latents."""

        def call(x: Tensor) -> Tensor:
            given = (x / self.vae.config.scaling_factor).to(self.vae.dtype)
            images = self.vae.decode(given, return_dict=False)[0].to(x.dtype)
            return (images / 2 + 0.5).clamp(0, 1)

        images = call(latents)
        backward = images.requires_grad

        def cost() -> tuple[int, int]:
            x = latents[:1].detach().clone().requires_grad_(backward)
            return measure(lambda: call(x), [x] * backward)

        self.ledger.call("decoder", len(latents), backward, cost, backward)
        return images
