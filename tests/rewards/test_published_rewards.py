"""The published rewards against the packages that published them, on random weights."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer
from typer.testing import CliRunner

from benchmark.diffusion.ledger import measure
from benchmark.rewards import RewardError
from benchmark.rewards.__main__ import app
from benchmark.rewards.published import PUBLISHED, load
from benchmark.rewards.published.aesthetic import HEAD, Head
from benchmark.rewards.published.check import images
from benchmark.rewards.published.imagereward import BERT
from benchmark.rewards.published.preprocess import STD, cover_and_crop, fit_and_pad, normalise
from benchmark.suites.mini import card
from benchmark.suites.mini.base import token_ids
from tests.conftest import needs

PROMPTS = ["a red circle above a small blue square", "an astronaut riding a horse, oil painting, 1970's"]
LEVEL = 1.1 / 255 / min(STD)  # one level of eight bits, and a bit, in normalised pixels
SIZES = [(224, 224), (512, 512), (384, 600), (333, 250), (100, 150)]


def picture(height: int, width: int, seed: int = 0) -> Image.Image:
    """A smooth field, a sharp disc and some grain."""
    y, x = np.mgrid[0:height, 0:width] / min(height, width)
    field = np.stack([0.5 + 0.5 * np.sin(5 * x + 3 * y * c + seed + c) for c in range(3)], -1)
    field[(x - 0.5) ** 2 + (y - 0.4) ** 2 < 0.06] = (0.95, 0.1, 0.15)
    field += 0.04 * np.random.default_rng(seed).standard_normal(field.shape)
    return Image.fromarray((field.clip(0, 1) * 255).round().astype(np.uint8))


def tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255


def scramble(network: torch.nn.Module, scale: float = 0.15) -> None:
    """Weights under which every part of the network has a say."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))


