"""Files shaped as Stable Diffusion 1.5's, Hyper-SD's and the rewards', with random weights: to try and to time things.

    python -m benchmark.suites.sd15.random_weights random --narrow
    python -m benchmark.run --suite sd15 --model random/stable-diffusion-v1-5 --set weights=random --reward pickscore

The true architectures by default (8 GB with all rewards), or all of them narrow, for a CPU. The folders are marked:
records of runs on them say ``random_weights``, and tables leave such runs out. The vocabulary is the embedded suite's.
"""

import json
import shutil
from pathlib import Path
from typing import Annotated

import torch
import typer
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from ...cli import command, console
from ...errors import InputError, unknown
from ...rewards.published import aesthetic, hps, imagereward
from ..interface import NO_SAFETY_CHECKER
from ..mini import base, card, world
from .suite import FEW_STEP, HUB, RANDOM, StableDiffusion15

VOCABULARY = 49408  # CLIP's
REWARDS = tuple(StableDiffusion15.learned_rewards)


def _transformer(width: int, inner: int, layers: int, heads: int, **more) -> dict:
    sizes = {"hidden_size": width, "intermediate_size": inner, "num_hidden_layers": layers}
    return sizes | {"num_attention_heads": heads, **more}


# Narrow ones keep every kind of layer and the number of blocks.
UNET = {"cross_attention_dim": 768, "block_out_channels": (320, 640, 1280, 1280)}
NARROW_UNET = {"cross_attention_dim": 32, "block_out_channels": (32, 32, 64, 64), "layers_per_block": 1}
VAE = {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2}
NARROW_VAE = {"block_out_channels": (32, 32, 32, 32), "layers_per_block": 1}
TEXT, NARROW_TEXT = _transformer(768, 3072, 12, 12), _transformer(32, 64, 1, 2)
# Of the rewards' CLIPs: text, vision, width of the embedding.
CLIPS = {
    "pickscore": (_transformer(1024, 4096, 24, 16), _transformer(1280, 5120, 32, 16, patch_size=14), 1024),
    "clip-vit-large-patch14": (TEXT, _transformer(1024, 4096, 24, 16, patch_size=14), 768),
}
NARROW_CLIP = (NARROW_TEXT, NARROW_TEXT | {"patch_size": 56}, 16)
NARROW_OPEN_CLIP = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 224, "layers": 1, "width": 32, "head_width": 16, "patch_size": 56},
    "text_cfg": {"context_length": 77, "vocab_size": VOCABULARY, "width": 32, "heads": 2, "layers": 1},
}
NARROW_BERT = imagereward.BERT | {"num_hidden_layers": 1, "intermediate_size": 64, "vocab_size": 128}
NARROW_VISION = imagereward.VISION | {"patch_size": 56, "embed_dim": 32, "depth": 1, "num_heads": 2}


def _tokenizer(folder: Path) -> CLIPTokenizer:
    """The embedded suite's vocabulary, prompts as long as CLIP's."""
    shutil.copytree(card.PIPELINE / "tokenizer", folder, dirs_exist_ok=True)
    settings = json.loads((folder / "tokenizer_config.json").read_text()) | {"model_max_length": 77}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return CLIPTokenizer.from_pretrained(folder)


def _text_config(tokenizer: CLIPTokenizer, size: dict) -> dict:
    return size | base.token_ids(tokenizer) | {"vocab_size": VOCABULARY, "max_position_embeddings": 77}


def build_pipeline(folder: Path, narrow: bool, pixels: int) -> StableDiffusionPipeline:
    """Write a pipeline of random weights for images of ``pixels`` a side."""
    tokenizer = _tokenizer(folder / "tokenizer")
    unet = UNet2DConditionModel(sample_size=pixels // 8, attention_head_dim=8, **(NARROW_UNET if narrow else UNET))
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    vae = AutoencoderKL(sample_size=pixels, latent_channels=4, **blocks, **(NARROW_VAE if narrow else VAE))
    text = _text_config(tokenizer, NARROW_TEXT if narrow else TEXT) | {"hidden_act": "quick_gelu"}
    scheduler = PNDMScheduler(**base.NOISE, steps_offset=1, skip_prk_steps=True, set_alpha_to_one=False)
    models = {"vae": vae, "text_encoder": CLIPTextModel(CLIPTextConfig(**text)), "unet": unet}
    pipeline = StableDiffusionPipeline(**models, tokenizer=tokenizer, scheduler=scheduler, **NO_SAFETY_CHECKER)
    pipeline.save_pretrained(folder)
    return pipeline


def build_few_step(path: Path, unet: UNet2DConditionModel, rank: int) -> None:
    """Write a LoRA on the layers that Hyper-SD's and TCD's change: attention, feed-forward and convolutions."""
    targets = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out", "conv1", "conv2"]
    unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=targets, init_lora_weights=False), "few_step")
    layers = {key: 0.1 * value for key, value in get_peft_model_state_dict(unet, adapter_name="few_step").items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    StableDiffusionPipeline.save_lora_weights(path.parent, unet_lora_layers=layers, weight_name=path.name)
    unet.delete_adapters("few_step")


def build_clip(folder: Path, size: tuple[dict, dict, int]) -> None:
    """Write a CLIP as transformers does."""
    text, vision, width = size
    text, vision = _text_config(_tokenizer(folder), text), vision | {"image_size": 224}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=width)
    CLIPModel(config).half().save_pretrained(folder)


