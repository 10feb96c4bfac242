"""One interface for every reward."""

from __future__ import annotations

import abc

import torch

from ..diffusion.ledger import Ledger, measure


class RewardError(Exception):
    """A reward's package or weights are missing or unfit; the message is one line that says what to do."""


class Reward(abc.ABC):
    """Scores images for prompts; higher is better.

    name            as in ``--reward``
    version         what exactly computed the score; recorded with every number
    scale           the range in words
    differentiable  whether scores have a gradient to the images
    packages        modules beside the project's own dependencies that it imports
    """

    name: str
    version: str = "1"
    scale: str = ""
    differentiable: bool = True
    packages: tuple[str, ...] = ()

    @abc.abstractmethod
    def __call__(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        """Scores (B,) of images (B, 3, H, W), float in [0, 1], for their prompts."""

    def to(self, device: torch.device | str) -> Reward:
        return self


class Counted(Reward):
    """A reward as training calls it: every call entered into a ledger, gradients in the run's precision.

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
