"""The policy: a frozen denoiser with slots of LoRA that can be switched on per call.

Slots are ordinary peft adapters, so they are saved in the format that diffusers and peft load. They are not run as
stacked adapters (four of those more than double a call's cost): the updates of the active slots are merged into the
weights once per optimiser step, differentiably, and every call runs on merged weights.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from torch.func import functional_call

TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2")  # attention and feed-forward


class Policy:
    """A denoiser, its LoRA slots 1..n (none: the base model as it is), and the frozen shortcut beside it.

    unet      the base denoiser; it is frozen and given the adapters in place
    shortcut  the few-step denoiser, frozen; None where the suite has none
    targets   names of the layers, linear or convolutional, that the slots change
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        shortcut: UNet2DConditionModel | None = None,
        slots: int = 1,
        rank: int = 16,
        seed: int = 0,
        targets: Sequence[str] = TARGETS,
    ):
        if slots < 0 or rank < 1:
            raise ValueError(f"slots must be at least 0 and rank at least 1, got slots={slots}, rank={rank}")
        self.unet = unet.requires_grad_(False).eval()
        self.shortcut = shortcut if shortcut is None else shortcut.requires_grad_(False).eval()
        self.slots = tuple(range(1, slots + 1))
        config = LoraConfig(r=rank, lora_alpha=rank, target_modules=list(targets), init_lora_weights="gaussian")
        with torch.random.fork_rng(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Already found a `peft_config`")  # several slots are the point
            torch.manual_seed(seed)
            for slot in self.slots:
                unet.add_adapter(config, adapter_name=self._name(slot))
        if self.slots:
            unet.disable_adapters()
        self._layers = {name: module for name, module in unet.named_modules() if hasattr(module, "lora_A")}
        shapes = {path: tuple(layer.base_layer.weight.shape) for path, layer in self._layers.items()}
        self._groups = [[p for p in shapes if shapes[p] == shape] for shape in dict.fromkeys(shapes.values())]
        self._merged: dict[tuple[str, tuple[int, ...]], dict[str, torch.Tensor]] = {}
        self._stacked: dict[tuple[str, tuple[int, ...]], list[torch.Tensor]] = {}
        self.train_slots(self.slots)

    @staticmethod
    def _name(slot: int) -> str:
        return f"slot{slot}"

    def slot_parameters(self, slot: int) -> list[torch.nn.Parameter]:
        """LoRA A and B of one slot, layer by layer."""
        name = self._name(slot)
        return [m[name].weight for layer in self._layers.values() for m in (layer.lora_A, layer.lora_B)]

    def parameters(self) -> list[torch.nn.Parameter]:
        """The parameters of all slots, slot by slot."""
        return [p for slot in self.slots for p in self.slot_parameters(slot)]

    def train_slots(self, slots: Iterable[int]) -> None:
        """Give gradients to these slots only; the others act where they are on, but stay as they are."""
        slots = set(slots)
        for slot in self.slots:
            for parameter in self.slot_parameters(slot):
                parameter.requires_grad_(slot in slots)
        self.refresh()

    def merged(self, slots: Sequence[int], model: str = "base") -> dict[str, torch.Tensor]:
        """The weights of a model that ``slots`` change, with their updates ``s B A`` added: a graph back to A and B."""
        slots = tuple(slots)
        if slots and (model, slots) not in self._merged:
            with torch.enable_grad():
                self._merged[model, slots] = {
                    key: self._as_weight(product, weight)
                    for group, stack in zip(self._groups, self._stacks(slots, model), strict=True)
                    for (key, weight), product in zip(self._weights(group, model), stack.unbind(), strict=True)
                }
        return self._merged.get((model, slots), {})

    def _stacks(self, slots: tuple[int, ...], model: str) -> list[torch.Tensor]:
        """Of every group of layers of one shape, their weights with the slots' updates added, (layers, out, in).

        One product for a group instead of one for each layer: with four slots, hundreds of small products would cost a
        tenth of a step. ``(1, 2)`` builds on ``(1,)``, as ShortFT's stacked slots do.
        """
        if (model, slots) not in self._stacked:
            if not slots:
                layers = [[weight.flatten(1) for _, weight in self._weights(group, model)] for group in self._groups]
                self._stacked[model, slots] = [torch.stack(group) for group in layers]
            else:
                *rest, last = slots
                name = self._name(last)
                self._stacked[model, slots] = [
                    torch.baddbmm(
                        below,
                        torch.stack([self._layers[path].lora_B[name].weight.flatten(1) for path in group]),
                        torch.stack([self._layers[path].lora_A[name].weight.flatten(1) for path in group]),
                        alpha=self._layers[group[0]].scaling[name],
                    )
                    for group, below in zip(self._groups, self._stacks(tuple(rest), model), strict=True)
                ]
        return self._stacked[model, slots]

    @staticmethod
    def _as_weight(product: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Of a convolution, A is its kxk convolution to the rank and B the 1x1 one from it."""
        if weight.dim() == 2:
            return product
        return product.view(weight.shape).contiguous(memory_format=torch.channels_last)

    def _weights(self, paths: list[str], model: str) -> Iterator[tuple[str, torch.Tensor]]:
        """Name and value in the model of the weights of some layers that slots change."""
        for path in paths:
            if model == "base":
                yield f"{path}.base_layer.weight", self._layers[path].base_layer.weight
            else:
                yield f"{path}.weight", self._denoiser(model).get_submodule(path).weight

    def _denoiser(self, model: str) -> UNet2DConditionModel:
        if model == "base":
            return self.unet
        if self.shortcut is None:
            raise ValueError("this suite has no shortcut model")
        return self.shortcut

    def refresh(self) -> None:
        """Forget merged weights; call after the parameters changed."""
        self._merged.clear()
        self._stacked = {key: stacks for key, stacks in self._stacked.items() if not key[1]}  # the models' own stay

    def backward(self, loss: torch.Tensor, keep_merged: bool = False) -> None:
        """Add the loss's gradient to the slots' ``.grad``. Merged weights are forgotten: their graph is spent.

        keep_merged: keep them, and their graph, for more losses at the same parameters; then call ``refresh``.
        """
        loss.backward(retain_graph=keep_merged)
        if not keep_merged:
            self.refresh()

    def call(
        self, model: str, latents: torch.Tensor, t: int, prompt_embeds: torch.Tensor, weights: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        """Noise prediction (B, C, h, w) of one call without guidance, with ``weights`` in place of the model's own."""
        arguments, options = (latents, t, prompt_embeds), {"return_dict": False}
        return functional_call(self._denoiser(model), weights, arguments, options, tie_weights=False)[0]

    def noise_pred(
        self, model: str, latents: torch.Tensor, t: int, prompt_embeds: torch.Tensor, slots: Sequence[int] = ()
    ) -> torch.Tensor:
        """Noise prediction (B, C, h, w) of one denoiser call, without guidance, with ``slots`` on."""
        return self.call(model, latents, t, prompt_embeds, self.merged(slots, model))

    def state_dict(self) -> dict[str, torch.Tensor]:
        """A copy of the slots' parameters by slot and peft's name, on the CPU."""
        return {
            f"{self._name(slot)}.{key}": value.detach().cpu().clone()
            for slot in self.slots
            for key, value in get_peft_model_state_dict(self.unet, adapter_name=self._name(slot)).items()
        }

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        for slot in self.slots:
            prefix = self._name(slot) + "."
            part = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
            set_peft_model_state_dict(self.unet, part, adapter_name=self._name(slot))
        self.refresh()

    def save_lora(self, folder: Path) -> None:
        """Write the slots for ``pipeline.load_lora_weights``: in ``folder``, or in ``folder/slot-i`` if several."""
        for slot in self.slots:
            target = folder if len(self.slots) == 1 else folder / f"slot-{slot}"
            config = self.unet.peft_config[self._name(slot)]
            StableDiffusionPipeline.save_lora_weights(
                target,
                unet_lora_layers=get_peft_model_state_dict(self.unet, adapter_name=self._name(slot)),
                unet_lora_adapter_metadata={
                    "r": config.r,
                    "lora_alpha": config.lora_alpha,
                    "target_modules": sorted(config.target_modules),
                },
            )