def build_hps(path: Path, narrow: bool) -> None:
    """Write HPSv2's checkpoint, in half precision as published."""
    import open_clip

    architecture = NARROW_OPEN_CLIP if narrow else open_clip.get_model_config("ViT-H-14")
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": open_clip.CLIP(**architecture).half().state_dict()}, path)
    if narrow:
        path.with_name("architecture.json").write_text(json.dumps(architecture))


def build_imagereward(folder: Path, narrow: bool) -> None:
    """Write ImageReward's checkpoint and a vocabulary of letters."""
    from ...rewards.published import quirks

    folder.mkdir(parents=True, exist_ok=True)
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    sizes = {"bert": NARROW_BERT, "vision": NARROW_VISION} if narrow else {}
    network = quirks.build(folder, sizes.get("bert", imagereward.BERT), sizes.get("vision", imagereward.VISION))
    torch.save(network.state_dict(), folder / "ImageReward.pt")
    if narrow:
        (folder / "architecture.json").write_text(json.dumps(sizes))


def build_reward(folder: Path, name: str, narrow: bool) -> None:
    """Write a reward's files below the weights folder."""
    if name in ("hps", "hps20"):
        build_hps(folder / "hps" / hps.VERSIONS["v2.1" if name == "hps" else "v2.0"], narrow)
    elif name == "imagereward":
        build_imagereward(folder / "imagereward", narrow)
    else:
        clip = "pickscore" if name == "pickscore" else "clip-vit-large-patch14"
        size = NARROW_CLIP if narrow else CLIPS[clip]
        build_clip(folder / clip, size)
        if name == "aesthetic":
            (folder / "aesthetic").mkdir(exist_ok=True)
            torch.save(aesthetic.Head(size[2]).state_dict(), folder / "aesthetic" / aesthetic.HEAD)


def build_prompts(folder: Path) -> None:
    """Write captions of the embedded suite as HPDv2's files are written."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", 2000), ("test", 400)):
        rows = [
            {"prompt": prompt, "image_path": [f"{number}-{side}.jpg" for side in (0, 1)], "rank": [1, 2]}
            for number, prompt in enumerate(world.captions(split, count))
        ]
        (folder / f"{split}.json").write_text(json.dumps(rows))


def build(folder: Path, rewards: list[str], narrow: bool = False, pixels: int = 512) -> Path:
    """Write all files below ``folder``; the pipeline's folder."""
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / Path(HUB).name
    pipeline = build_pipeline(model, narrow, pixels)
    build_few_step(FEW_STEP["hyper-sd"].at(folder), pipeline.unet, 4 if narrow else 64)
    for name in rewards:
        build_reward(folder, name, narrow)
    build_prompts(folder / "hpdv2")
    for marked in (folder, model):
        (marked / RANDOM).write_text(json.dumps({"narrow": narrow, "pixels": pixels}) + "\n")
    return model


@command
def main(
    folder: Annotated[Path, typer.Argument(help="Where to write; everything below it is random.")],
    narrow: Annotated[bool, typer.Option("--narrow", help="Narrow architectures, for a CPU.")] = False,
    pixels: Annotated[int, typer.Option(min=64, help="A side of the images, a multiple of 64.")] = 512,
    reward: Annotated[
        list[str] | None, typer.Option(help=f"Repeat for several of {', '.join(REWARDS)}; all of them.")
    ] = None,
) -> None:
    """Write random weights in Stable Diffusion 1.5's shape."""
    for name in sorted(set(reward or []) - set(REWARDS)):
        raise unknown("reward", name, REWARDS)
    if pixels % 64:
        raise InputError(f"{pixels} pixels are no multiple of 64")
    if folder.exists() and any(folder.iterdir()) and not (folder / RANDOM).exists():
        raise InputError(f"{folder} holds other files; name an empty folder")
    model = build(folder, reward or list(REWARDS), narrow, pixels)
    console.print(f"written; python -m benchmark.run --suite sd15 --model {model} --set weights={folder}")


if __name__ == "__main__":
    main()
