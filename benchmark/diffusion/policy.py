"""The policy: a frozen denoiser with slots of LoRA that can be switched on per call.

Slots are ordinary peft adapters, so they are saved in the format that diffusers and peft load. They are not run as
stacked adapters (four of those more than double a call's cost). What the active slots add is made ready once per
optimiser step, differentiably, and every call is given it, in one of two ways:

merged  the updates added to the weights. A call costs what the base model's does; for small models in single precision
beside  all active slots as one low-rank product beside each weight. For large models, of which a merged copy per set of
        slots would not fit, and for bfloat16, in which a weight of 0.03 does not change by an update of 3e-5
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
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
    lora      "merged" or "beside" the weights, see above; "beside" takes linear layers only

    The slots' parameters are float32 where the denoiser is of less precision.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        shortcut: UNet2DConditionModel | None = None,
        slots: int = 1,
        rank: int = 16,
        seed: int = 0,
        targets: Sequence[str] = TARGETS,
        lora: Literal["merged", "beside"] = "merged",
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
        self.lora = lora
        self._layers = {name: module for name, module in unet.named_modules() if hasattr(module, "lora_A")}
        shapes = {path: tuple(layer.base_layer.weight.shape) for path, layer in self._layers.items()}
        self._groups = [[p for p in shapes if shapes[p] == shape] for shape in dict.fromkeys(shapes.values())]
        self._ready: dict[tuple[str, tuple[int, ...]], dict[str, torch.Tensor]] = {}
        self._stacked: dict[tuple[str, tuple[int, ...]], list[torch.Tensor]] = {}
        for parameter in self.parameters():
            if torch.finfo(parameter.dtype).bits < 32:
                parameter.data = parameter.data.float()
        self._beside: dict[str, tuple[torch.Tensor, ...]] = {}  # of the call that is being made
        self._compiled: dict[str, Callable] = {}
        if lora == "beside":
            self._add_hooks()
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

    def weights(self, slots: Sequence[int], model: str = "base") -> dict[str, torch.Tensor]:
        """What a call of a model with ``slots`` on is given, by name; a graph back to their A and B."""
        slots = tuple(slots)
        if slots and (model, slots) not in self._ready:
            with torch.enable_grad():
                ready = self._merge(slots, model) if self.lora == "merged" else self._join(slots, model)
                self._ready[model, slots] = ready
        return self._ready.get((model, slots), {})

    def _merge(self, slots: tuple[int, ...], model: str) -> dict[str, torch.Tensor]:
        """The weights that ``slots`` change, with their updates ``s B A`` added."""
        return {
            key: self._as_weight(product, weight)
            for group, stack in zip(self._groups, self._stacks(slots, model), strict=True)
            for (key, weight), product in zip(self._weights(group, model), stack.unbind(), strict=True)
        }

    def _join(self, slots: tuple[int, ...], model: str) -> dict[str, torch.Tensor]:
        """Of every group of layers of one shape A (layers, all ranks, in) and ``s B`` (layers, out, all ranks).

        They stay float32: autograd adds up the gradients of all calls in the precision of what was given to them.
        """
        joined = {}
        for number, group in enumerate(self._groups):
            layers, ranks, outs = [self._layers[path] for path in group], [], []
            for name in map(self._name, slots):
                ranks.append(torch.stack([layer.lora_A[name].weight for layer in layers]))
                outs.append(torch.stack([layer.lora_B[name].weight for layer in layers]) * layers[0].scaling[name])
            joined |= {f"{number}.A": torch.cat(ranks, 1), f"{number}.B": torch.cat(outs, 2)}
        return joined

    def _by_layer(self, joined: dict[str, torch.Tensor], dtype: torch.dtype) -> dict[str, tuple[torch.Tensor, ...]]:
        """A and B of every layer in the model's precision; one cast for all layers of a shape."""
        found = {}
        for number, group in enumerate(self._groups if joined else ()):
            a, b = (joined[f"{number}.{part}"].to(dtype).unbind() for part in "AB")
            found |= dict(zip(group, zip(a, b, strict=True), strict=True))
        return found

    def _add_hooks(self) -> None:
        """Let every layer that slots change add what the call being made has of them."""

        def hook_of(path: str):
            def hook(layer, inputs, output):
                if not self._beside:
                    return output
                a, b = self._beside[path]
                return output + F.linear(F.linear(inputs[0], a), b)

            return hook

        for path, layer in self._layers.items():
            if not isinstance(layer.base_layer, torch.nn.Linear):
                raise ValueError(f"LoRA beside the weights is for linear layers; {path} is none")
            layer.base_layer.register_forward_hook(hook_of(path))
            if self.shortcut is not None:
                self.shortcut.get_submodule(path).register_forward_hook(hook_of(path))

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
        """Forget what was made ready of the slots; call after the parameters changed."""
        self._ready.clear()
        self._stacked = {key: stacks for key, stacks in self._stacked.items() if not key[1]}  # the models' own stay

    def backward(self, loss: torch.Tensor, keep_merged: bool = False) -> None:
        """Add the loss's gradient to the slots' ``.grad``. What was made ready is forgotten: its graph is spent.

        keep_merged: keep it, and its graph, for more losses at the same parameters; then call ``refresh``.
        """
        loss.backward(retain_graph=keep_merged)
        if not keep_merged:
            self.refresh()

    def costly_slots(self, slots: Sequence[int]) -> int:
        """What a call's cost depends on: the number of slots beside the weights, or whether any are merged."""
        return len(slots) if self.lora == "beside" else int(bool(slots))

    def call(
        self, model: str, latents: torch.Tensor, t: int, prompt_embeds: torch.Tensor, weights: dict[str, torch.Tensor],
        plain: bool = False,
    ) -> torch.Tensor:  # fmt: skip
        """Noise prediction (B, C, h, w), in the latents' precision, of one call without guidance.

        weights: what ``self.weights`` has of the slots that are on; names and shapes have to be those.
        plain: not compiled. Code that counts operations must not meet compiled code: PyTorch would never run it again.
        """
        denoiser = self._denoiser(model)
        dtype = denoiser.conv_in.weight.dtype  # the model's own property walks all its parameters
        compiled = bool(self._compiled) and not plain
        run = self._compiled[model] if compiled else self._run
        if compiled:
            t = torch.as_tensor(t, device=latents.device)  # compiled code is made anew for every number, not tensor
        return run(denoiser, latents.to(dtype), t, prompt_embeds.to(dtype), weights).to(latents.dtype)

    def _run(self, denoiser, latents, t, prompt_embeds, weights) -> torch.Tensor:
        arguments, options = (latents, t, prompt_embeds), {"return_dict": False}
        if self.lora == "merged":
            return functional_call(denoiser, weights, arguments, options, tie_weights=False)[0]
        self._beside = self._by_layer(weights, latents.dtype)
        try:
            return denoiser(*arguments, **options)[0]
        finally:
            self._beside = {}

    def compile(self, backend: str = "inductor") -> None:
        """Run calls as ``torch.compile`` makes them; the first of each shape then takes a minute or more."""
        torch._dynamo.config.recompile_limit = 64  # sets of slots, with and without gradient, models: more than usual
        for model in ("base", "shortcut"):
            self._compiled[model] = torch.compile(self._run, backend=backend)

    def noise_pred(
        self, model: str, latents: torch.Tensor, t: int, prompt_embeds: torch.Tensor, slots: Sequence[int] = ()
    ) -> torch.Tensor:
        """Noise prediction (B, C, h, w) of one denoiser call, without guidance, with ``slots`` on."""
        return self.call(model, latents, t, prompt_embeds, self.weights(slots, model))

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

    def _folders(self, folder: Path) -> Iterator[tuple[int, Path]]:
        """Every slot, and where its weights are: in ``folder``, or in ``folder/slot-i`` if there are several."""
        return ((slot, folder if len(self.slots) == 1 else folder / f"slot-{slot}") for slot in self.slots)

    def load_lora(self, folder: Path) -> None:
        """Read what ``save_lora`` wrote. Raises OSError where a slot's file is not there."""
        for slot, source in self._folders(folder):
            state = StableDiffusionPipeline.lora_state_dict(source, local_files_only=True)[0]
            state = {name.removeprefix("unet."): value for name, value in state.items()}
            set_peft_model_state_dict(self.unet, state, adapter_name=self._name(slot))
        self.refresh()

    def save_lora(self, folder: Path) -> None:
        """Write the slots for ``pipeline.load_lora_weights``: in ``folder``, or in ``folder/slot-i`` if several."""
        for slot, target in self._folders(folder):
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
