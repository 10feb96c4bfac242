"""CLIP through transformers: what PickScore, the aesthetic predictor and the CLIP score have in common."""

import abc
from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import CLIPModel, CLIPTokenizer

from ..interface import Reward, RewardError
from .preprocess import cover_and_crop, normalise
from .weights import WeightFile, require


def clip_files(folder: str, model: str, tokenizer: str, size: str) -> list[WeightFile]:
    """The files of a CLIP in one folder: model and configuration of one hub repository, vocabulary of another."""
    parts = {"config.json": (model, ""), "model.safetensors": (model, size)}
    parts |= {"vocab.json": (tokenizer, ""), "merges.txt": (tokenizer, "")}
    return [WeightFile(f"{folder}/{name}", source, size) for name, (source, size) in parts.items()]


_OPENAI = "openai/clip-vit-large-patch14"
VIT_L_14 = clip_files("clip-vit-large-patch14", _OPENAI, _OPENAI, "1.7 GB")


class Clip:
    """A CLIP with the weights, configuration and vocabulary of one folder; any architecture that config.json names.

    Embeddings are normalised, (B, D). Images are preprocessed as CLIPProcessor does: shortest side resized, bicubic,
    centre cropped, normalised. It resizes images of 8 bits; the float tensor here is not rounded or clipped,
    which moves a cosine by less than 1e-3 in the tests (nothing at 224x224).
    """

    def __init__(self, reward: str, files: list[WeightFile], folder: Path):
        require(reward, files, folder)
        path = files[0].at(folder).parent
        options = {"local_files_only": True, "use_safetensors": True, "output_loading_info": True}
        self.network, report = CLIPModel.from_pretrained(path, **options)
        missing = sorted(report["missing_keys"]) + sorted(str(key) for key in report.get("mismatched_keys", ()))
        if missing:  # transformers would draw them at random
            raise RewardError(f"{reward}: {path / 'model.safetensors'} does not fit config.json: it lacks {missing[0]}")
        self.network.float().eval().requires_grad_(False)
        self.tokenizer = CLIPTokenizer.from_pretrained(path, local_files_only=True)

    def images(self, images: torch.Tensor) -> torch.Tensor:
        size = self.network.config.vision_config.image_size
        pixels = normalise(cover_and_crop(images, size)).to(self.network.dtype)
        states = self.network.vision_model(pixel_values=pixels).pooler_output
        return F.normalize(self.network.visual_projection(states), dim=-1)

    def texts(self, prompts: list[str]) -> torch.Tensor:
        length = self.network.config.text_config.max_position_embeddings
        tokens = self.tokenizer(prompts, padding=True, truncation=True, max_length=length, return_tensors="pt")
        states = self.network.text_model(**tokens.to(self.network.device)).pooler_output
        return F.normalize(self.network.text_projection(states), dim=-1)

    def cosines(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        return (self.images(images) * self.texts(prompts)).sum(-1)


class ClipReward(Reward):
    """A reward that is a CLIP's cosine of image and prompt; a subclass names its files."""

    def __init__(self, folder: Path):
        self.clip = Clip(self.name, self.files(), folder)
        self.networks = (self.clip.network,)

    @staticmethod
    @abc.abstractmethod
    def files() -> list[WeightFile]: ...

    def __call__(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        return self.clip.cosines(images, prompts)
