"""The suite of the papers: Stable Diffusion 1.5, Hyper-SD's or TCD's shortcut, published rewards and prompts.

Nothing here downloads. Files lie below the weights folder (``weights``, or ``$REWARD_WEIGHTS``), the base model also
anywhere else or in the hub's cache; what is missing is one line with the command that fetches it.
"""

import contextlib
import hashlib
import json
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from diffusers import DDIMScheduler, StableDiffusionPipeline
from pydantic import Field

from ...rewards import Reward, RewardError
from ...rewards.published import find as find_reward
from ...rewards.published.weights import WeightFile, require, sampled_digest, weights_folder
from ..interface import ENDS, NO_SAFETY_CHECKER, Suite, SuiteError, SuiteOptions
from . import prompts

HUB = "stable-diffusion-v1-5/stable-diffusion-v1-5"
RANDOM = "random-weights.json"  # in a folder whose weights were drawn, not trained
PARTS = {
    "unet": ("config.json", "diffusion_pytorch_model.safetensors"),
    "vae": ("config.json", "diffusion_pytorch_model.safetensors"),
    "text_encoder": ("config.json", "model.safetensors"),
    "tokenizer": ("tokenizer_config.json", "vocab.json", "merges.txt"),
    "scheduler": ("scheduler_config.json",),
}
SIZES = {"unet": "3.4 GB", "vae": "0.3 GB", "text_encoder": "0.5 GB"}
FEW_STEP = {
    "hyper-sd": WeightFile("hyper-sd/Hyper-SD15-4steps-lora.safetensors", "ByteDance/Hyper-SD", "0.3 GB"),
    "tcd": WeightFile("tcd-sd15/pytorch_lora_weights.safetensors", "h1t/TCD-SD15-LoRA", "0.1 GB"),
}


def _published(name: str) -> tuple[type[Reward], dict]:
    """The class of a learned reward, and what picks its checkpoint."""
    return (find_reward("hps"), {"version": "v2.0"}) if name == "hps20" else (find_reward(name), {})


def model_files(source: str = HUB) -> list[WeightFile]:
    """The base model's files below its own folder; safety checker and the rest of the repository are not used."""
    files = [WeightFile("model_index.json", source, "")]
    for part, names in PARTS.items():
        for name in names:
            size = SIZES[part] if name.endswith(".safetensors") else ""
            files.append(WeightFile(f"{part}/{name}", source, size, inside=part))
    return files


class SD15Options(SuiteOptions):
    """Where the models come from."""

    model: str = Field(HUB, description="the base model: a diffusers folder, or a hub name that is in the cache")
    few_step: str = Field(
        "hyper-sd",
        description="the shortcut: hyper-sd (the paper's; trained with human feedback), tcd (without), or a LoRA file",
    )
    prompt_set: Literal["hpdv2", "animals"] = Field("hpdv2", description="what is drawn: HPDv2's prompts, or animals")
    weights: str | None = Field(None, description="folder of all other files; none: $REWARD_WEIGHTS, or weights")


