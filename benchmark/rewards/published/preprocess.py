"""The published preprocessings of images on tensors, differentiable.

The packages resize PIL images of 8 bits, which rounds and clips; here an image stays a float tensor, resized with the
same antialiased bicubic kernel, and overshoots are not clipped, so that bright and dark pixels keep their gradient.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # OpenAI CLIP's


def normalise(images: torch.Tensor) -> torch.Tensor:
    """Images (B, 3, H, W) in [0, 1], normalised with the mean and deviation of CLIP's training set."""
    mean, std = (images.new_tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    return (images - mean) / std


def _resize(images: torch.Tensor, height: int, width: int) -> torch.Tensor:
    if images.shape[-2:] == (height, width):
        return images
    return F.interpolate(images, (height, width), mode="bicubic", antialias=True, align_corners=False)


def fit_and_pad(images: torch.Tensor, size: int) -> torch.Tensor:
    """Longest side resized to ``size``, padded with zeros to a square, centred: (B, 3, size, size)."""
    scale = size / max(images.shape[-2:])
    height, width = (round(side * scale) for side in images.shape[-2:])
    top, left = (size - height) // 2, (size - width) // 2
    return F.pad(_resize(images, height, width), (left, size - width - left, top, size - height - top))


def cover_and_crop(images: torch.Tensor, size: int, whole: Callable[[float], int] = int) -> torch.Tensor:
    """Shortest side resized to ``size``, centre cropped: (B, 3, size, size).

    ``whole`` makes an integer of half the surplus: transformers cuts off, torchvision rounds.
    """
    shortest = min(images.shape[-2:])
    height, width = (int(size * side / shortest) for side in images.shape[-2:])
    top, left = whole((height - size) / 2), whole((width - size) / 2)
    return _resize(images, height, width)[..., top : top + size, left : left + size]
