"""The embedded suite: a small Stable-Diffusion-shaped model of drawn scenes, with everything it needs."""

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
    model, few_step = card.PIPELINE, card.SHORTCUT / "pytorch_lora_weights.safetensors"
    pipeline_source = "benchmark/suites/mini/pipeline"
    lora_licence = "Apache-2.0, like the rest of the repository."

    def _files(self) -> dict[str, tuple[str, str]]:
        """Every shipped file: path under the suite's folder -> (sha256, the command that makes it)."""
        files = {}
        for name in ("vae", "base", "shortcut", *(f"reward-{name}" for name in reward_models.NAMES)):
            try:
                content = card.read(name)
                files |= {file: (digest, content["command"]) for file, digest in content["sha256"].items()}
            except (OSError, ValueError, KeyError):
                problem = f"{card.CARDS / name}.json is missing or corrupt; restore it with git checkout"
                raise SuiteError(f"suite mini: {problem}") from None
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
        sources = {m.__name__: Path(m.__file__) for m in (oracle, reward_models, world)}  # of prompts and scores
        digests += [(name, hashlib.sha256(path.read_bytes()).hexdigest()) for name, path in sources.items()]
        return hashlib.sha256(json.dumps(digests).encode()).hexdigest()[:16]

    def prior_seconds(self, shortcut: bool, reward: str) -> dict[str, float]:
        cards = {"shortcut": "shortcut"} if shortcut else {}
        cards |= {name: f"reward-{name}" for name in self.reward_weights(reward) if name in self.learned_rewards}
        return {part: card.read(name)["seconds"] for part, name in cards.items()}

    def scored_rewards(self) -> list[str]:
        """All but the JPEG's size: at 32x32 pixels the file is mostly its header."""
        return [name for name in self.reward_names() if name != "jpeg"]

    def load_pipeline(self) -> StableDiffusionPipeline:
        return StableDiffusionPipeline.from_pretrained(card.PIPELINE, local_files_only=True)

    def load_learned_reward(self, name: str):
        digest = self._files()[f"rewards/{name}.safetensors"][0]
        return reward_models.load(name, self.pipeline.tokenizer, card.REWARDS, version=f"mini-{digest[:8]}")

    def prompts(self, split: str, count: int) -> list[str]:
        return world.captions(split, count)

    def oracle(self, images: torch.Tensor, prompts: list[str]) -> np.ndarray:
        return oracle.score(images.permute(0, 2, 3, 1).cpu().numpy(), prompts)
