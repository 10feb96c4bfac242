"""A tuned LoRA of several timestep-aware slots in a plain diffusers pipeline.

    pipeline = StableDiffusionPipeline.from_pretrained("benchmark/suites/mini/pipeline")
    attach_slots(pipeline, "runs/mini/hps/shortft/seed-0/lora")
    image = pipeline("a red circle above a blue square", num_inference_steps=50).images[0]

A LoRA of one slot needs nothing of this: ``pipeline.load_lora_weights(folder)``.
"""

import json
from pathlib import Path

from diffusers import StableDiffusionPipeline
from torch.utils.hooks import RemovableHandle

from .records import SLOTS_FILE


def attach_slots(pipeline: StableDiffusionPipeline, folder: str | Path) -> RemovableHandle:
    """Load the slots of a run's ``lora`` folder and switch them by timestep; ``.remove()`` ends the switching.

    The slots belong to timesteps of the chain they were trained on: sample with as many steps, and its spacing.
    Raises ValueError at a timestep that the chain does not have.
    """
    folder = Path(folder)
    slots_at = {int(t): tuple(slots) for t, slots in json.loads((folder / SLOTS_FILE).read_text()).items()}
    for slot in sorted({slot for slots in slots_at.values() for slot in slots}):
        pipeline.load_lora_weights(folder / f"slot-{slot}", adapter_name=f"slot{slot}")
    active = None

    def switch(unet, args) -> None:
        nonlocal active
        t = int(args[1])
        if t not in slots_at:
            chain = f"{len(slots_at)} steps, as it was trained"
            raise ValueError(f"the LoRA's chain has no timestep {t}: sample with {chain}")
        if slots_at[t] == active:
            return
        active = slots_at[t]
        if active:
            unet.enable_adapters()
            unet.set_adapters([f"slot{slot}" for slot in active], 1.0)
        else:
            unet.disable_adapters()

    return pipeline.unet.register_forward_pre_hook(switch)
