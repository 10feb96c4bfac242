"""One interface for every reward."""

import abc
from collections.abc import Sequence
from typing import Self

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
    networks        what ``to`` moves
    """

    name: str
    version: str = "1"
    scale: str = ""
    differentiable: bool = True
    packages: tuple[str, ...] = ()
    networks: Sequence[torch.nn.Module] = ()

    @abc.abstractmethod
    def __call__(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        """Scores (B,) of images (B, 3, H, W), float in [0, 1], for their prompts."""

    def to(self, device: torch.device | str) -> Self:
        for network in self.networks:
            network.to(device)
        return self
