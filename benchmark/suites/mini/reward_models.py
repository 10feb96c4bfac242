"""The suite's three learned rewards: small networks after HPS, PickScore and ImageReward.

They differ in architecture, seed and training pairs, so that one can be held out while another is trained on.

    hps          convolutional image encoder and text transformer; score is the cosine of their embeddings
    pickscore    vision transformer on 4x4 patches and text transformer; score is the cosine of their embeddings
    imagereward  text tokens attend to a convolutional feature map (fusion); score is one number, standardised

All activations are smooth: a reward is only useful here if its gradient to the image is.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import CLIPTokenizer

from ...rewards import Reward

EMBEDDING = 128
LAYER = {"dropout": 0.0, "activation": "gelu", "batch_first": True, "norm_first": True}  # of a transformer


def _conv(inside: int, outside: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inside, outside, 3, stride, 1), nn.GroupNorm(8, outside), nn.SiLU())


class _Residual(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.layers = nn.Sequential(_conv(channels, channels), nn.Conv2d(channels, channels, 3, 1, 1))

    def forward(self, x):
        return x + self.layers(x)


def _transformer(width: int, layers: int) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(width, 4, 2 * width, **LAYER)
    return nn.TransformerEncoder(layer, layers, norm=nn.LayerNorm(width), enable_nested_tensor=False)


class TextEncoder(nn.Module):
    """Tokens (B, L) to states (B, L, width)."""

    def __init__(self, vocabulary: int, length: int, width: int, layers: int):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.position = nn.Parameter(0.02 * torch.randn(length, width))
        self.layers = _transformer(width, layers)

    def forward(self, tokens, padding):
        return self.layers(self.embedding(tokens) + self.position, src_key_padding_mask=padding)


def _mean(states, padding):
    """The mean of the states that are no padding."""
    keep = (~padding).to(states.dtype)[..., None]
    return (states * keep).sum(1) / keep.sum(1)


class ConvEncoder(nn.Module):
    """Images (B, 3, 32, 32) to embeddings (B, 128); positions are kept until the last layer."""

    def __init__(self):
        super().__init__()
        body = [_conv(3, 24), _conv(24, 48, 2), _conv(48, 48), _conv(48, 96, 2), _Residual(96), _conv(96, 128, 2)]
        self.layers = nn.Sequential(*body, nn.Flatten(), nn.Linear(128 * 16, EMBEDDING))

    def forward(self, images):
        return self.layers(images * 2 - 1)


class PatchEncoder(nn.Module):
    """Images (B, 3, 32, 32) to embeddings (B, 128) by a vision transformer on 4x4 patches."""

    def __init__(self, width: int = 96, layers: int = 3):
        super().__init__()
        self.patches = nn.Sequential(_conv(3, 24), nn.Conv2d(24, width, 4, 4))
        self.position = nn.Parameter(0.02 * torch.randn(64, width))
        self.layers = _transformer(width, layers)
        self.out = nn.Linear(width, EMBEDDING)

    def forward(self, images):
        tokens = self.patches(images * 2 - 1).flatten(2).transpose(1, 2)
        return self.out(self.layers(tokens + self.position).mean(1))


class DualEncoder(nn.Module):
    """Cosine of an image embedding and a text embedding; ``scale`` turns cosines into logits in training."""

    def __init__(self, image_encoder: nn.Module, vocabulary: int, length: int, width: int = 96):
        super().__init__()
        self.image_encoder = image_encoder
        self.text_encoder = TextEncoder(vocabulary, length, width, 2)
        self.projection = nn.Linear(width, EMBEDDING)
        self.log_scale = nn.Parameter(torch.tensor(2.5))

    def embed_images(self, images):
        return F.normalize(self.image_encoder(images), dim=-1)

    def embed_texts(self, tokens, padding):
        return F.normalize(self.projection(_mean(self.text_encoder(tokens, padding), padding)), dim=-1)

    def forward(self, images, tokens, padding):
        return (self.embed_images(images) * self.embed_texts(tokens, padding)).sum(-1)

    def logits(self, images, tokens, padding):
        """All images against all texts, (images, texts)."""
        return self.log_scale.exp() * self.embed_images(images) @ self.embed_texts(tokens, padding).T


class Fusion(nn.Module):
    """Text tokens attend to the image's feature map, layer by layer; a linear head reads their mean."""

    def __init__(self, vocabulary: int, length: int, width: int = 96, layers: int = 2):
        super().__init__()
        self.features = nn.Sequential(_conv(3, 32), _conv(32, 64, 2), _conv(64, width, 2), _Residual(width))
        self.position = nn.Parameter(0.02 * torch.randn(64, width))
        self.text_encoder = TextEncoder(vocabulary, length, width, 1)
        layer = nn.TransformerDecoderLayer(width, 4, 2 * width, **LAYER)
        self.layers = nn.TransformerDecoder(layer, layers, norm=nn.LayerNorm(width))
        self.head = nn.Linear(width, 1)
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("std", torch.ones(()))

    def forward(self, images, tokens, padding):
        return self.read(self.embed_images(images), tokens, padding)

    def embed_images(self, images):
        return self.features(images * 2 - 1).flatten(2).transpose(1, 2) + self.position

    def read(self, features, tokens, padding):
        states = self.text_encoder(tokens, padding)
        states = self.layers(states, features, tgt_key_padding_mask=padding)
        return (self.head(_mean(states, padding))[:, 0] - self.mean) / self.std


def build(name: str, tokenizer: CLIPTokenizer) -> nn.Module:
    """The untrained network of a reward."""
    size = (len(tokenizer), tokenizer.model_max_length)
    if name == "hps":
        return DualEncoder(ConvEncoder(), *size)
    if name == "pickscore":
        return DualEncoder(PatchEncoder(), *size)
    if name == "imagereward":
        return Fusion(*size)
    raise ValueError(f"unknown reward model {name!r}")


NAMES = ("hps", "pickscore", "imagereward")
SCALES = {"hps": "cosine, -1 to 1", "pickscore": "cosine, -1 to 1", "imagereward": "standardised logit"}


def tokenize(tokenizer: CLIPTokenizer, prompts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens (B, L) and the mask (B, L) that is true on padding."""
    encoded = tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt")
    return encoded.input_ids, encoded.attention_mask == 0


class LearnedReward(Reward):
    """One of the suite's reward models. Images of another size are resized to 32x32 pixels, antialiased."""

    def __init__(self, name: str, network: nn.Module, tokenizer: CLIPTokenizer, version: str):
        self.name, self.version, self.scale = name, version, SCALES[name]
        self.network = network.eval().requires_grad_(False)
        self.tokenizer = tokenizer

    def to(self, device) -> LearnedReward:
        self.network.to(device)
        return self

    def __call__(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        if images.shape[-2:] != (32, 32):
            images = F.interpolate(images, (32, 32), mode="bicubic", antialias=True, align_corners=False)
        tokens, padding = (part.to(images.device) for part in tokenize(self.tokenizer, prompts))
        return self.network(images, tokens, padding)


def save(name: str, network: nn.Module, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(network.state_dict(), folder / f"{name}.safetensors", metadata={"model": json.dumps(name)})


def load(name: str, tokenizer: CLIPTokenizer, folder: Path, version: str) -> LearnedReward:
    network = build(name, tokenizer)
    network.load_state_dict(load_file(folder / f"{name}.safetensors"))
    return LearnedReward(name, network, tokenizer, version)
