"""PickScore (Kirstain et al., "Pick-a-Pic", NeurIPS 2023, arXiv:2305.01569).

CLIP ViT-H-14, fine-tuned on the choices of users of a web application. Images: shortest side resized to 224, centre
cropped, normalised. The published recipe multiplies the cosine of the embeddings by the model's ``exp(logit_scale)``,
about 100, and reports about 20; the score here is the cosine itself, about 0.2, on the same scale as HPSv2.
"""

from pathlib import Path

from .clip import ClipReward, clip_files
from .weights import WeightFile


class PickScore(ClipReward):
    """PickScore_v1. ``logit_scale`` turns a score into the published logit."""

    name = "pickscore"
    version = "v1"
    scale = "cosine, -1 to 1, about 0.2; published x exp(logit_scale), about 100"

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.logit_scale = self.clip.network.logit_scale.exp().item()

    @staticmethod
    def files() -> list[WeightFile]:
        vocabulary = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
        return clip_files("pickscore", "yuvalkirstain/PickScore_v1", vocabulary, "3.9 GB")
