"""Slots beside the weights: all active ones as one low-rank product per layer.

For large models, of which a merged copy per set of slots would not fit, and for bfloat16, in which a weight of 0.03
does not change by an update of 3e-5.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from .slots import Slots

Factors = dict[str, tuple[torch.Tensor, ...]]  # A and B by a layer's path


class Beside:
    """Lets every linear layer that slots change add what the call being made has of them."""

    def __init__(self, slots: Slots, denoisers: Sequence[torch.nn.Module]):
        """denoisers: the base model, and others whose layers of the same paths get the same hooks."""
        self.slots = slots
        self._active: Factors = {}  # of the call that is being made
        for path, layer in slots.layers.items():
            if not isinstance(layer.base_layer, torch.nn.Linear):
                raise ValueError(f"LoRA beside the weights is for linear layers; {path} is none")
            layer.base_layer.register_forward_hook(self._hook(path))
            for denoiser in denoisers:
                denoiser.get_submodule(path).register_forward_hook(self._hook(path))

    def _hook(self, path: str):
        def hook(layer, inputs, output):
            if not self._active:
                return output
            a, b = self._active[path]
            return output + F.linear(F.linear(inputs[0], a), b)

        return hook

    def prepare(self, slots: tuple[int, ...], model: str) -> dict[str, torch.Tensor]:
        """Of every group of layers of one shape A (layers, all ranks, in) and ``s B`` (layers, out, all ranks).

        They stay float32: autograd adds up the gradients of all calls in the precision of what was given to them.
        """
        joined = {}
        for number, group in enumerate(self.slots.groups):
            layers, ranks, outs = [self.slots.layers[path] for path in group], [], []
            for name in map(self.slots.name, slots):
                ranks.append(torch.stack([layer.lora_A[name].weight for layer in layers]))
                outs.append(torch.stack([layer.lora_B[name].weight for layer in layers]) * layers[0].scaling[name])
            joined |= {f"{number}.A": torch.cat(ranks, 1), f"{number}.B": torch.cat(outs, 2)}
        return joined

    def _by_layer(self, joined: dict[str, torch.Tensor], dtype: torch.dtype) -> Factors:
        """A and B of every layer in the model's precision; one cast for all layers of a shape."""
        found = {}
        for number, group in enumerate(self.slots.groups if joined else ()):
            a, b = (joined[f"{number}.{part}"].to(dtype).unbind() for part in "AB")
            found |= dict(zip(group, zip(a, b, strict=True), strict=True))
        return found

    def run(self, denoiser, latents, t, prompt_embeds, weights) -> torch.Tensor:
        self._active = self._by_layer(weights, latents.dtype)
        try:
            return denoiser(latents, t, prompt_embeds, return_dict=False)[0]
        finally:
            self._active = {}

    def refresh(self) -> None:
        """Nothing is kept."""

    def costly(self, slots: Sequence[int]) -> int:
        """What a call's cost depends on: how many slots are on."""
        return len(slots)