def assert_gradient(reward, network: torch.nn.Module, image: torch.Tensor, step: float = 1e-6) -> None:
    """The gradient to the image against a central difference along a random direction, in double precision."""
    network.double()
    image = image.double().requires_grad_()
    (gradient,) = torch.autograd.grad(reward(image, PROMPTS[:1]).sum(), image)
    direction = torch.randn(image.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ends = [reward(image + sign * step * direction, PROMPTS[:1]).sum() for sign in (1, -1)]
    network.float()
    slope = (gradient * direction).sum()
    assert slope.abs() > 1e-6
    torch.testing.assert_close(slope, (ends[0] - ends[1]) / (2 * step), rtol=1e-4, atol=0)


def test_importing_the_rewards_imports_none_of_their_packages():
    code = (
        "import sys, benchmark.rewards.published, benchmark.suites; "
        "sys.exit(' '.join({'hpsv2', 'ImageReward', 'open_clip', 'clip'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_a_missing_file_is_one_sentence(name, tmp_path):
    with pytest.raises(RewardError, match=f"^{name}.*: .* lacks .*: (hf download|curl) ") as caught:
        load(name, tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", SIZES)
def test_preprocessed_images_are_squares(size):
    images = torch.rand(2, 3, *size)
    assert fit_and_pad(images, 224).shape == cover_and_crop(images, 224).shape == (2, 3, 224, 224)


# HPSv2

TINY_OPEN_CLIP = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 224, "layers": 2, "width": 32, "head_width": 16, "patch_size": 56},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


@pytest.fixture
def hps_folder(tmp_path):
    needs("open_clip")
    import open_clip

    torch.manual_seed(0)
    network = open_clip.CLIP(**TINY_OPEN_CLIP)
    scramble(network)
    (tmp_path / "hps").mkdir()
    state = {"state_dict": {key: value.half() for key, value in network.state_dict().items()}}
    torch.save(state, tmp_path / "hps" / "HPS_v2.1_compressed.pt")
    return tmp_path


@pytest.fixture
def hpsv2_scorer(tmp_path, monkeypatch):
    """hpsv2's scorer with its copy of open_clip's network at any size, and its own preprocessing."""
    needs("hpsv2")
    from tests.rewards.hpsv2_reference import scorer

    module = scorer()
    from hpsv2.src.open_clip.model import CLIP
    from hpsv2.src.open_clip.transform import image_transform

    def prepare(architecture):
        preprocess = image_transform(224, is_train=False, resize_longest_max=True)
        model = CLIP(**architecture, output_dict=True)
        monkeypatch.setattr(module, "model_dict", {"model": model, "preprocess_val": preprocess})
        monkeypatch.setattr(module, "root_path", str(tmp_path))  # it makes this folder
        return module.score

    return prepare


@pytest.mark.parametrize("size", SIZES)
def test_hps_is_the_packages_score(size, hps_folder, hpsv2_scorer):
    reward = load("hps", hps_folder, architecture=TINY_OPEN_CLIP)
    score = hpsv2_scorer(TINY_OPEN_CLIP)
    image = picture(*size)
    checkpoint = str(hps_folder / "hps" / "HPS_v2.1_compressed.pt")
    expected = [score(image, prompt, cp=checkpoint)[0] for prompt in PROMPTS]
    ours = reward(tensor(image).expand(2, -1, -1, -1), PROMPTS)
    assert abs(expected[0] - expected[1]) > 1e-3
    np.testing.assert_allclose(ours.numpy(), expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.full_size("REWARDS_FULL_SIZE")  # 7 GB of memory, a minute
def test_hps_is_the_packages_score_at_full_size(tmp_path, hpsv2_scorer):
    needs("open_clip")
    import open_clip

    architecture = open_clip.get_model_config("ViT-H-14")
    torch.manual_seed(0)
    network = open_clip.CLIP(**architecture)
    (tmp_path / "hps").mkdir()
    checkpoint = tmp_path / "hps" / "HPS_v2_compressed.pt"
    torch.save({"state_dict": network.half().state_dict()}, checkpoint)
    del network
    image = picture(512, 384)
    ours = load("hps", tmp_path, version="v2.0")(tensor(image), PROMPTS[:1])
    expected = hpsv2_scorer(architecture)(image, PROMPTS[0], cp=str(checkpoint))
    checkpoint.unlink()
    np.testing.assert_allclose(ours.numpy(), expected, atol=1e-5)


def test_hps_gradient(hps_folder, hpsv2_scorer):
    reward = load("hps", hps_folder, architecture=TINY_OPEN_CLIP)
    image = tensor(picture(384, 600)).requires_grad_()
    hpsv2_scorer(TINY_OPEN_CLIP)(picture(9, 9), "", cp=str(hps_folder / "hps" / "HPS_v2.1_compressed.pt"))
    theirs = sys.modules["hpsv2.img_score"].model_dict["model"](
        normalise(fit_and_pad(image, 224)), reward.tokenize(PROMPTS[:1])
    )
    score = (theirs["image_features"] * theirs["text_features"]).sum()
    torch.testing.assert_close(*(torch.autograd.grad(s, image)[0] for s in (reward(image, PROMPTS[:1]).sum(), score)))
    assert (reward.version, reward.differentiable) == ("v2.1", True)
    assert_gradient(reward, reward.network, tensor(picture(100, 150)))


def test_hps_costs_the_same_forward_with_and_without_gradient(hps_folder):
    reward = load("hps", hps_folder, architecture=TINY_OPEN_CLIP)
    image = tensor(picture(224, 224))
    forward, _ = measure(lambda: reward(image, PROMPTS[:1]), [])
    image.requires_grad_()
    assert measure(lambda: reward(image, PROMPTS[:1]), [image])[0] == forward


def test_hps_names_its_version_and_what_does_not_fit(hps_folder):
    with pytest.raises(RewardError, match=r"v2\.0, v2\.1"):
        load("hps", hps_folder, version="v3")
    with pytest.raises(RewardError, match="lacks HPS_v2_compressed"):
        load("hps", hps_folder, version="v2.0", architecture=TINY_OPEN_CLIP)
    with pytest.raises(RewardError, match="does not fit"):
        load("hps", hps_folder, architecture=TINY_OPEN_CLIP | {"embed_dim": 8})


def test_half_a_file_is_not_taken_for_whole(hps_folder):
    path = hps_folder / "hps" / "HPS_v2.1_compressed.pt"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(RewardError, match="has only a part of"):
        load("hps", hps_folder, architecture=TINY_OPEN_CLIP)


# ImageReward

TINY_BERT = BERT | {"num_hidden_layers": 2, "intermediate_size": 64, "vocab_size": 64}
TINY_VISION = {"img_size": 224, "patch_size": 56, "embed_dim": 32, "depth": 2, "num_heads": 2, "drop_path_rate": 0.5}
LETTERS = [*"abcdefghijklmnopqrstuvwxyz0123456789,."]


@pytest.fixture
def imagereward_folder(tmp_path):
    needs("ImageReward", "timm")
    from benchmark.rewards.published import quirks

    folder = tmp_path / "imagereward"
    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS[:26], *(f"##{letter}" for letter in LETTERS[:26])]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    torch.manual_seed(0)
    network = quirks.build(folder, TINY_BERT, TINY_VISION)
    scramble(network, 0.1)
    torch.save(network.state_dict(), folder / "ImageReward.pt")
    return tmp_path


@pytest.fixture
def imagereward(imagereward_folder):
    return load("imagereward", imagereward_folder, bert=TINY_BERT, vision=TINY_VISION)


def test_imagereward_is_the_wheels_score(imagereward):
    image = picture(224, 224)
    expected = [imagereward.network.score(prompt, image) for prompt in PROMPTS]
    ours = imagereward(tensor(image).expand(2, -1, -1, -1), PROMPTS)
    assert abs(expected[0] - expected[1]) > 1e-3
    np.testing.assert_allclose(ours.numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("size", SIZES[1:])
def test_imagereward_resizes_as_the_wheel_but_for_eight_bits(size, imagereward):
    image = picture(*size)
    muted = Image.fromarray((0.6 * np.array(image) + 51).round().astype(np.uint8))  # no overshoot is clipped
    for each, bound in ((muted, LEVEL), (image, 0.4)):
        pixels = normalise(cover_and_crop(tensor(each), 224, whole=round))[0]
        difference = (pixels - imagereward.network.preprocess(each)).abs()
        assert difference.max() < bound
        assert difference.mean() < LEVEL / 3
    expected = imagereward.network.score(PROMPTS[0], image)  # from -2.3 to 0.6 on such pictures
    assert abs(imagereward(tensor(image), PROMPTS[:1]).item() - expected) < 0.05


def test_imagereward_is_the_wheels_score_gard_and_gradient(imagereward):
    image = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0)).requires_grad_()
    tokens = imagereward.network.blip.tokenizer(
        PROMPTS, padding="max_length", truncation=True, max_length=35, return_tensors="pt"
    )
    expected = imagereward.network.score_gard(tokens.input_ids, tokens.attention_mask, normalise(image))[:, 0]
    ours = imagereward(image, PROMPTS)
    torch.testing.assert_close(ours, expected)
    assert_gradient(imagereward, imagereward.network, tensor(picture(100, 150)))


def test_an_unknown_release_of_the_wheel_is_refused(imagereward_folder, monkeypatch):
    monkeypatch.setattr("benchmark.rewards.published.quirks.WHEEL", "9.9")
    with pytest.raises(RewardError, match=r"image-reward 1\.5 is installed, known is 9\.9"):
        load("imagereward", imagereward_folder, bert=TINY_BERT, vision=TINY_VISION)


def test_an_obsolete_quirk_is_named(imagereward_folder, monkeypatch):
    from benchmark.rewards.published import quirks

    monkeypatch.setattr(quirks.modeling_utils, "prune_linear_layer", None, raising=False)
    monkeypatch.delitem(sys.modules, "benchmark_imagereward.ImageReward", raising=False)
    with pytest.raises(RewardError, match=r"modeling_utils\.prune_linear_layer again"):
        load("imagereward", imagereward_folder, bert=TINY_BERT, vision=TINY_VISION)


# CLIP through transformers: PickScore, the aesthetic predictor, the CLIP score


def write_clip(folder, seed: int) -> None:
    """A tiny CLIP as transformers saves it, with the embedded suite's vocabulary."""
    tokenizer = CLIPTokenizer.from_pretrained(card.PIPELINE / "tokenizer")
    part = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = part | token_ids(tokenizer) | {"vocab_size": len(tokenizer), "max_position_embeddings": 77}
    vision = part | {"image_size": 224, "patch_size": 56}
    torch.manual_seed(seed)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)).eval()
    scramble(model)
    model.save_pretrained(folder)
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(card.PIPELINE / "tokenizer" / name, folder)


