"""The policy: a frozen denoiser with slots of LoRA that can be switched on per call.

Slots are not run as stacked adapters (four of those more than double a call's cost). What the active slots add is made
ready once per optimiser step, differentiably, and every call is given it: ``merged`` into the weights, or ``beside``
them (the modules of these names say when which).
"""

from collections.abc import Callable, Sequence

import torch
from diffusers import UNet2DConditionModel as UNet
from torch import Tensor

from .beside import Beside
from .merged import Merged
from .slots import Slots

Weights = dict[str, Tensor]  # what a call is given of the slots that are on, by name


class Policy(Slots):
    """A denoiser with its slots, and the frozen shortcut beside it.

    unet      the base denoiser; it is frozen and given the adapters in place
    shortcut  the few-step denoiser, frozen; None where the suite has none
    lora      "merged" or "beside" the weights; "beside" takes linear layers only
    options   of ``Slots``: rank, seed, targets
    """

    def __init__(self, unet: UNet, shortcut: UNet | None = None, slots: int = 1, lora: str = "merged", **options):
        self._ready: dict[tuple[str, tuple[int, ...]], Weights] = {}
        self._compiled: dict[str, Callable] = {}
        super().__init__(unet, slots, **options)
        self.shortcut = shortcut if shortcut is None else shortcut.requires_grad_(False).eval()
        others = [shortcut] * (shortcut is not None)
        self.way = Merged(self, self._denoiser) if lora == "merged" else Beside(self, others)
        self.train_slots(self.slots)

    def _denoiser(self, model: str) -> UNet:
        if model == "base":
            return self.unet
        if self.shortcut is None:
            raise ValueError("this suite has no shortcut model")
        return self.shortcut

    def weights(self, slots: Sequence[int], model: str = "base") -> Weights:
        """What a call of a model with ``slots`` on is given, by name; a graph back to their A and B."""
        slots = tuple(slots)
        if slots and (model, slots) not in self._ready:
            with torch.enable_grad():
                self._ready[model, slots] = self.way.prepare(slots, model)
        return self._ready.get((model, slots), {})

    def refresh(self) -> None:
        self._ready.clear()
        self.way.refresh()

    def backward(self, loss: Tensor, keep_merged: bool = False) -> None:
        """Add the loss's gradient to the slots' ``.grad``. What was made ready is forgotten: its graph is spent.

        keep_merged: keep it, and its graph, for more losses at the same parameters; then call ``refresh``.
        """
        loss.backward(retain_graph=keep_merged)
        if not keep_merged:
            self.refresh()

    def costly_slots(self, slots: Sequence[int]) -> int:
        """What a call's cost depends on of the slots that are on."""
        return self.way.costly(slots)

    def call(
        self, model: str, latents: Tensor, t: int | Tensor, prompt_embeds: Tensor, weights: Weights, plain: bool = False
    ) -> Tensor:
        """Noise prediction (B, C, h, w), in the latents' precision, of one call without guidance.

        weights: what ``self.weights`` has of the slots that are on; names and shapes have to be those.
        plain: not compiled. Code that counts operations must not meet compiled code: PyTorch would never run it again.
        """
        denoiser = self._denoiser(model)
        dtype = denoiser.conv_in.weight.dtype  # the model's own property walks all its parameters
        compiled = bool(self._compiled) and not plain
        run = self._compiled[model] if compiled else self.way.run
        if compiled:
            t = torch.as_tensor(t, device=latents.device)  # compiled code is made anew for every number, not tensor
        return run(denoiser, latents.to(dtype), t, prompt_embeds.to(dtype), weights).to(latents.dtype)

    def compile(self, backend: str = "inductor") -> None:
        """Run calls as ``torch.compile`` makes them; the first of each shape then takes a minute or more."""
        torch._dynamo.config.recompile_limit = 64  # sets of slots, with and without gradient, models: more than usual
        for model in ("base", "shortcut"):
            self._compiled[model] = torch.compile(self.way.run, backend=backend)
