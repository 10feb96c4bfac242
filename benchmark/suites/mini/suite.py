"""The embedded suite: a small Stable-Diffusion-shaped model of drawn scenes, with everything it needs."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline

from ..interface import Suite, SuiteError
from . import card, oracle, reward_models, world


class Mini(Suite):
    """Drawn scenes of coloured shapes; base model, shortcut and rewards trained by this repository and shipped."""

    name = "mini"
    title = "mini, the embedded suite: a small diffusion model of drawn scenes (not Stable Diffusion)"
    learned_rewards = {
        "hps": "Human Preference Score's recipe in small: a dual encoder trained on a simulated annotator's choices",
        "pickscore": "the same recipe with a vision transformer, another seed and other pairs",
        "imagereward": "ImageReward's recipe in small: text tokens attend to image features",
    }
    shortcut_guidance_scale = 3.0  # as distilled: see shortcut.py
    combinations = {"combined": "10*pickscore + 2*hps"}
    standard_budget = "10TFLOP"
    pipeline_source = "benchmark/suites/mini/pipeline"
    lora_licence = "Apache-2.0, like the rest of the repository."

    def _files(self) -> dict[str, tuple[str, str]]:
        """Every shipped file: path under the suite's folder -> (sha256, the command that makes it)."""
        cards = ["vae", "base", "shortcut", *(f"reward-{name}" for name in reward_models.NAMES)]
        files = {}
        for name in cards:
            path = card.CARDS / f"{name}.json"
            try:
                content = json.loads(path.read_text())
                files |= {file: (digest, content["command"]) for file, digest in content["sha256"].items()}
            except (OSError, ValueError, KeyError):
                raise SuiteError(f"suite mini: {path} is missing or corrupt; restore it with git checkout") from None
        return files

    def check(self, reward: str | None = None, shortcut: bool = True) -> None:
        for file, (digest, command) in self._files().items():
            path = card.HERE / file
            remedy = f"restore it with git checkout, or make it again: {command}"
            if not path.exists():
                raise SuiteError(f"suite mini: {path} is missing; {remedy}")
            if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
                raise SuiteError(f"suite mini: {path} is corrupt (its checksum is not its card's); {remedy}")

    def fingerprint(self, shortcut: bool) -> str:
        files = self._files().items()
        digests = sorted((f, digest) for f, (digest, _) in files if shortcut or not f.startswith("shortcut/"))
        for module in (oracle, reward_models, world):  # what prompts and scores come from
            digests.append((module.__name__, hashlib.sha256(Path(module.__file__).read_bytes()).hexdigest()))
        return hashlib.sha256(json.dumps(digests).encode()).hexdigest()[:16]

    def prior_seconds(self, shortcut: bool, reward: str) -> dict[str, float]:
        cards = {"shortcut": "shortcut"} if shortcut else {}
        cards |= {name: f"reward-{name}" for name in self.reward_weights(reward) if name in self.learned_rewards}
        return {part: json.loads((card.CARDS / f"{name}.json").read_text())["seconds"] for part, name in cards.items()}

    def scored_rewards(self) -> list[str]:
        """All but the JPEG's size: at 32x32 pixels the file is mostly its header."""
        return [name for name in self.reward_names() if name != "jpeg"]

    def scheduler_config(self) -> dict:
        return json.loads((card.PIPELINE / "scheduler/scheduler_config.json").read_text())

    def load_pipeline(self) -> StableDiffusionPipeline:
        return StableDiffusionPipeline.from_pretrained(card.PIPELINE, local_files_only=True)

    def attach_shortcut(self, pipeline: StableDiffusionPipeline) -> None:
        pipeline.load_lora_weights(card.SHORTCUT, weight_name="pytorch_lora_weights.safetensors")
        pipeline.fuse_lora()
        pipeline.unload_lora_weights()

    def load_learned_reward(self, name: str):
        digest = self._files()[f"rewards/{name}.safetensors"][0]
        return reward_models.load(name, self.pipeline.tokenizer, card.REWARDS, version=f"mini-{digest[:8]}")

    def prompts(self, split: str, count: int) -> list[str]:
        return world.captions(split, count)

    def oracle(self, images: torch.Tensor, prompts: list[str]) -> np.ndarray:
        return oracle.score(images.permute(0, 2, 3, 1).cpu().numpy(), prompts)
