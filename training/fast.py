"""The CPU's part of the fast input path: decode a JPEG by OpenCV, cut the random crop, resize it; nothing else.

OpenCV and Pillow decode by the same library and agree bit for bit. The crop is resized by torch's antialiased bicubic
kernel for uint8, which agrees with Pillow's but for rounding and, unlike OpenCV's interpolations, keeps the recipe.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data.transforms import RandomResizedCropAndInterpolation
from torch import Tensor
from torchvision.transforms import InterpolationMode

START_OF_IMAGE, END_OF_IMAGE = b"\xff\xd8", b"\xff\xd9"  # the first two and the last two bytes of a whole JPEG


def read_image(path: str) -> Image.Image:
    """The RGB image in a file.

    Raises:
        ValueError: naming the file, if it cannot be read to its last pixel.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be read as an image ({error}): replace it by a fresh copy") from error


def read_pixels(path: str) -> np.ndarray:
    """The RGB image in a file as uint8 [H, W, 3], the same as Pillow's.

    What is not an ordinary, complete JPEG (ImageNet holds a PNG and some CMYK) is left to Pillow, whose libjpeg says
    when the data end early; OpenCV would fill the rest with grey.

    Raises:
        ValueError: as `read_image`; also without OpenCV.
    """
    try:
        content = Path(path).read_bytes()
    except OSError:
        content = b""  # Pillow says why
    pixels = _decode(content) if _is_ordinary(content) else None
    return np.array(read_image(path)) if pixels is None else pixels


def _decode(content: bytes) -> np.ndarray | None:
    cv2 = opencv()
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION  # timm does not turn an image by its EXIF tag either
    try:
        return cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error:  # more pixels than it allows
        return None


def _is_ordinary(content: bytes) -> bool:
    """Whether these bytes are a JPEG of one or three components of 8 bits, from its first marker to its last.

    Reading the few markers before the pixels takes microseconds; Pillow needs 40 to 70 to tell the mode.
    """
    if not (content.startswith(START_OF_IMAGE) and content.endswith(END_OF_IMAGE)):
        return False
    at = 2
    while at + 10 <= len(content) and content[at] == 0xFF:
        marker = content[at + 1]
        if 0xC0 <= marker <= 0xC2:  # start of frame, Huffman coded: length, bits, height, width, components
            return content[at + 4] == 8 and content[at + 9] in (1, 3)
        at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")
    return False


def opencv() -> Any:
    """The module cv2.

    Raises:
        ValueError: where it is not installed.
    """
    try:
        import cv2
    except ImportError:
        raise ValueError(
            "Data.pipeline 'fast' needs OpenCV: pip install opencv-contrib-python-headless, or choose 'paper'"
        ) from None
    return cv2


@dataclass(frozen=True)
class CropReader:
    """From a path to a random resized crop, uint8 [S, S, 3], not yet flipped, augmented or normalised.

    Rows of RGB, as decoded: turning them into planes is cheap on the device, but not here.

    The rectangle is drawn by timm's own function from Python's `random`, first of all draws as in timm's transform, so
    a sample's rectangle is the same on both paths.
    """

    size: tuple[int, int]
    scale: tuple[float, float]
    ratio: tuple[float, float]

    @classmethod
    def like(cls, step: RandomResizedCropAndInterpolation) -> "CropReader":
        """The reader that does what timm's `step` does.

        Raises:
            ValueError: for another interpolation than bicubic; without OpenCV, now rather than in a worker.
        """
        if step.interpolation != InterpolationMode.BICUBIC:
            raise ValueError(f"the fast path resizes crops by bicubic interpolation only, not by {step.interpolation}")
        opencv()
        return cls(tuple(step.size), tuple(step.scale), tuple(step.ratio))

    def __call__(self, path: str) -> Tensor:
        pixels = read_pixels(path)
        height, width, _ = pixels.shape
        canvas = torch.empty(0, height, width)  # timm's function only asks for the size
        top, left, rows, columns = RandomResizedCropAndInterpolation.get_params(canvas, self.scale, self.ratio)
        return resize(pixels[top : top + rows, left : left + columns], self.size)


def resize(pixels: np.ndarray, size: tuple[int, int]) -> Tensor:
    """An image uint8 [H, W, 3] at another size, as uint8 [*size, 3]: bicubic, with Pillow's antialiasing."""
    # The kernel is fastest on rows of RGB without gaps whose strides say channels_last, which they do only if the first
    # dimension is added before the permutation.
    image = torch.from_numpy(np.ascontiguousarray(pixels))[None].permute(0, 3, 1, 2)
    resized = torch.nn.functional.interpolate(image, size, mode="bicubic", antialias=True)
    return resized.permute(0, 2, 3, 1)[0].contiguous()
