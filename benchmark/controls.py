"""Controls that take a method apart: methods from outside ``methods/``, each with one thing changed. Rows of a profile.

python -m benchmark.run --method benchmark.controls:ShortFTEverywhere --reward hps
"""

from __future__ import annotations

from methods.shortft import ShortFT


class ShortFTEverywhere(ShortFT):
    """ShortFT whose LoRAs act at every step of the sampler, not at the published 15 alone.

    The gradient takes the same calls: through the same hops and shortcuts, stage by stage. Between two LoRA-bearing
    timesteps act the LoRAs of the first of them, which are trained there alone; shortcuts stay without. What it gains
    over ShortFT is what the places of its LoRAs cost it; what it lacks to other methods is its gradient's.
    """

    def slots_at(self, t: int, timesteps: list[int]) -> tuple[int, ...]:
        stage = max(stage for bearer, stage in self.bearers(timesteps).items() if bearer >= t)
        return tuple(range(1, stage + 1)) if self.slots > 1 else (1,)
