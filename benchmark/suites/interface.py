"""What a suite offers to the rest of the benchmark."""

import abc
import copy
import json
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Literal, Self

import numpy as np
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging
from pydantic import BaseModel, ConfigDict
from transformers.utils import logging as transformers_logging

from ..errors import InputError
from ..rewards import PIXEL_REWARDS, Reward, canonical, combine, names_in

# What a pipeline of Stable Diffusion is made without, and how its DDIM chain ends.
NO_SAFETY_CHECKER = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
ENDS = {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}


class SuiteError(InputError):
    """A suite's files are missing or corrupt; the message names the file and says what to do."""


class SuiteOptions(BaseModel):
    """What ``--set`` can change of a suite: none. A suite with options has a class like this, with fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Suite(abc.ABC):
    """A base model, its shortcut, rewards, prompts and oracle. Cheap to make; ``load`` reads the weights.

    guidance_scale   classifier-free guidance of the base chain
    shortcut_guidance_scale  that of the few-step model; None if it runs without
    steps            length of the base chain
    learned_rewards  the suite's reward models: name -> what it is, in one line
    combinations     names for sums of rewards: name -> expression
    standard_budget  the budget of a run where none is given
    lora             how the policy's slots act, see ``Policy``
    chunk            images that are sampled, decoded and scored at a time in evaluations
    model            folder of the base model
    few_step         file of the few-step model's LoRA
    pipeline_source  folder or hub name of the base model; for the cards of LoRAs tuned from it, with their licence
    random_weights   whether some weights are random: such runs prove that things work, and are no results
    """

    name: str
    title: str
    guidance_scale: float = 7.5
    shortcut_guidance_scale: float | None = None
    steps: int = 50
    learned_rewards: dict[str, str] = {}
    combinations: dict[str, str] = {}
    standard_budget: str
    has_shortcut: bool = True
    lora: Literal["merged", "beside"] = "merged"
    chunk: int = 64
    random_weights: bool = False
    pipeline_source: str
    lora_licence: str
    model: Path
    few_step: Path
    device: torch.device
    Options: type[SuiteOptions] = SuiteOptions

    def __init__(self, **options):
        self.options = self.Options(**options)

    def defaults(self, device: str) -> dict:
        """Settings of a run that are other than usual where nothing is set."""
        return {}

    @abc.abstractmethod
    def check(self, reward: str | None = None, shortcut: bool = True) -> None:
        """Raise InputError if a file is missing or corrupt: of the base model, of a reward, of the few-step model."""

    @abc.abstractmethod
    def fingerprint(self, shortcut: bool) -> str:
        """A hash of weights, prompts and scoring: runs with different ones are different runs.

        shortcut: whether the few-step model takes part.
        """

    def prior_seconds(self, shortcut: bool, reward: str) -> dict[str, float]:
        """Seconds that making the shortcut (where used) and the reward's models took; empty where nobody knows."""
        return {}

    def scheduler_config(self) -> dict:
        """The configuration of the base pipeline's scheduler."""
        return json.loads((self.model / "scheduler/scheduler_config.json").read_text())

    @abc.abstractmethod
    def load_pipeline(self) -> StableDiffusionPipeline: ...

    @abc.abstractmethod
    def load_learned_reward(self, name: str) -> Reward: ...

    @abc.abstractmethod
    def prompts(self, split: str, count: int) -> list[str]:
        """Prompts of a split: train, validation, test, combinations (held out from all training)."""

    oracle: Callable[[torch.Tensor, list[str]], np.ndarray] | None = None  # images, prompts -> scores (B,) in [0, 1]

    def load(self, device: str = "cpu", precision: str = "float32", shortcut: bool = False) -> Self:
        """Check the files and read the base model; denoiser and decoder run in ``precision``.

        shortcut: the few-step model will be wanted. It is then made before the base model is rounded to ``precision``.
        """
        self.check(shortcut=shortcut)
        for library in (diffusers_logging, transformers_logging):  # their advice and bars on loading are not the user's
            library.disable_progress_bar()
            library.set_verbosity_error()
        self.device = torch.device(device)
        self.pipeline = self.load_pipeline().to(self.device)
        self.pipeline.set_progress_bar_config(disable=True)
        for part in (self.pipeline.vae, self.pipeline.text_encoder, self.pipeline.unet):
            part.requires_grad_(False).eval()
        self._embeddings: dict[str, torch.Tensor] = {}
        self._rewards: dict[str, Reward] = {}
        self.precision = getattr(torch, precision)
        if shortcut and self.precision != torch.float32:
            self.shortcut  # noqa: B018
        for part in (self.pipeline.unet, self.pipeline.vae):
            part.to(self.precision, memory_format=torch.channels_last)
        return self

    @cached_property
    def shortcut(self) -> UNet2DConditionModel:
        """The few-step model, its LoRA fused into a copy of the base model's UNet; frozen."""
        components = self.pipeline.components | {"unet": copy.deepcopy(self.pipeline.unet)}
        pipeline = type(self.pipeline)(**components, requires_safety_checker=False)
        pipeline.load_lora_weights(self.few_step.parent, weight_name=self.few_step.name, local_files_only=True)
        pipeline.fuse_lora()
        pipeline.unload_lora_weights()
        unet = pipeline.unet.to(self.device, self.precision, memory_format=torch.channels_last)
        return unet.requires_grad_(False).eval()

    @torch.no_grad()
    def embed(self, prompts: list[str]) -> torch.Tensor:
        """Prompt embeddings (B, L, D); each prompt is encoded once."""
        new = list(dict.fromkeys(p for p in prompts if p not in self._embeddings))
        for start in range(0, len(new), 256):
            part = new[start : start + 256]
            tokens = self.pipeline.tokenizer(part, padding="max_length", truncation=True, return_tensors="pt")
            states = self.pipeline.text_encoder(tokens.input_ids.to(self.device)).last_hidden_state
            self._embeddings.update(zip(part, states.to(self.precision), strict=True))
        return torch.stack([self._embeddings[p] for p in prompts])

    def reward_names(self) -> list[str]:
        """Every plain reward of the suite."""
        return [*self.learned_rewards, *PIXEL_REWARDS]

    def scored_rewards(self) -> list[str]:
        """The plain rewards that evaluations score: all, or those whose files are there."""
        return self.reward_names()

    def reward_weights(self, text: str) -> dict[str, float]:
        """The plain rewards in a name or an expression, and their weights. KeyError names a part that is unknown."""
        weights: dict[str, float] = {}
        for name, weight in names_in(text).items():
            if name not in self.reward_names() and name not in self.combinations:
                raise KeyError(name)
            for part, inner in names_in(self.combinations.get(name, name)).items():
                weights[part] = weights.get(part, 0.0) + weight * inner
        return weights

    def differentiable(self, text: str) -> bool:
        """Whether a reward has a gradient to the images. Every learned reward has one."""
        return all(PIXEL_REWARDS[name].differentiable for name in self.reward_weights(text) if name in PIXEL_REWARDS)

    def reward(self, text: str) -> Reward:
        """The reward of a name or an expression, on the suite's device."""
        return combine(canonical(self.reward_weights(text)), self._plain_reward)

    def _plain_reward(self, name: str) -> Reward:
        if name not in self._rewards:
            self._rewards[name] = PIXEL_REWARDS[name]() if name in PIXEL_REWARDS else self.load_learned_reward(name)
        return self._rewards[name].to(self.device)

    def park(self, text: str) -> None:
        """Keep only this reward's models on the device; others come back when they are asked for."""
        wanted = self.reward_weights(text)
        for name, reward in self._rewards.items():
            if name not in wanted:
                reward.to("cpu")
