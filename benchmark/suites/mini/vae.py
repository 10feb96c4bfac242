"""Stage ``vae``: train the AutoencoderKL of the mini world, 32x32 pixels to 8x8x4 latents.

    python -m benchmark.suites.mini.vae

Encoder and decoder are trained together, then the decoder alone, as Stable Diffusion's was. The second part can be had
by itself (``--keep-encoder``): the latents do not change, so neither do base model and shortcut.
"""

import math
from typing import Annotated

import torch
import torch.nn.functional as F
import typer
from diffusers import AutoencoderKL
from rich.progress import track

from ...cli import command
from . import card, world
from .training import Batch, Device, Iterations, Rate, Seed, Training


def build() -> AutoencoderKL:
    """The untrained autoencoder, 0.4 M parameters."""
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 3, "up_block_types": ("UpDecoderBlock2D",) * 3}
    size = {"sample_size": world.RESOLUTION, "block_out_channels": (16, 32, 48), "layers_per_block": 1}
    return AutoencoderKL(**blocks, **size, latent_channels=4, norm_num_groups=8)


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


def fit(vae: AutoencoderKL, data: torch.Tensor, parameters, iterations, batch, rate, device, seed) -> None:
    """Train ``parameters`` of the autoencoder on images (N, 3, 32, 32) in [-1, 1]."""
    generator = torch.Generator().manual_seed(seed)
    training = Training(parameters, rate, iterations, weight_decay=1e-4)
    for step in track(range(iterations), description="vae"):
        x = data[torch.randint(len(data), (batch,), generator=generator)].to(device)
        posterior = vae.encode(x).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator).to(device)
        y = vae.decode(posterior.mean + posterior.std * noise).sample
        # A little L1 keeps edges crisp; the squared error is what decibels count.
        loss = F.mse_loss(y, x) + 0.05 * F.l1_loss(y, x) + 1e-6 * posterior.kl().mean()
        training.step(loss)
        if step % 500 == 0 or step == iterations - 1:
            print(f"step {step}  mse {F.mse_loss(y, x):.5f}", flush=True)


@command
def main(
    iterations: Iterations = 3200,
    decoder_iterations: Annotated[int, typer.Option(help="Further steps of the decoder alone.")] = 2000,
    images: Annotated[int, typer.Option(help="Training renders.")] = 20000,
    batch: Batch = 24,
    rate: Rate = 2e-3,
    keep_encoder: Annotated[
        bool, typer.Option("--keep-encoder", help="Start from the shipped weights, train the decoder alone.")
    ] = False,
    device: Device = "cpu",
    seed: Seed = 0,
) -> None:
    """Train the autoencoder and write it into the pipeline folder."""
    clock = card.Stopwatch()
    torch.manual_seed(seed)
    data, seconds = to_tensor(world.arrays("train", images)[0]), 0.0
    if keep_encoder:
        vae, seconds = AutoencoderKL.from_pretrained(card.PIPELINE / "vae"), card.read("vae")["seconds"]
        vae.register_to_config(_name_or_path="")  # what is shipped names no folder of a machine
        vae.to(device, memory_format=torch.channels_last)
    else:
        vae = build().to(device, memory_format=torch.channels_last)
        fit(vae, data, vae.parameters(), iterations, batch, rate, device, seed)
        vae.eval()
        with torch.no_grad():
            latents = torch.cat([vae.encode(part.to(device)).latent_dist.mode() for part in data[:2048].split(128)])
        # Latents of unit variance, as Stable Diffusion scales them.
        vae.register_to_config(scaling_factor=round(1 / float(latents.std()), 5))
    # Decoder alone: latents, and every model that was trained on them, stay as they are.
    vae.encoder.requires_grad_(False)
    vae.quant_conv.requires_grad_(False)
    decoder = [p for p in vae.parameters() if p.requires_grad]
    fit(vae, data, decoder, decoder_iterations, batch, rate / 2, device, seed + 1)

    vae.eval().to(memory_format=torch.contiguous_format)
    held_out = to_tensor(world.arrays("test", 512)[0]).to(device)
    decibels = psnr(reconstruct(vae, held_out), held_out)
    if not math.isfinite(decibels):
        raise SystemExit("the autoencoder diverged; nothing was written")
    vae.to("cpu").save_pretrained(card.PIPELINE / "vae")
    files = [card.PIPELINE / "vae" / name for name in ("config.json", "diffusion_pytorch_model.safetensors")]
    metrics = {"psnr_db_test": decibels, "scaling_factor": vae.config.scaling_factor}
    settings = {"iterations": iterations, "decoder_iterations": decoder_iterations, "images": images, "batch": batch}
    card.write("vae", files, seconds + clock(), device, vae, metrics, **settings, rate=rate, seed=seed)
    print(f"PSNR {decibels:.2f} dB on held-out renders, {clock():.0f} s")


if __name__ == "__main__":
    main()
