"""The cosine of an image and its prompt under OpenAI's CLIP ViT-L/14 (Radford et al., ICML 2021, arXiv:2103.00020).

Not trained on preferences. CLIPScore as published (Hessel et al., EMNLP 2021) is 2.5 max(cosine, 0) of ViT-B/32 with
"A photo depicts" before the text; as a reward the plain cosine of ViT-L/14 is usual, and what this is.
"""

from .clip import VIT_L_14, ClipReward
from .weights import WeightFile


class ClipScore(ClipReward):
    """The CLIP cosine."""

    name = "clipscore"
    version = "openai-vit-l-14"
    scale = "cosine, -1 to 1, about 0.2 to 0.3"

    @staticmethod
    def files() -> list[WeightFile]:
        return VIT_L_14
