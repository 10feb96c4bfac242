"""HPSv2 (Wu et al., "Human Preference Score v2", 2023, arXiv:2306.09341).

CLIP ViT-H-14, fine-tuned on human choices between images for the same prompt. Images: longest side resized to 224,
zero-padded to a square, then normalised, as in ``hpsv2.img_score``. The score is the cosine of the embeddings of image
and prompt, what ``hpsv2.score`` returns (about 0.2 to 0.3); tables in papers often show it times 100.

The network is open_clip's, of which hpsv2 carries a copy; the tests compare with that package's own scorer. Without
mixed precision, which the package uses on GPUs; in bfloat16 a score moves by about 3e-3.
"""

from pathlib import Path

import torch

from ..interface import Reward, RewardError
from .preprocess import fit_and_pad, normalise
from .weights import WeightFile, assign, beside, read, require

VERSIONS = {"v2.0": "HPS_v2_compressed.pt", "v2.1": "HPS_v2.1_compressed.pt"}


class HPS(Reward):
    """Human Preference Score v2.

    version       "v2.0" or "v2.1": the published checkpoint
    architecture  ``embed_dim``, ``vision_cfg`` and ``text_cfg`` of open_clip; by default ViT-H-14's, or what
                  ``architecture.json`` beside the checkpoint says
    """

    name = "hps"
    scale = "cosine, -1 to 1, about 0.2 to 0.3; published also x100"
    packages = ("open_clip",)
    differentiable = True

    def __init__(self, folder: Path, version: str = "v2.1", architecture: dict | None = None):
        if version not in VERSIONS:
            raise RewardError(f"hps: unknown version {version!r}; there are {', '.join(VERSIONS)}")
        self.version = version
        files = self.files(version)
        require("hps", files, folder)
        try:
            import open_clip
        except ImportError:
            raise RewardError("hps: needs open_clip_torch: pip install -e '.[rewards]'") from None

        checkpoint = files[0].at(folder)
        architecture = architecture or beside(checkpoint) or open_clip.get_model_config("ViT-H-14")
        with torch.device("meta"):  # 986 M parameters need not be drawn before they are read
            network = open_clip.CLIP(**architecture)
        assign("hps", network, read("hps", checkpoint).get("state_dict", {}), checkpoint)
        # The causal mask is no part of the checkpoint.
        network.attn_mask = torch.full(network.attn_mask.shape, float("-inf")).triu(1)
        self.network = network.eval().requires_grad_(False)
        self.networks = (self.network,)
        self.tokenize = open_clip.SimpleTokenizer(context_length=network.context_length)
        self.size = architecture["vision_cfg"]["image_size"]

    @staticmethod
    def files(version: str = "v2.1") -> list[WeightFile]:
        return [WeightFile(f"hps/{VERSIONS[version]}", "xswu/HPSv2", "about 2 GB")]

    def __call__(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        weight = self.network.positional_embedding
        pixels = normalise(fit_and_pad(images, self.size)).to(weight.dtype)
        image = self.network.encode_image(pixels, normalize=True)
        text = self.network.encode_text(self.tokenize(prompts).to(weight.device), normalize=True)
        return (image * text).sum(-1)