class StableDiffusion15(Suite):
    """Stable Diffusion 1.5 as in the ShortFT paper: 50 DDIM steps, guidance 7.5, a shortcut without guidance."""

    name = "sd15"
    title = "sd15, Stable Diffusion 1.5 with the published rewards (weights are not shipped; needs a GPU)"
    Options = SD15Options
    guidance_scale = 7.5
    shortcut_guidance_scale = None
    standard_budget = "1000PFLOP"  # about what a training of hours on one large GPU spends
    pipeline_source = HUB
    lora_licence = "CreativeML Open RAIL-M, as its base model."
    lora = "beside"
    chunk = 8
    learned_rewards = {
        "hps": "HPSv2 (v2.1): CLIP ViT-H-14 trained on human choices",
        "hps20": "HPSv2 (v2.0), its first checkpoint: the scale of the published tables, which show it x100",
        "imagereward": "ImageReward: BLIP trained on experts' rankings",
        "pickscore": "PickScore: CLIP ViT-H-14 trained on users' choices",
        "aesthetic": "the LAION aesthetic predictor on CLIP ViT-L/14",
        "clipscore": "the cosine of image and prompt under CLIP ViT-L/14",
    }
    combinations = {"combined": "10*pickscore + 2*hps + 0.05*aesthetic"}

    def defaults(self, device: str) -> dict:
        return {"rank": 128, "precision": "bfloat16" if device.startswith("cuda") else "float32"}

    # -- where things are

    @cached_property
    def weights(self) -> Path:
        return Path(self.options.weights) if self.options.weights else weights_folder()

    @cached_property
    def model(self) -> Path:
        """The base model's folder."""
        given = Path(self.options.model)
        if given.is_dir():
            return given
        if self.options.model != HUB and (given.is_absolute() or self.options.model.startswith(".")):
            raise SuiteError(f"suite sd15: model {given} is no folder; expected a diffusers folder or a hub name")
        ours = self.weights / (given.name if self.options.model == HUB else self.options.model.replace("/", "--"))
        if ours.is_dir():
            return ours
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

        try:
            return Path(snapshot_download(self.options.model, local_files_only=True))
        except HFValidationError:
            raise SuiteError(f"suite sd15: model {given} is no folder and no hub name") from None
        except LocalEntryNotFoundError:
            return ours  # where the files are missing, and will be looked for

    @property
    def few_step(self) -> Path:
        """The shortcut's LoRA file."""
        known = FEW_STEP.get(self.options.few_step)
        return known.at(self.weights) if known else Path(self.options.few_step)

    def _require_reward(self, name: str) -> None:
        """Raise RewardError if a reward's packages or files are not there."""
        for package in _published(name)[0].packages if name in self.learned_rewards else ():
            if find_spec(package) is None:
                raise RewardError(f"{name}: needs the package {package}: pip install -e '.[rewards]'")
        require(name, self._reward_files(name), self.weights)

    def _reward_files(self, name: str) -> list[WeightFile]:
        """The files of a reward; none of one that needs no model."""
        if name not in self.learned_rewards:
            return []
        published, options = _published(name)
        return published.files(**options)

    # -- what a suite has to say

    def check(self, reward: str | None = None, shortcut: bool = True) -> None:
        own = Path(self.options.model).is_dir()  # no command can make a folder of somebody's own whole
        require("suite sd15", model_files("" if own else self.options.model), self.model)
        if shortcut and self.options.few_step in FEW_STEP:
            require("suite sd15", [FEW_STEP[self.options.few_step]], self.weights)
        elif shortcut and not self.few_step.is_file():
            names = ", ".join(FEW_STEP)
            raise SuiteError(f"suite sd15: few_step {self.few_step} is no file; expected {names} or a LoRA file")
        if self.options.prompt_set == "hpdv2":
            require("suite sd15", prompts.HPDV2, self.weights)
        for name in self.reward_weights(reward) if reward else ():
            self._require_reward(name)

    @property
    def random_weights(self) -> bool:
        return any((folder / RANDOM).exists() for folder in (self.model, self.weights))

    def fingerprint(self, shortcut: bool) -> str:
        files = [file.at(self.model) for file in model_files()] + ([self.few_step] if shortcut else [])
        for name in self.scored_rewards():
            files += [file.at(self.weights) for file in self._reward_files(name)]
        digests = [sampled_digest(file) for file in files]
        if self.options.prompt_set == "hpdv2":
            digests.append(prompts.digest(self.weights))
        return hashlib.sha256(json.dumps([*digests, self.scored_rewards()]).encode()).hexdigest()[:16]

    def scored_rewards(self) -> list[str]:
        """The rewards whose packages and files are there, and those that need none."""
        there = []
        for name in self.reward_names():
            with contextlib.suppress(RewardError):
                self._require_reward(name)
                there.append(name)
        return there

    def load_pipeline(self) -> StableDiffusionPipeline:
        options = {"image_encoder": None, "use_safetensors": True, "local_files_only": True} | NO_SAFETY_CHECKER
        pipeline = StableDiffusionPipeline.from_pretrained(self.model, **options)
        pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, **ENDS)  # the repository names PNDM
        return pipeline

    def load_learned_reward(self, name: str) -> Reward:
        published, options = _published(name)
        return published(self.weights, **options)

    def prompts(self, split: str, count: int) -> list[str]:
        animals = self.options.prompt_set == "animals"
        return prompts.take(prompts.animals(split) if animals else prompts.hpdv2(split, self.weights), count, split)
