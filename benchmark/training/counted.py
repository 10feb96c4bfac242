"""A reward as training calls it: on the clock, and in the run's precision."""

import torch

from ..diffusion.ledger import Ledger, measure
from ..rewards import Reward


class Counted(Reward):
    """A reward whose every call is entered into a ledger, with gradients in the run's precision.

    Scores that are reported, or that are all a method looks at, are in the precision of the reward's weights: bfloat16
    moves a cosine by 3e-3, about what methods differ by.
    """

    def __init__(self, reward: Reward, ledger: Ledger, precision: torch.dtype = torch.float32):
        self.reward, self.ledger, self.precision = reward, ledger, precision
        self.name, self.version = reward.name, reward.version
        self.scale, self.differentiable = reward.scale, reward.differentiable

    def __call__(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        scores = self.score(images, prompts)
        backward = scores.requires_grad

        def cost() -> tuple[int, int]:
            x = images[:1].detach().clone().requires_grad_(backward)
            return measure(lambda: self.score(x, prompts[:1]), [x] * backward)

        self.ledger.call("reward", len(images), (self.name, backward), cost, backward)
        return scores

    def score(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        """Scores in the run's precision, not entered."""
        if self.precision == torch.float32 or not images.requires_grad:
            return self.reward(images, prompts)
        with torch.autocast(images.device.type, self.precision):
            return self.reward(images, prompts).to(images.dtype)
