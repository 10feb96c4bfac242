"""The LAION aesthetic predictor v2 (Schuhmann, 2022, github.com/christophschuhmann/improved-aesthetic-predictor).

Linear layers, no activation between them, on the normalised image embedding of OpenAI's CLIP ViT-L/14; trained on
ratings from 1 to 10 of SAC, LAION-Logos and AVA. The prompt is not read. DDPO, DRaFT and AlignProp train towards it.
"""

import itertools
from pathlib import Path

import torch
from torch import nn

from ..interface import Reward, RewardError
from .clip import VIT_L_14, Clip
from .weights import WeightFile, assign, read, require

HEAD = "sac+logos+ava1-l14-linearMSE.pth"
HEAD_URL = f"https://github.com/christophschuhmann/improved-aesthetic-predictor/raw/main/{HEAD.replace('+', '%2B')}"


class Head(nn.Module):
    """Embeddings (B, width) to ratings (B,); layers are numbered as in the published file."""

    def __init__(self, width: int = 768):
        super().__init__()
        first, second, third, *last = (nn.Linear(*ends) for ends in itertools.pairwise((width, 1024, 128, 64, 16, 1)))
        self.layers = nn.Sequential(first, nn.Dropout(0.2), second, nn.Dropout(0.2), third, nn.Dropout(0.1), *last)

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        return self.layers(embeddings)[:, 0]


class Aesthetic(Reward):
    """The aesthetic rating."""

    name = "aesthetic"
    version = "sac+logos+ava1-l14-linearMSE"
    scale = "rating, 1 to 10"
    differentiable = True

    def __init__(self, folder: Path):
        files = self.files()
        require("aesthetic", files, folder)
        self.clip = Clip("aesthetic", VIT_L_14, folder)
        self.head = Head(self.clip.network.config.projection_dim).eval()
        checkpoint = files[0].at(folder)
        state = read("aesthetic", checkpoint)
        if not isinstance(state, dict):
            raise RewardError(f"aesthetic: {checkpoint} is no state dict")
        assign("aesthetic", self.head, state, checkpoint)
        self.networks = (self.clip.network, self.head.requires_grad_(False))

    @staticmethod
    def files() -> list[WeightFile]:
        return [WeightFile(f"aesthetic/{HEAD}", HEAD_URL, "4 MB"), *VIT_L_14]

    def __call__(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        embeddings = self.clip.images(images)
        with torch.autocast(images.device.type, enabled=False):  # steps of bfloat16 are 0.03 near a rating of 6
            return self.head(embeddings.to(self.head.layers[0].weight.dtype))
