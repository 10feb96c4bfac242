"""image-reward 1.5 on today's transformers: what its files expect, put in place here and nowhere else.

The wheel was written for transformers 4. Its own ``__init__`` also imports clip, datasets, wandb and a trainer, none of
which scoring needs; so its files are loaded under a private package name, and that ``__init__`` never runs. Each quirk
says what it replaces, and fails with one line where a release has made it obsolete.
"""

import contextlib
import importlib.metadata
import importlib.util
import json
import sys
import tempfile
import types
from pathlib import Path
from unittest import mock

import torch
import transformers
from transformers import BertTokenizer, modeling_utils, pytorch_utils

from ..interface import RewardError

WHEEL = "1.5"
_PRIVATE = "benchmark_imagereward"  # the wheel's files under this name


def _obsolete(what: str) -> RewardError:
    return RewardError(
        f"imagereward: transformers {transformers.__version__} has {what} again: remove that quirk from {__file__}"
    )


@contextlib.contextmanager
def _modeling_utils():
    """Quirk 1: three helpers that ``med.py`` imports from transformers.modeling_utils have left it in transformers 5.

    Two live on in pytorch_utils. The third served the pruning of heads, which scoring never does.
    """

    def find_pruneable_heads_and_indices(*_):
        raise NotImplementedError("heads cannot be pruned")

    helpers = {name: getattr(pytorch_utils, name) for name in ("apply_chunking_to_forward", "prune_linear_layer")}
    helpers["find_pruneable_heads_and_indices"] = find_pruneable_heads_and_indices
    for name in helpers:
        if hasattr(modeling_utils, name):
            raise _obsolete(f"modeling_utils.{name}")
    with mock.patch.multiple(modeling_utils, create=True, **helpers):
        yield


@contextlib.contextmanager
def _fairscale():
    """Quirk 2: ``vit.py`` imports fairscale for checkpointing, which scoring does not use; it may be absent."""
    if importlib.util.find_spec("fairscale"):
        yield
        return
    name = "fairscale.nn.checkpoint.checkpoint_activations"
    parents = [".".join(name.split(".")[:depth]) for depth in range(1, 4)]
    stubs = {parent: types.ModuleType(parent) for parent in parents}
    stubs[name] = types.SimpleNamespace(checkpoint_wrapper=lambda module, *_, **__: module)
    sys.modules.update(stubs)
    try:
        yield
    finally:
        for stub in stubs:
            del sys.modules[stub]


def _mend_bert(bert: type[torch.nn.Module]) -> None:
    """Quirk 3: what ``BertModel`` of ``med.py`` inherited from PreTrainedModel in transformers 4."""

    def get_head_mask(self, head_mask, layers):
        return [None] * layers

    def invert_attention_mask(self, mask):
        """Mask (B, L), 1 to attend and 0 not, to the bias (B, 1, 1, L) that is added to attention scores."""
        return (1 - mask[:, None, None, :].to(self.dtype)) * torch.finfo(self.dtype).min

    for method in (get_head_mask, invert_attention_mask):
        if hasattr(bert, method.__name__):
            raise _obsolete(f"PreTrainedModel.{method.__name__}")
        setattr(bert, method.__name__, method)
    bert.all_tied_weights_keys = {}  # transformers 5 sets it in post_init, which the wheel does not call


def _tokenizer(folder: Path) -> BertTokenizer:
    """Quirk 4: the wheel downloads this and reads ``additional_special_tokens_ids``, which is gone.

    The tokens [DEC] and [ENC] are BLIP's; the score uses neither.
    """
    tokenizer = BertTokenizer.from_pretrained(folder, local_files_only=True)
    tokenizer.add_special_tokens({"bos_token": "[DEC]"})
    tokenizer.add_tokens(["[ENC]"], special_tokens=True)
    tokenizer.enc_token_id = tokenizer.convert_tokens_to_ids("[ENC]")
    return tokenizer


def _package(name: str, folder: Path) -> None:
    """An empty package whose modules are the files of a folder; the folder's ``__init__`` does not run."""
    package = types.ModuleType(name)
    package.__path__ = [str(folder)]
    sys.modules[name] = package


def wheel_module(name: str) -> types.ModuleType:
    """A module of the wheel, such as ``models.BLIP.vit``, with the quirks in place."""
    try:
        version = importlib.metadata.version("image-reward")
    except importlib.metadata.PackageNotFoundError:
        raise RewardError("imagereward: needs image-reward: pip install -e '.[rewards]'") from None
    if version != WHEEL:
        raise RewardError(f"imagereward: image-reward {version} is installed, known is {WHEEL}: install that one")
    if f"{_PRIVATE}.ImageReward" not in sys.modules:
        folder = Path(importlib.util.find_spec("ImageReward").submodule_search_locations[0])
        _package(_PRIVATE, folder)
        _package(f"{_PRIVATE}.models", folder / "models")
        try:
            with _modeling_utils(), _fairscale():
                importlib.import_module(f"{_PRIVATE}.ImageReward")
        except ImportError as error:
            raise RewardError(f"imagereward: image-reward cannot be imported here ({error})") from None
        _mend_bert(sys.modules[f"{_PRIVATE}.models.BLIP.med"].BertModel)
    return importlib.import_module(f"{_PRIVATE}.{name}")


def build(vocabulary: Path, bert: dict, vision: dict) -> torch.nn.Module:
    """The wheel's own ``ImageReward`` network, with random weights.

    vocabulary  folder with BERT's ``vocab.txt``
    bert        BERT's configuration (Quirk 5: the wheel lacks its ``med_config.json``)
    vision      ``img_size``, ``patch_size``, ``embed_dim``, ``depth``, ``num_heads`` of the vision transformer
    """
    wheel, blip, vit = map(wheel_module, ("ImageReward", "models.BLIP.blip_pretrain", "models.BLIP.vit"))
    parts = {"init_tokenizer": lambda: _tokenizer(vocabulary)}
    parts["create_vit"] = lambda *_: (vit.VisionTransformer(**vision), vision["embed_dim"])
    with tempfile.NamedTemporaryFile("w", suffix=".json") as config, mock.patch.multiple(blip, **parts):
        json.dump(bert, config)
        config.flush()
        return wheel.ImageReward(config.name)
