"""Stage ``rewards``: train the suite's learned rewards on captions and on the choices of a simulated annotator.

    python -m benchmark.suites.mini.rewards            all three, or name one:  --only hps

Human Preference Score's recipe in small (Wu et al., HPSv2, 2023): a caption-image model first learns which caption
belongs to which image, wrong captions that differ in one fact included; then it learns pairwise preferences
(Bradley-Terry). The oracle is never asked, and no image is read: the annotator knows how each image was *made*.

The annotator compares two images under one caption by

    utility = share of the caption's facts that the image was drawn with - severity of its corruption

and prefers the larger, but for 2% of slips. Four kinds of pairs:

    edit        two renders, of the caption and of a caption with one or two facts changed
    corruption  two renders of the caption, one noticeably more corrupted (blur, noise, lost contrast, erased patch)
    sample      a render of the caption is preferred to a sample of the base model
    mismatch    a sample of the base model is preferred to its sample for another caption

Half of all renders go through the VAE, so that a sample cannot be told from a render by the VAE's traces alone.
"""

import json
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
import typer
from diffusers import AutoencoderKL, StableDiffusionPipeline
from rich.progress import track
from scipy import ndimage

from ...cli import command
from ...diffusion import Executor
from ...errors import unknown
from . import card, shortcut, vae, world
from .reward_models import NAMES, DualEncoder, build, save, tokenize
from .training import Batch, Device, Guidance, Rate, Training

KINDS = ("edit", "corruption", "sample", "mismatch")
ODDS = (0.45, 0.2, 0.2, 0.15)
SLIPS = 0.02
NOTICEABLE = 0.3  # difference in severity
ITERATIONS = {"hps": 5500, "pickscore": 1500, "imagereward": 1500}
PAIRS = {"hps": 48000, "pickscore": 24000, "imagereward": 24000}
SEEDS = {"hps": 11, "pickscore": 22, "imagereward": 33}


