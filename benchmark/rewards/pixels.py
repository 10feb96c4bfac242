"""Rewards that need no model: symmetry and compressibility, and the true size of a JPEG file."""

import io
import math
from typing import Self

import torch
import torch.nn.functional as F
from PIL import Image

from .interface import Reward


class Symmetry(Reward):
    """Left-right symmetry: minus the mean absolute difference between an image and its mirror image.

    The symmetry loss of the paper's Table 1 is not defined in what is published; this is our definition.
    """

    name = "symmetry"
    version = "mirror-l1"
    scale = "-1 to 0; 0 is perfectly symmetric"

    def __call__(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        return -(images - images.flip(-1)).abs().mean(dim=(1, 2, 3))


# The luminance and chrominance tables of the JPEG standard (ITU-T T.81, annex K).
_LUMA = """16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56 14 17 22 29 51 87 80 62
18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92 49 64 78 87 103 121 120 101 72 92 95 98 112 100 103 99"""
_CHROMA = """17 18 24 47 99 99 99 99 18 21 26 66 99 99 99 99 24 26 56 99 99 99 99 99 47 66 99 99 99 99 99 99
99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99"""
_TO_YCBCR = [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]


def _table(text: str, quality: int) -> torch.Tensor:
    """An 8x8 quantisation table at a quality in 1..100, by libjpeg's rule."""
    percent = 5000 / quality if quality < 50 else 200 - 2 * quality
    entries = torch.tensor([float(entry) for entry in text.split()]).view(8, 8)
    return ((entries * percent + 50) / 100).floor().clamp(1, 255)


def _dct_matrix() -> torch.Tensor:
    """The orthonormal 8-point DCT-II."""
    k, n = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    matrix = torch.cos(math.pi * (2 * n + 1) * k / 16) / 2
    matrix[0] /= math.sqrt(2)
    return matrix


class Compressibility(Reward):
    """Minus the JPEG size, estimated differentiably: the bits of the quantised DCT coefficients.

    A coefficient c with quantisation step q costs about log2(1 + |c / q|) bits for its size; the sum over the 8x8
    blocks of Y, Cb and Cr (chroma at half resolution, quality 95), in bits per pixel. A proxy of DDPO's
    compressibility (Black et al., ICLR 2024), which is not differentiable: ``JpegSize``.
    """

    name = "compressibility"
    version = "jpeg-proxy-q95"
    scale = "minus bits per pixel; 0 is a blank image"

    def __init__(self, quality: int = 95):
        self._tables = [_table(_LUMA, quality), _table(_CHROMA, quality), _table(_CHROMA, quality)]
        self._dct = _dct_matrix()
        self._ycbcr = torch.tensor(_TO_YCBCR)

    def to(self, device: torch.device | str) -> Self:
        self._tables = [table.to(device) for table in self._tables]
        self._dct, self._ycbcr = self._dct.to(device), self._ycbcr.to(device)
        return self

    def __call__(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        with torch.autocast(images.device.type, enabled=False):  # bfloat16 rounds by more than a quantisation step
            return self._score(images)

    def _score(self, images: torch.Tensor) -> torch.Tensor:
        dtype = images.dtype
        planes = torch.einsum("ij,bjhw->bihw", self._ycbcr.to(dtype), images * 255)
        planes = planes - torch.tensor([128.0, 0.0, 0.0], dtype=dtype, device=images.device).view(1, 3, 1, 1)
        luma, chroma = planes[:, :1], F.avg_pool2d(planes[:, 1:], 2)
        bits = 0.0
        for plane, table in zip((luma, chroma[:, :1], chroma[:, 1:]), self._tables, strict=True):
            height, width = plane.shape[-2:]
            padded = F.pad(plane, (0, -width % 8, 0, -height % 8), mode="replicate")
            blocks = padded.unfold(2, 8, 8).unfold(3, 8, 8)
            dct = self._dct.to(dtype)
            coefficients = (dct @ blocks @ dct.T) / table.to(dtype)
            bits = bits + torch.log2(1 + coefficients.abs()).sum(dim=(1, 2, 3, 4, 5))
        return -bits / (images.shape[-2] * images.shape[-1])


class JpegSize(Reward):
    """Minus the size of the JPEG file of quality 95 in kB: DDPO's compressibility, without a gradient."""

    name = "jpeg"
    version = "pillow-q95"
    scale = "minus kB; at 512 pixels about -150 to -10"
    differentiable = False

    def __call__(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        pixels = (images.detach() * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
        return images.new_tensor([-self._bytes(image) / 1000 for image in pixels])

    @staticmethod
    def _bytes(image) -> int:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=95)
        return file.tell()


PIXEL_REWARDS: dict[str, type[Reward]] = {cls.name: cls for cls in (Symmetry, Compressibility, JpegSize)}