@pytest.fixture
def clip_folder(tmp_path):
    for seed, name in enumerate(("pickscore", "clip-vit-large-patch14")):
        write_clip(tmp_path / name, seed)
    torch.manual_seed(1)
    head = Head(16)
    (tmp_path / "aesthetic").mkdir()
    torch.save(head.state_dict(), tmp_path / "aesthetic" / HEAD)
    return tmp_path


def published_recipe(folder, image, prompts):
    """The recipe of PickScore's model card: CLIPProcessor and CLIPModel on a PIL image: its output, and the pixels."""
    model = CLIPModel.from_pretrained(folder).eval()
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    processor = CLIPProcessor(image_processor=CLIPImageProcessor(), tokenizer=tokenizer)
    options = {"padding": True, "truncation": True, "max_length": 77, "return_tensors": "pt"}
    pixels = processor(images=image, return_tensors="pt")
    with torch.no_grad():
        output = model(**pixels, **processor(text=prompts, **options))
    return output, pixels["pixel_values"][0]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("name", "folder"), [("pickscore", "pickscore"), ("clipscore", "clip-vit-large-patch14")])
def test_clip_rewards_are_the_published_recipe(name, folder, size, clip_folder):
    reward = load(name, clip_folder)
    image = picture(*size)
    output, pixels = published_recipe(clip_folder / folder, image, PROMPTS)
    ours = reward(tensor(image).expand(2, -1, -1, -1), PROMPTS)
    expected = (output.image_embeds * output.text_embeds).sum(-1)
    assert abs(expected[0] - expected[1]) > 0.01
    same_size = size == (224, 224)
    torch.testing.assert_close(ours, expected, atol=1e-5 if same_size else 1e-3, rtol=0)
    difference = (normalise(cover_and_crop(tensor(image), 224))[0] - pixels).abs()
    assert difference.max() < (1e-5 if same_size else 0.4)  # overshoot at sharp edges, see ImageReward
    assert difference.mean() < LEVEL / 3
    if name == "pickscore":
        torch.testing.assert_close(reward.logit_scale * expected, output.logits_per_image[0])


