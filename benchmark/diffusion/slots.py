"""LoRA slots of a denoiser: ordinary peft adapters, numbered from 1, in the format that diffusers and peft load."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from diffusers import UNet2DConditionModel as UNet
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict

TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2")  # attention and feed-forward


class Slots:
    """A frozen denoiser and its LoRA slots 1..n (none: the denoiser as it is), given to it in place.

    targets  names of the layers, linear or convolutional, that the slots change
    layers   those layers by their path
    groups   their paths, those of one weight shape together

    The slots' parameters are float32 where the denoiser is of less precision.
    """

    def __init__(self, unet: UNet, slots: int, rank: int = 16, seed: int = 0, targets: Sequence[str] = TARGETS):
        if slots < 0 or rank < 1:
            raise ValueError(f"slots must be at least 0 and rank at least 1, got slots={slots}, rank={rank}")
        self.unet = unet.requires_grad_(False).eval()
        self.slots = tuple(range(1, slots + 1))
        config = LoraConfig(r=rank, lora_alpha=rank, target_modules=list(targets), init_lora_weights="gaussian")
        with torch.random.fork_rng(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Already found a `peft_config`")  # several slots are the point
            torch.manual_seed(seed)
            for slot in self.slots:
                unet.add_adapter(config, adapter_name=self.name(slot))
        if self.slots:
            unet.disable_adapters()
        self.layers = {name: module for name, module in unet.named_modules() if hasattr(module, "lora_A")}
        shapes = {path: tuple(layer.base_layer.weight.shape) for path, layer in self.layers.items()}
        self.groups = [[p for p in shapes if shapes[p] == shape] for shape in dict.fromkeys(shapes.values())]
        for parameter in self.parameters():
            if torch.finfo(parameter.dtype).bits < 32:
                parameter.data = parameter.data.float()

    @staticmethod
    def name(slot: int) -> str:
        """Of the slot's adapter."""
        return f"slot{slot}"

    def slot_parameters(self, slot: int) -> list[torch.nn.Parameter]:
        """LoRA A and B of one slot, layer by layer."""
        name = self.name(slot)
        return [m[name].weight for layer in self.layers.values() for m in (layer.lora_A, layer.lora_B)]

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

    def refresh(self) -> None:
        """Forget what was made of the slots' parameters; call after they changed."""

    def _adapter(self, slot: int) -> dict[str, torch.Tensor]:
        return get_peft_model_state_dict(self.unet, adapter_name=self.name(slot))

    def state_dict(self) -> dict[str, torch.Tensor]:
        """A copy of the slots' parameters by slot and peft's name, on the CPU."""
        found = ((f"{self.name(slot)}.{key}", v) for slot in self.slots for key, v in self._adapter(slot).items())
        return {key: value.detach().cpu().clone() for key, value in found}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        for slot in self.slots:
            prefix = self.name(slot) + "."
            part = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
            set_peft_model_state_dict(self.unet, part, adapter_name=self.name(slot))
        self.refresh()

    def _folders(self, folder: Path) -> Iterator[tuple[int, Path]]:
        """Every slot, and where its weights are: in ``folder``, or in ``folder/slot-i`` if there are several."""
        return ((slot, folder if len(self.slots) == 1 else folder / f"slot-{slot}") for slot in self.slots)

    def load_lora(self, folder: Path) -> None:
        """Read what ``save_lora`` wrote. Raises OSError where a slot's file is not there."""
        for slot, source in self._folders(folder):
            state = StableDiffusionPipeline.lora_state_dict(source, local_files_only=True)[0]
            state = {name.removeprefix("unet."): value for name, value in state.items()}
            set_peft_model_state_dict(self.unet, state, adapter_name=self.name(slot))
        self.refresh()

    def save_lora(self, folder: Path) -> None:
        """Write the slots for ``pipeline.load_lora_weights``: in ``folder``, or in ``folder/slot-i`` if several."""
        for slot, target in self._folders(folder):
            config = self.unet.peft_config[self.name(slot)]
            about = {"r": config.r, "lora_alpha": config.lora_alpha, "target_modules": sorted(config.target_modules)}
            layers = {"unet_lora_layers": self._adapter(slot), "unet_lora_adapter_metadata": about}
            StableDiffusionPipeline.save_lora_weights(target, **layers)
