"""Stage ``vae``: train the AutoencoderKL of the mini world, 32x32 pixels to 8x8x4 latents.

python -m benchmark.suites.mini.vae
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
import typer
from diffusers import AutoencoderKL
from rich.progress import track

from . import card, world


def build() -> AutoencoderKL:
    """The untrained autoencoder, 0.4 M parameters."""
    return AutoencoderKL(
        sample_size=world.RESOLUTION,
        block_out_channels=(16, 32, 48),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
    )


def to_tensor(images) -> torch.Tensor:
    """uint8 (N, H, W, 3) to float (N, 3, H, W) in [-1, 1], the VAE's range."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def psnr(reconstruction: torch.Tensor, images: torch.Tensor) -> float:
    """Peak signal-to-noise ratio in dB, mean over images in [-1, 1]."""
    error = (reconstruction.clamp(-1, 1) - images).div(2).square().mean(dim=(1, 2, 3))
    return float((-10 * error.log10()).mean())


@torch.no_grad()
def reconstruct(vae: AutoencoderKL, images: torch.Tensor) -> torch.Tensor:
    return torch.cat([vae.decode(vae.encode(part).latent_dist.mode()).sample for part in images.split(128)])


def main(
    iterations: int = typer.Option(3200, help="Optimiser steps."),
    images: int = typer.Option(20000, help="Training renders."),
    batch: int = typer.Option(24),
    rate: float = typer.Option(2e-3, help="Peak of the one-cycle learning rate."),
    device: str = typer.Option("cpu"),
    seed: int = typer.Option(0),
) -> None:
    """Train the autoencoder and write it into the pipeline folder."""
    clock = card.Stopwatch()
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    data = to_tensor(world.arrays("train", images)[0])
    vae = build().to(device, memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(vae.parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=iterations, pct_start=0.05)
    for step in track(range(iterations), description="vae"):
        x = data[torch.randint(len(data), (batch,), generator=generator)].to(device)
        posterior = vae.encode(x).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator).to(device)
        y = vae.decode(posterior.mean + posterior.std * noise).sample
        # A little L1 keeps edges crisp; the squared error is what decibels count.
        loss = F.mse_loss(y, x) + 0.05 * F.l1_loss(y, x) + 1e-6 * posterior.kl().mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % 500 == 0 or step == iterations - 1:
            print(f"step {step}  mse {F.mse_loss(y, x):.5f}  {clock():.0f} s", flush=True)

    vae.eval().to(memory_format=torch.contiguous_format)
    with torch.no_grad():
        latents = torch.cat([vae.encode(part.to(device)).latent_dist.mode() for part in data[:2048].split(128)])
    # Latents of unit variance, as Stable Diffusion scales them.
    vae.register_to_config(scaling_factor=round(1 / float(latents.std()), 5))
    held_out = to_tensor(world.arrays("test", 512)[0]).to(device)
    decibels = psnr(reconstruct(vae, held_out), held_out)
    if not math.isfinite(decibels):
        raise SystemExit("the autoencoder diverged; nothing was written")
    vae.to("cpu").save_pretrained(card.PIPELINE / "vae")
    vae_files = [card.PIPELINE / "vae" / name for name in ("config.json", "diffusion_pytorch_model.safetensors")]
    card.write(
        "vae",
        vae_files,
        clock(),
        device,
        vae.num_parameters(),
        {"psnr_db_test": decibels, "scaling_factor": vae.config.scaling_factor},
        iterations=iterations,
        images=images,
        batch=batch,
        rate=rate,
        seed=seed,
    )
    print(f"PSNR {decibels:.2f} dB on held-out renders, {clock():.0f} s")


if __name__ == "__main__":
    typer.run(main)
