"""Measure the suite against its quality bars.

    python -m benchmark.suites.mini.check            256 samples per number, about two minutes on two cores

The eye labels (``eye_labels.csv`` of ``eye_samples.png``) were made by looking at 100 samples of the base model.
"""

import dataclasses
import time

import numpy as np
import pandas as pd
import torch
import typer
from PIL import Image

from ...cli import command, show
from . import card, oracle, rewards, shortcut, vae, world
from .suite import Mini

EYE_LABELS, EYE_SAMPLES = card.HERE / "eye_labels.csv", card.HERE / "eye_samples.png"


@dataclasses.dataclass(frozen=True)
class Bar:
    """A number and the range it has to lie in."""

    name: str
    value: float
    low: float = -np.inf
    high: float = np.inf

    @property
    def met(self) -> bool:
        return bool(self.low <= self.value <= self.high)

    def wanted(self) -> str:
        low, high = np.isfinite(self.low), np.isfinite(self.high)
        if low and high:
            return f"{self.low:g} to {self.high:g}"
        return f">= {self.low:g}" if low else f"<= {self.high:g}" if high else ""


def eye_samples() -> tuple[np.ndarray, list[dict]]:
    """The labelled samples (100, 32, 32, 3) in [0, 1], and their rows: caption, first, second (1 right, 0 wrong)."""
    sheet = np.asarray(Image.open(EYE_SAMPLES).convert("RGB"), dtype=np.float32) / 255
    rows = pd.read_csv(EYE_LABELS, dtype=str, keep_default_na=False).to_dict("records")
    tiles = sheet.reshape(sheet.shape[0] // 32, 32, -1, 32, 3).swapaxes(1, 2).reshape(-1, 32, 32, 3)
    return tiles[: len(rows)], rows


def oracle_bars(count: int) -> list[Bar]:
    """The oracle on renders, on renders of changed captions, on other images, and against the eye."""
    rng = np.random.default_rng(0)
    scenes = [world.draw("test", index) for index in range(count)]
    captions = [scene.spec.caption() for scene in scenes]
    images = np.stack([world.render(scene) for scene in scenes])
    true = oracle.score(images, captions)
    edits = []
    for scene in scenes:
        other = scene.spec
        while (other.texture, other.background) != (scene.spec.texture, scene.spec.background) or other == scene.spec:
            other = world.edit(scene.spec, rng)
        edits.append(world.render(world.place(other, rng)))
    changed = oracle.score(np.stack(edits), captions)
    bars = [
        Bar("oracle on true renders", true.mean(), low=0.99),
        Bar("oracle on renders with one attribute changed", changed.mean(), high=0.55),
        Bar("share of those ranked under the true render", (changed < true).mean(), low=0.98),
        Bar("oracle on images of other captions", oracle.score(np.roll(images, 1, 0), captions).mean(), high=0.2),
    ]
    samples, rows = eye_samples()
    agree = []
    for image, row in zip(samples, rows, strict=True):
        labels = [bool(int(row[name])) for name in ("first", "second") if row[name]]
        agree += [a == b for a, b in zip(oracle.read(image, row["caption"]).objects, labels, strict=True)]
    return [*bars, Bar(f"agreement with the eye on {len(agree)} objects", np.mean(agree), low=0.9)]


@torch.no_grad()
def model_bars(suite: Mini, count: int) -> list[Bar]:
    """VAE, base model and shortcut on held-out prompts."""
    pixels, captions = world.arrays("test", max(count, 256))  # renders are cheap, and the bar is near
    images = vae.to_tensor(pixels)
    restored = vae.reconstruct(suite.pipeline.vae, images)
    after_vae = suite.oracle(restored.clamp(-1, 1) / 2 + 0.5, captions)
    scales = suite.guidance_scale, suite.shortcut_guidance_scale
    executor = shortcut.frozen_executor(suite.pipeline, suite.shortcut, *scales)
    prompts = world.captions("test", count)
    numbers = shortcut.report(executor, prompts, suite.embed(prompts))
    latents = torch.randn((16, 4, 8, 8), generator=torch.Generator().manual_seed(0))
    start = time.perf_counter()
    suite.pipeline(prompts[:16], num_inference_steps=50, guidance_scale=suite.guidance_scale, latents=latents)
    seconds = time.perf_counter() - start
    size = sum(f.stat().st_size for f in card.PIPELINE.rglob("*") if f.is_file()) / 1e6
    bars = [
        Bar("size of the pipeline folder, MB", size, high=15),
        Bar("VAE, dB on held-out renders", vae.psnr(restored, images), low=30),
        Bar("oracle on renders after the VAE", after_vae.mean(), low=0.95),
        Bar("oracle on 50-step samples", numbers["oracle_chain"], low=0.4, high=0.8),
        Bar(f"seconds for 16 samples, 50 steps, {torch.get_num_threads()} threads", seconds, high=1.5),
    ]
    for t, s in shortcut.JUMPS:
        error, naive = numbers[f"shortcut_{t}_{s}"], numbers[f"naive_{t}_{s}"]
        name = f"jump {t}->{s}: shortcut's error ({error:.3f}) / naive ({naive:.3f})"
        bars.append(Bar(name, error / naive, high=0.5))
    chain, few, naive = (numbers[f"oracle_{which}"] for which in ("chain", "shortcut", "naive"))
    bars.append(Bar(f"four shortcut calls: oracle lost (has {few:.3f})", abs(chain - few), high=0.03))
    return [*bars, Bar(f"four naive jumps: oracle lost (has {naive:.3f})", chain - naive, low=0.1)]


def reward_bars(suite: Mini, count: int) -> list[Bar]:
    """Agreement with the annotator, and whether gradients to the latents raise the score."""
    executor = shortcut.frozen_executor(suite.pipeline, None, suite.guidance_scale, None)
    prompts = world.captions("test", count)
    embeds = suite.embed(prompts)
    states = shortcut.trajectories(executor, embeds, torch.Generator().manual_seed(2))
    samples = rewards.decoded(executor, states[:, -1])
    bars = []
    for name in suite.learned_rewards:
        reward = suite.reward(name)
        judged = rewards.preferences("test", 2000, samples, prompts, suite.pipeline.vae, seed=99)
        agreement = rewards.agreement(reward.network, suite.pipeline.tokenizer, judged)["agreement"]
        wanted = 0.9 if name == "hps" else -np.inf  # the others are held out from training: only reported
        bars.append(Bar(f"{name}: agreement with the annotator", agreement, low=wanted))
        latents = states[:32, -1].clone().requires_grad_()
        optimiser = torch.optim.Adam([latents], lr=0.02)
        scores = []
        for _ in range(11):
            score = reward(executor.decode(latents), prompts[:32])
            scores.append(score.detach())
            optimiser.zero_grad()
            (-score.sum()).backward()
            optimiser.step()
        raised = (scores[-1] > scores[0]).float().mean().item()
        bars.append(Bar(f"{name}: images whose score 10 steps on the latents raise", raised, low=0.9))
    return bars


@command
def main(count: int = typer.Option(256, help="Samples per number.")) -> int:
    """Measure every bar; exit code 1 if one is not met."""
    suite = Mini().load()
    bars = [*oracle_bars(count), *model_bars(suite, count), *reward_bars(suite, min(count, 128))]
    rows = [(bar.name, bar.value, bar.wanted(), "met" if bar.met else "[bold red]not met") for bar in bars]
    show("suite mini", pd.DataFrame(rows, columns=["number", "value", "bar", ""]), {"value": ".3f"})
    return int(not all(bar.met for bar in bars))


if __name__ == "__main__":
    main()
