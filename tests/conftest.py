"""Tiny models of random weights: they prove arithmetic, not quality."""

from __future__ import annotations

import functools
import importlib.util
import os
from pathlib import Path

import benchmark  # noqa: F401  before diffusers, see benchmark/torchvision_quirk.py

# isort: split
import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
from typer.testing import CliRunner, Result

from benchmark.diffusion import Executor, Policy
from benchmark.suites.mini import card
from benchmark.suites.mini.base import build_scheduler
from benchmark.training import cell

ROOT = Path(__file__).parents[1]
PROMPTS = ["a red circle", "a small blue square above a green ring"]


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_runtest_makereport(item, call):
    """In continuous integration nothing is skipped: a test that would be, fails."""
    report = (yield).get_result()
    if report.skipped and not hasattr(report, "wasxfail") and "CI" in os.environ:
        report.outcome, report.longrepr = "failed", f"skipped, and CI is set: {report.longrepr[-1]}"


def pytest_collection_modifyitems(config, items):
    """Tests marked ``full_size(NAME)`` are for those who set NAME in the environment."""
    marks = {item: item.get_closest_marker("full_size") for item in items}
    left = [item for item, mark in marks.items() if mark and mark.args[0] not in os.environ]
    config.hook.pytest_deselected(items=left)
    items[:] = [item for item in items if item not in left]


def needs(*packages: str) -> None:
    """Skips the test where a package is not installed."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: pip install -e '.[rewards]'")


def call(command, *arguments) -> Result:
    """A command of the benchmark (``run.main``), in this process."""
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def refused(result: Result, words: str = "") -> bool:
    """Whether a command ended as wrong input has to: exit code 2, one line that has these words."""
    line = result.stderr.strip()
    assert (result.exit_code, len(line.splitlines())) == (2, 1), result.output
    assert words in line, line
    return True


@pytest.fixture(scope="session")
def base(tmp_path_factory) -> Path:
    """Where runs of a session keep evaluations of the base model, each made once; few images tell the diversity."""
    session = tmp_path_factory.getbasetemp()
    folder = (session.parent if "PYTEST_XDIST_WORKER" in os.environ else session) / "base"
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cell, "VARIED", 2)
        patch.setattr(cell, "VARIED_ON_CURVE", 2)
        yield folder


def share(base: Path, out: Path) -> Path:
    """Let the runs below ``out`` find their evaluations of the embedded base model in ``base``."""
    (out / "artifacts/mini").mkdir(parents=True)
    (out / "artifacts/mini/base").symlink_to(base)
    return out


@pytest.fixture
def out(base, tmp_path) -> Path:
    """A folder for runs that share evaluations of the base model with others."""
    return share(base, tmp_path / "runs")


def predict_noise(policy: Policy, model: str, latents, t, embeds, slots=()) -> torch.Tensor:
    """Noise prediction (B, C, h, w) of one denoiser call, without guidance, with ``slots`` on."""
    return policy.call(model, latents, t, embeds, policy.weights(slots, model))


def tiny_unet(seed: int = 0) -> UNet2DConditionModel:
    torch.manual_seed(seed)
    return UNet2DConditionModel(
        sample_size=4, in_channels=4, out_channels=4, block_out_channels=(16, 32), layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16, attention_head_dim=2, norm_num_groups=8,
    ).eval()  # fmt: skip


@functools.cache
def suite_tokenizer() -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(card.PIPELINE / "tokenizer")


@pytest.fixture
def pipeline() -> StableDiffusionPipeline:
    """A Stable-Diffusion-shaped pipeline, 16x16 pixels, with the suite's tokenizer."""
    tokenizer = suite_tokenizer()
    torch.manual_seed(1)
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1,
            num_attention_heads=2, max_position_embeddings=tokenizer.model_max_length,
        )
    ).eval()  # fmt: skip
    vae = AutoencoderKL(
        sample_size=16, block_out_channels=(8, 8, 8), down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3, latent_channels=4, norm_num_groups=4,
    ).eval()  # fmt: skip
    made = StableDiffusionPipeline(
        vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=tiny_unet(), scheduler=build_scheduler(),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    made.set_progress_bar_config(disable=True)
    return made


def embed(pipeline: StableDiffusionPipeline, prompts: list[str]) -> torch.Tensor:
    tokens = pipeline.tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt").input_ids
    with torch.no_grad():
        return pipeline.text_encoder(tokens).last_hidden_state.to(pipeline.unet.dtype)


def build_executor(pipeline, slots: int = 1, shortcut=None, **options) -> Executor:
    policy = Policy(pipeline.unet, shortcut, slots, rank=2)
    return Executor(policy, pipeline.vae, pipeline.scheduler, embed(pipeline, [""]), **options)


def few_steps(method: str) -> int:
    """The length of a chain that shows as much as one of 50 steps, for methods that are defined on any."""
    return 50 if method in ("shortft", "drtune") else 8


def randomise(policy: Policy, scale: float = 0.1, seed: int = 3) -> None:
    """Give every slot an update that is not zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    policy.refresh()


def noise(count: int = 2, dtype=torch.float32) -> torch.Tensor:
    return torch.randn((count, 4, 4, 4), generator=torch.Generator().manual_seed(0)).to(dtype)


def brightness(images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
    """A differentiable reward for tests."""
    return (images[:, 0] * torch.linspace(0, 1, images.shape[-1], dtype=images.dtype)).mean(dim=(1, 2))
