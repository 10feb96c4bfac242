"""One interface for every reward."""

from __future__ import annotations

import abc

import torch

from ..errors import InputError


class RewardError(InputError):
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