def test_clip_reads_the_published_vocabulary(tmp_path):
    needs("open_clip")
    import open_clip

    theirs = open_clip.SimpleTokenizer()
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    (tmp_path / "vocab.json").write_text(json.dumps({names.get(k, k): v for k, v in theirs.encoder.items()}))
    merges = [" ".join(merge) for merge in theirs.bpe_ranks]
    (tmp_path / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path)
    for prompt in (*PROMPTS, "Café  in the STYLE of … 80's art", "word " * 100):
        ours = tokenizer(prompt, truncation=True, max_length=77).input_ids
        assert ours == theirs(prompt)[0].tolist()[: len(ours)]


def test_the_aesthetic_rating_is_the_published_head(clip_folder, monkeypatch):
    needs("ImageReward", "timm")
    from benchmark.rewards.published import quirks

    monkeypatch.setitem(sys.modules, "clip", types.ModuleType("clip"))  # OpenAI's package; only its file imports it
    head = quirks.wheel_module("models.AestheticScore").MLP(16)
    head.load_state_dict(torch.load(clip_folder / "aesthetic" / HEAD))
    image = picture(224, 224)
    output, _ = published_recipe(clip_folder / "clip-vit-large-patch14", image, PROMPTS)
    expected = head.eval()(output.image_embeds)[:, 0]
    torch.testing.assert_close(load("aesthetic", clip_folder)(tensor(image), PROMPTS[:1]), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["pickscore", "clipscore", "aesthetic"])
def test_clip_gradients(name, clip_folder):
    reward = load(name, clip_folder)
    networks = torch.nn.ModuleList([reward.clip.network, *([reward.head] if name == "aesthetic" else [])])
    assert_gradient(reward, networks, tensor(picture(100, 150)))


def test_missing_weights_are_not_drawn_at_random(clip_folder):
    path = clip_folder / "pickscore" / "model.safetensors"
    state = load_file(path)
    del state["text_projection.weight"]
    save_file(state, path, metadata={"format": "pt"})
    with pytest.raises(RewardError, match=r"lacks text_projection\.weight"):
        load("pickscore", clip_folder)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(RewardError, match="has only a part of"):
        load("pickscore", clip_folder)


# The check


def test_the_check_scores_what_is_there_and_names_what_is_missing(clip_folder, tmp_path):
    golden = tmp_path / "golden.json"
    command = ["check", "--weights", str(clip_folder), "--golden", str(golden)]
    first = CliRunner().invoke(app, command)
    assert first.exit_code == 0, first.output
    assert first.output.count("no recorded score") == 3  # the aesthetic rating, PickScore, the CLIP score
    missing = [line for line in first.output.splitlines() if " lacks " in line]
    assert [line.split(":")[0] for line in missing] == ["hps", "hps", "imagereward"]

    assert CliRunner().invoke(app, [*command, "--record"]).exit_code == 0
    again = CliRunner().invoke(app, command)
    assert (again.exit_code, again.output.count("as recorded")) == (0, 3)

    recorded = json.loads(golden.read_text())
    key = next(key for key, entry in recorded.items() if entry["reward"] == "pickscore")
    assert key == hashlib.sha256((clip_folder / "pickscore" / "model.safetensors").read_bytes()).hexdigest()
    recorded[key]["scores"]["disc"] += 0.01
    golden.write_text(json.dumps(recorded))
    wrong = CliRunner().invoke(app, command)
    assert wrong.exit_code == 1
    assert "differs by 0.0100" in wrong.output


def test_the_checks_images_are_images():
    for prompt, image in images().values():
        assert prompt
        assert image.shape[0] == 3
        assert 0 <= image.min() < image.max() <= 1
