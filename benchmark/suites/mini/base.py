"""Stage ``base``: train tokenizer, text encoder and UNet, and write a plain ``StableDiffusionPipeline`` folder.

    python -m benchmark.suites.mini.base

Run again after an interruption, the stage goes on from its last snapshot (``build/``, every 500 steps).
"""

import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from rich.progress import track
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from ...cli import command
from ..interface import ENDS, NO_SAFETY_CHECKER
from . import card, oracle, vae, world
from .training import Batch, Device, Guidance, Iterations, Rate, Seed, Training

MAX_TOKENS = 24
WIDTH = 96  # of the text encoder, and so of cross-attention
NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}  # Stable Diffusion's
SNAPSHOT = Path("build/mini/base.pt")


def build_tokenizer(folder: Path) -> CLIPTokenizer:
    """A byte-pair vocabulary in CLIP's format, learnt from captions: every word of the world is one token, and any
    other text still has an encoding (its bytes)."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe = Tokenizer(models.BPE(unk_token="<|endoftext|>", end_of_word_suffix="</w>"))
    bpe.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(vocab_size=2000, end_of_word_suffix="</w>", show_progress=False, min_frequency=2)
    bpe.train_from_iterator(world.captions("train", 4000), trainer)
    merges = [tuple(pair) for pair in json.loads(bpe.to_str())["model"]["merges"]]
    pieces = [*alphabet, *(letter + "</w>" for letter in alphabet), *("".join(pair) for pair in merges)]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys([*pieces, "<|startoftext|>", "<|endoftext|>"]))}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")
    special = {"bos_token": "<|startoftext|>"}
    special |= dict.fromkeys(("eos_token", "pad_token", "unk_token"), "<|endoftext|>")
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": MAX_TOKENS, **special}
    settings |= {"do_lower_case": True, "errors": "replace"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    return CLIPTokenizer.from_pretrained(folder)


def token_ids(tokenizer: CLIPTokenizer) -> dict[str, int]:
    """The special tokens' numbers, as CLIPTextConfig takes them."""
    return {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("bos", "eos", "pad")}


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """CLIP's text model in small: 2 layers, 96 wide."""
    width = {"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "projection_dim": WIDTH}
    size = width | {"num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": MAX_TOKENS}
    return CLIPTextModel(CLIPTextConfig(vocab_size=len(tokenizer), **size, **token_ids(tokenizer)))


def build_unet() -> UNet2DConditionModel:
    """Stable Diffusion's UNet in small: 8x8 convolutional level, 4x4 level with self- and cross-attention."""
    down, up = ("DownBlock2D", "CrossAttnDownBlock2D"), ("CrossAttnUpBlock2D", "UpBlock2D")
    size = {"sample_size": 8, "in_channels": 4, "out_channels": 4, "layers_per_block": 1, "norm_num_groups": 16}
    size |= {"block_out_channels": (32, 96), "cross_attention_dim": WIDTH, "attention_head_dim": 4}
    return UNet2DConditionModel(down_block_types=down, up_block_types=up, **size)


def build_scheduler() -> DDIMScheduler:
    """Stable Diffusion 1.5's noise schedule and DDIM settings."""
    return DDIMScheduler(num_train_timesteps=1000, prediction_type="epsilon", **NOISE, **ENDS)


def assemble(autoencoder, tokenizer, text_encoder, unet) -> StableDiffusionPipeline:
    parts = {"vae": autoencoder, "text_encoder": text_encoder, "tokenizer": tokenizer, "unet": unet}
    pipeline = StableDiffusionPipeline(**parts, scheduler=build_scheduler(), **NO_SAFETY_CHECKER)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def sample(pipeline: StableDiffusionPipeline, captions: list[str], guidance: float, seed: int = 1) -> np.ndarray:
    """50-step samples as float RGB (N, H, W, 3), one per caption, by diffusers' own pipeline."""
    generator, images = torch.Generator().manual_seed(seed), []
    options = {"num_inference_steps": 50, "guidance_scale": guidance, "output_type": "np"}
    for start in range(0, len(captions), 64):
        part = captions[start : start + 64]
        latents = torch.randn((len(part), 4, 8, 8), generator=generator).to(pipeline.device)
        images.append(pipeline(part, latents=latents, **options).images)
    return np.concatenate(images)


def quality(pipeline: StableDiffusionPipeline, split: str, count: int, guidance: float) -> dict[str, float]:
    """What the oracle says of 50-step samples on a split: all captions, those with one object and those with two."""
    captions = world.captions(split, count)
    images = sample(pipeline, captions, guidance)
    readings = [oracle.read(image, caption) for image, caption in zip(images, captions, strict=True)]
    single = np.array([reading.relation is None for reading in readings])
    scores = np.array([reading.score for reading in readings])
    parts = {"": scores, "_one_object": scores[single], "_two_objects": scores[~single]}
    means = {f"oracle_{split}{name}": float(part.mean()) for name, part in parts.items()}
    return means | {f"background_{split}": float(np.mean([reading.background for reading in readings]))}


@torch.no_grad()
def encode_images(autoencoder: AutoencoderKL, images: np.ndarray, device: str) -> torch.Tensor:
    """Mean and standard deviation of the scaled latents, (N, 8, 8, 8), on the CPU."""
    posteriors = (autoencoder.encode(part.to(device)).latent_dist for part in vae.to_tensor(images).split(256))
    moments = torch.cat([torch.cat([posterior.mean, posterior.std], 1).cpu() for posterior in posteriors])
    return moments * autoencoder.config.scaling_factor


@command
def main(
    iterations: Iterations = 4500,
    images: Annotated[int, typer.Option(help="Training renders.")] = 60000,
    batch: Batch = 64,
    rate: Rate = 1.2e-3,
    dropout: Annotated[float, typer.Option(help="Share of captions left out for classifier-free guidance.")] = 0.1,
    guidance: Guidance = 7.5,
    device: Device = "cpu",
    seed: Seed = 0,
) -> None:
    """Train text encoder and UNet together and write the pipeline folder."""
    clock = card.Stopwatch()
    torch.manual_seed(seed)
    autoencoder = AutoencoderKL.from_pretrained(card.PIPELINE / "vae").to(device).eval()
    tokenizer = build_tokenizer(card.PIPELINE / "tokenizer")
    text_encoder = build_text_encoder(tokenizer).to(device)
    unet = build_unet().to(device, memory_format=torch.channels_last)
    pixels, captions = world.arrays("train", images)
    latents = encode_images(autoencoder, pixels, device)
    tokens = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
    empty = tokenizer("", padding="max_length", return_tensors="pt").input_ids
    scheduler = build_scheduler()
    snr = scheduler.alphas_cumprod / (1 - scheduler.alphas_cumprod)
    print(f"{images} renders encoded in {clock():.0f} s", flush=True)

    models_ = torch.nn.ModuleList([text_encoder, unet])
    schedule = {"warmup": 0.04, "cycle_momentum": False, "average_decay": 0.9995}
    training = Training(models_.parameters(), rate, iterations, weight_decay=1e-2, **schedule)
    generator = torch.Generator().manual_seed(seed)
    first, before = 0, 0.0
    weights = (card.PIPELINE / "vae/diffusion_pytorch_model.safetensors").read_bytes()
    key = [iterations, images, batch, rate, dropout, seed, hashlib.sha256(weights).hexdigest()]
    state = torch.load(SNAPSHOT, weights_only=True) if SNAPSHOT.exists() else {}
    if state.get("settings") == key:  # a snapshot of other settings is not gone on with
        models_.load_state_dict(state["models"])
        training.load_state_dict(state["training"])
        generator.set_state(state["generator"])
        first, before = training.steps, state["seconds"]
        print(f"goes on at step {first}", flush=True)

    for step in track(range(first, iterations), "base", total=iterations, completed=first):
        index = torch.randint(len(latents), (batch,), generator=generator)
        mean, std = latents[index].chunk(2, 1)
        x0 = mean + std * torch.randn(mean.shape, generator=generator)
        noise = torch.randn(mean.shape, generator=generator)
        # One timestep from each of `batch` equal intervals: the same distribution with less variance.
        t = ((torch.arange(batch) + torch.rand(batch, generator=generator)) / batch * 1000).long()
        keep = torch.rand(batch, generator=generator) >= dropout
        text = torch.where(keep[:, None], tokens[index], empty)
        noisy = scheduler.add_noise(x0, noise, t)
        weight = (5.0 / snr[t]).clamp(max=1.0).to(device)  # min-SNR-5 (Hang et al., ICCV 2023)
        embedding = text_encoder(text.to(device)).last_hidden_state
        noisy = noisy.to(device, memory_format=torch.channels_last)
        prediction = unet(noisy, t.to(device), embedding).sample
        loss = ((prediction - noise.to(device)).square().mean(dim=(1, 2, 3)) * weight).mean()
        training.step(loss)
        if (step + 1) % 500 == 0:
            SNAPSHOT.parent.mkdir(parents=True, exist_ok=True)
            state = {"models": models_.state_dict(), "training": training.state_dict(), "settings": key}
            state |= {"generator": generator.get_state(), "seconds": before + clock()}
            torch.save(state, SNAPSHOT.with_suffix(".part"))
            SNAPSHOT.with_suffix(".part").rename(SNAPSHOT)
            print(f"step {step + 1}  loss {training.last_loss():.4f}  {before + clock():.0f} s", flush=True)

    training.use_average()
    models_.eval().requires_grad_(False)
    unet.to(memory_format=torch.contiguous_format)
    pipeline = assemble(autoencoder, tokenizer, text_encoder, unet)
    metrics = {"loss": training.last_loss()} | quality(pipeline, "test", 256, guidance)
    metrics |= quality(pipeline, "combinations", 256, guidance)
    with tempfile.TemporaryDirectory() as folder:  # the vae's folder belongs to its own stage and stays as it is
        pipeline.to("cpu").save_pretrained(folder)
        shutil.rmtree(Path(folder) / "vae")
        shutil.copytree(folder, card.PIPELINE, dirs_exist_ok=True)
    files = [f for f in card.PIPELINE.rglob("*") if f.is_file() and f.parts[-2] != "vae"]
    settings = {"iterations": iterations, "images": images, "batch": batch, "rate": rate, "dropout": dropout}
    card.write("base", files, before + clock(), device, models_, metrics, **settings, guidance=guidance, seed=seed)
    SNAPSHOT.unlink(missing_ok=True)
    print(json.dumps(metrics, indent=2))


if __name__ == "__main__":
    main()
