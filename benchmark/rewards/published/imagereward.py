"""ImageReward (Xu et al., "ImageReward: Learning and Evaluating Human Preferences", NeurIPS 2023, arXiv:2304.05977).

BLIP (ViT-L/16 and BERT with cross-attention) and a linear head, trained on expert rankings. Images: shortest side
resized to 224, centre cropped, normalised. The score is standardised on the training set: roughly -2 to 2.

The network is the wheel's own (see ``quirks.py``). Its ``score`` resizes an image of 8 bits; the float tensor here is
not rounded or clipped. At 224x224 both agree; resized, pixels differ by one level of 255 at most, at sharp edges in
very bright or dark places by more (0.4 in normalised pixels in the tests), on average by 0.005.
"""

from pathlib import Path
from typing import Self

import torch

from ..interface import Reward, RewardError
from .preprocess import cover_and_crop, normalise
from .weights import WeightFile, beside, read, require

# BERT-base with cross-attention, and two more tokens; ViT-L/16 with the published drop-path rate (it acts in training).
BERT = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
BERT |= {"hidden_act": "gelu", "layer_norm_eps": 1e-12, "max_position_embeddings": 512, "type_vocab_size": 2}
BERT |= {"vocab_size": 30524, "pad_token_id": 0, "add_cross_attention": True}
VISION = {"img_size": 224, "patch_size": 16, "embed_dim": 1024, "depth": 24, "num_heads": 16, "drop_path_rate": 0.1}
_UNUSED = ("blip.vision_proj.", "blip.text_proj.", "blip.text_encoder.embeddings.position_ids")  # by the score


class ImageReward(Reward):
    """ImageReward-v1.0.

    bert, vision  architecture of the text and the image encoder; by default the published one, or what
                  ``architecture.json`` beside the checkpoint says
    """

    name = "imagereward"
    version = "v1.0"
    scale = "standardised, about -2 to 2"
    packages = ("ImageReward", "timm")
    differentiable = True

    def __init__(self, folder: Path, bert: dict | None = None, vision: dict | None = None):
        files = self.files()
        require("imagereward", files, folder)
        from . import quirks

        checkpoint, vocabulary = (file.at(folder) for file in files)
        other = beside(checkpoint)
        bert, vision = bert or other.get("bert") or BERT, vision or other.get("vision") or VISION
        network = quirks.build(vocabulary.parent, bert, vision)
        try:
            missing = network.load_state_dict(read("imagereward", checkpoint), strict=False).missing_keys
        except RuntimeError as error:
            missing = [" ".join(str(error).split())[:200]]
        missing = [key for key in missing if not key.startswith(_UNUSED)]
        if missing:
            raise RewardError(f"imagereward: {checkpoint} does not fit the architecture: {missing[0]} and what follows")
        self.network = network.eval().requires_grad_(False)  # drop-path would act in training
        self.networks = (self.network,)
        self.size = vision["img_size"]

    @staticmethod
    def files() -> list[WeightFile]:
        return [
            WeightFile("imagereward/ImageReward.pt", "THUDM/ImageReward", "about 1.8 GB"),
            WeightFile("imagereward/vocab.txt", "google-bert/bert-base-uncased", ""),
        ]

    def to(self, device: torch.device | str) -> Self:
        self.network.device = device  # the wheel puts its masks there
        return super().to(device)

    def __call__(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        pixels = normalise(cover_and_crop(images, self.size, whole=round)).to(self.network.mlp.layers[0].weight.dtype)
        options = {"padding": "max_length", "truncation": True, "max_length": 35, "return_tensors": "pt"}
        tokens = self.network.blip.tokenizer(prompts, **options).to(images.device)
        return self.network.score_gard(tokens.input_ids, tokens.attention_mask, pixels)[:, 0]
