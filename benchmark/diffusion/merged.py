"""Slots merged into the weights: a call costs what the base model's does. For small models in single precision."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch.func import functional_call

from .slots import Slots

Stacks = dict[tuple[str, tuple[int, ...]], list[torch.Tensor]]


class Merged:
    """Gives calls the weights with the active slots' updates ``s B A`` added, differentiably."""

    def __init__(self, slots: Slots, denoiser: Callable[[str], torch.nn.Module]):
        self.slots, self._denoiser = slots, denoiser
        self._stacked: Stacks = {}

    def prepare(self, slots: tuple[int, ...], model: str) -> dict[str, torch.Tensor]:
        """The weights that ``slots`` change, by their names in the model."""
        return {
            key: self._as_weight(product, weight)
            for group, stack in zip(self.slots.groups, self._stacks(slots, model), strict=True)
            for (key, weight), product in zip(self._weights(group, model), stack.unbind(), strict=True)
        }

    def run(self, denoiser, latents, t, prompt_embeds, weights) -> torch.Tensor:
        arguments, options = (latents, t, prompt_embeds), {"return_dict": False}
        return functional_call(denoiser, weights, arguments, options, tie_weights=False)[0]

    def refresh(self) -> None:
        self._stacked = {key: stacks for key, stacks in self._stacked.items() if not key[1]}  # the models' own stay

    def costly(self, slots: Sequence[int]) -> int:
        """What a call's cost depends on: whether any slot is on."""
        return int(bool(slots))

    def _stacks(self, slots: tuple[int, ...], model: str) -> list[torch.Tensor]:
        """Of every group of layers of one shape, their weights with the slots' updates added, (layers, out, in).

        One product for a group instead of one for each layer: with four slots, hundreds of small products would cost a
        tenth of a step. ``(1, 2)`` builds on ``(1,)``, as ShortFT's stacked slots do.
        """
        if (model, slots) not in self._stacked:
            groups, layers = self.slots.groups, self.slots.layers
            if not slots:
                weights = [[weight.flatten(1) for _, weight in self._weights(group, model)] for group in groups]
                self._stacked[model, slots] = [torch.stack(group) for group in weights]
            else:
                *rest, last = slots
                name = self.slots.name(last)
                self._stacked[model, slots] = [
                    torch.baddbmm(
                        below,
                        torch.stack([layers[path].lora_B[name].weight.flatten(1) for path in group]),
                        torch.stack([layers[path].lora_A[name].weight.flatten(1) for path in group]),
                        alpha=layers[group[0]].scaling[name],
                    )
                    for group, below in zip(groups, self._stacks(tuple(rest), model), strict=True)
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
                yield f"{path}.base_layer.weight", self.slots.layers[path].base_layer.weight
            else:
                yield f"{path}.weight", self._denoiser(model).get_submodule(path).weight