def corrupt(image: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    """A worse copy of an image (H, W, 3) in [0, 1]; severity in [0, 1]."""
    kind = rng.integers(4)
    if kind == 0:
        image = ndimage.gaussian_filter(image, (2.2 * severity, 2.2 * severity, 0))
    elif kind == 1:
        image = image + rng.normal(0, 0.3 * severity, image.shape)
    elif kind == 2:
        image = image + severity * (image.mean() - image)
    else:
        side = round(20 * severity)
        top, left = rng.integers(0, world.RESOLUTION - side + 1, 2)
        image = image.copy()
        image[top : top + side, left : left + side] = image.mean()
    return image.clip(0, 1).astype(np.float32)


def through_vae(autoencoder: AutoencoderKL, images: np.ndarray) -> np.ndarray:
    """uint8 images as the autoencoder returns them."""
    tensor = vae.reconstruct(autoencoder, vae.to_tensor(images)).clamp(-1, 1)
    return ((tensor + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()


def preferences(
    split: str, count: int, samples: np.ndarray, sampled: list[str], autoencoder: AutoencoderKL, seed: int
) -> dict:
    """Pairs as the annotator judged them: captions, kinds and uint8 images (N, 2, H, W, 3), the chosen one first.

    samples, sampled: images of the base model, uint8, and their captions, of the same split.
    """
    rng = np.random.default_rng([seed, world.SPLITS.index(split)])
    kinds = rng.choice(len(KINDS), count, p=ODDS)
    captions, pairs, renders = [], np.zeros((count, 2, 32, 32, 3), np.uint8), []
    for n in track(range(count), description=f"{split} pairs"):
        kind = KINDS[kinds[n]]
        if kind in ("edit", "corruption"):
            scene = world.draw(split, int(rng.integers(10**6)), seed=1)
            captions.append(scene.spec.caption())
            image = world.render(scene)
            if kind == "edit":
                other = scene.spec
                while other == scene.spec:
                    for _ in range(rng.integers(1, 3)):
                        other = world.edit(other, rng)
                pairs[n] = world.to_bytes(image), world.to_bytes(world.render(world.place(other, rng)))
            else:
                better = rng.uniform(0, 1 - NOTICEABLE)
                worse = rng.uniform(better + NOTICEABLE, 1)
                pairs[n] = world.to_bytes(corrupt(image, better, rng)), world.to_bytes(corrupt(image, worse, rng))
            renders += [(n, 0), (n, 1)]
            continue
        i = int(rng.integers(len(samples)))
        captions.append(sampled[i])
        if kind == "sample":
            pairs[n] = world.to_bytes(world.render(world.place(world.parse(sampled[i]), rng))), samples[i]
            renders.append((n, 0))
        else:
            j = i
            while sampled[j] == sampled[i]:
                j = int(rng.integers(len(samples)))
            pairs[n] = samples[i], samples[j]
    chosen = tuple(np.array([place for place in renders if rng.random() < 0.5]).T)
    pairs[chosen] = through_vae(autoencoder, pairs[chosen])
    slips = rng.random(count) < SLIPS
    pairs[slips] = pairs[slips, ::-1]
    return {"captions": captions, "kinds": [KINDS[k] for k in kinds], "pairs": pairs, "slips": slips}


def to_unit(images: np.ndarray) -> torch.Tensor:
    """uint8 (N, H, W, 3) to float (N, 3, H, W) in [0, 1]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


def caption_loss(network, images, tokens, padding, wrong, wrong_padding) -> torch.Tensor:
    """Which caption belongs to which image; the two ``wrong`` captions of each, (B, 2, L), differ in one fact."""
    if isinstance(network, DualEncoder):
        own = torch.arange(len(images), device=images.device)
        texts = torch.cat([tokens, *wrong.unbind(1)]), torch.cat([padding, *wrong_padding.unbind(1)])
        logits = network.logits(images, *texts)
        against_edits = sum(F.softplus(logits[own, own + k * len(own)] - logits[own, own]).mean() for k in (1, 2))
        to_image = F.cross_entropy(logits[:, : len(own)].T, own)
        return F.cross_entropy(logits, own) + to_image + against_edits
    features = network.embed_images(images)
    right = network.read(features, tokens, padding)
    edited = network.read(features, wrong[:, 0], wrong_padding[:, 0])
    other = network.read(features, tokens.roll(1, 0), padding.roll(1, 0))
    return F.softplus(-right).mean() + (F.softplus(edited).mean() + F.softplus(other).mean()) / 2


def preference_loss(network, pair, tokens, padding) -> torch.Tensor:
    """Bradley-Terry: -log sigmoid(score of the chosen image - score of the other)."""
    scale = network.log_scale.exp() if isinstance(network, DualEncoder) else 1.0
    images = pair.flatten(0, 1)
    scores = scale * network(images, tokens.repeat_interleave(2, 0), padding.repeat_interleave(2, 0))
    return F.softplus(scores[1::2] - scores[::2]).mean()


@torch.no_grad()
def decoded(executor: Executor, latents: torch.Tensor) -> np.ndarray:
    """Latents (N, C, h, w) as uint8 images (N, H, W, 3)."""
    device = executor.negative_embeds.device
    parts = [executor.decode(part.to(device)).cpu() for part in latents.split(128)]
    return (torch.cat(parts) * 255).round().byte().permute(0, 2, 3, 1).numpy()


@torch.no_grad()
def pair_scores(network, tokenizer, captions: list[str], pairs: np.ndarray) -> torch.Tensor:
    """Scores (2, N) of the first and of the second image of each pair, uint8 (N, 2, H, W, 3)."""
    device = next(network.parameters()).device
    tokens, padding = (part.to(device) for part in tokenize(tokenizer, captions))
    return torch.stack([network(to_unit(pairs[:, k]).to(device), tokens, padding) for k in (0, 1)])


def agreement(network, tokenizer, judged: dict) -> dict[str, float]:
    """Share of pairs in which the reward prefers what the annotator chose: all, and by kind."""
    captions, pairs, kinds = judged["captions"], judged["pairs"], np.array(judged["kinds"])
    parts = [slice(start, start + 256) for start in range(0, len(captions), 256)]
    first, second = torch.cat([pair_scores(network, tokenizer, captions[p], pairs[p]) for p in parts], 1).cpu().numpy()
    right = first > second
    shares = {"agreement": right.mean(), "agreement_without_slips": (right != judged["slips"]).mean()}
    shares |= {f"agreement_{kind}": right[kinds == kind].mean() for kind in KINDS}
    return {name: float(value) for name, value in shares.items()}


def train(name, tokenizer, renders, judged, iterations, batch, rate, device) -> torch.nn.Module:
    """Two phases in one schedule: captions alone for the first 40%, then captions and preferences."""
    seed = SEEDS[name]
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    images, captions = renders
    tokens, padding = tokenize(tokenizer, captions)
    specs = [world.parse(caption) for caption in captions]
    edits = [tokenize(tokenizer, [world.edit(spec, rng).caption() for spec in specs]) for _ in range(2)]
    wrong, wrong_padding = (torch.stack(parts, 1) for parts in zip(*edits, strict=True))  # (N, 2, L)
    pair_tokens, pair_padding = tokenize(tokenizer, judged["captions"])
    pairs = judged["pairs"]

    def blurred(x: torch.Tensor) -> torch.Tensor:
        """A little noise: a reward that is smooth around images has gradients worth following."""
        strength = 0.06 * torch.rand((len(x), 1, 1, 1), generator=generator)
        return (x + strength * torch.randn(x.shape, generator=generator)).to(device)

    network = build(name, tokenizer).to(device)
    training = Training(network.parameters(), rate, iterations, weight_decay=2e-2)
    for step in track(range(iterations), description=name):
        i = torch.randint(len(images), (batch,), generator=generator)
        text = (part[i].to(device) for part in (tokens, padding, wrong, wrong_padding))
        loss = caption_loss(network, blurred(to_unit(images[i.numpy()])), *text)
        if step >= 0.4 * iterations:
            i = torch.randint(len(pairs), (3 * batch // 4,), generator=generator)
            pair = to_unit(pairs[i.numpy()].reshape(-1, 32, 32, 3))
            pair = blurred(pair).view(-1, 2, *pair.shape[1:])
            text = (part[i].to(device) for part in (pair_tokens, pair_padding))
            loss = 0.3 * loss + preference_loss(network, pair, *text)
        training.step(loss)
        if (step + 1) % 250 == 0:
            print(f"{name} step {step + 1}  loss {training.last_loss(250):.4f}", flush=True)
    return network.eval()


@command
def main(
    only: Annotated[str, typer.Option(help="One of hps, pickscore, imagereward; all by default.")] = "",
    iterations: Annotated[int, typer.Option(help="Optimiser steps of each; 0: the reward's own number.")] = 0,
    images: Annotated[int, typer.Option(help="Training renders.")] = 40000,
    pairs: Annotated[int, typer.Option(help="Training pairs of each; 0: the reward's own number.")] = 0,
    batch: Batch = 64,
    rate: Rate = 1.5e-3,
    prompts: Annotated[int, typer.Option(help="Base samples, ends of the trajectories of stage `shortcut`.")] = 4096,
    guidance: Guidance = 7.5,
    device: Device = "cpu",
) -> None:
    """Train the rewards and write them."""
    if only and only not in NAMES:
        raise unknown("reward", only, NAMES)
    clock = card.Stopwatch()
    pipeline = StableDiffusionPipeline.from_pretrained(card.PIPELINE).to(device)
    executor = shortcut.frozen_executor(pipeline, None, guidance, None)
    sampled = {"train": world.captions("train", prompts), "test": world.captions("test", 512)}
    samples = {}
    for split, captions in sampled.items():
        states, _ = shortcut.stored_trajectories(executor, shortcut.embed(pipeline, captions), seed=0)
        samples[split] = decoded(executor, states[:, -1])
    pixels, captions = world.arrays("train", images)
    half = np.random.default_rng(0).random(images) < 0.5
    autoencoder = pipeline.vae.cpu()
    pixels[half] = through_vae(autoencoder, pixels[half])
    shared = clock()
    print(f"data in {shared:.0f} s", flush=True)
    for name in [only] if only else NAMES:
        clock = card.Stopwatch()
        steps, counts = iterations or ITERATIONS[name], {"train": pairs or PAIRS[name], "test": 2000}
        judged = {s: preferences(s, n, samples[s], sampled[s], autoencoder, SEEDS[name]) for s, n in counts.items()}
        network = train(name, pipeline.tokenizer, (pixels, captions), judged["train"], steps, batch, rate, device)
        if name == "imagereward":
            captioned = judged["train"]["captions"][:2000], judged["train"]["pairs"][:2000]
            scores = pair_scores(network, pipeline.tokenizer, *captioned)
            network.mean.copy_(scores.mean())
            network.std.copy_(scores.std())
        metrics = agreement(network, pipeline.tokenizer, judged["test"])
        save(name, network.cpu(), card.REWARDS)
        files, settings = [card.REWARDS / f"{name}.safetensors"], {"iterations": steps, "images": images}
        settings |= {"pairs": counts["train"], "batch": batch, "rate": rate, "seed": SEEDS[name]}
        card.write(f"reward-{name}", files, shared + clock(), device, network, metrics, **settings)
        print(name, json.dumps(metrics, indent=2), f"{clock():.0f} s", flush=True)


if __name__ == "__main__":
    main()
