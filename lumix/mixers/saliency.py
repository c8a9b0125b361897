"""Fine-grained static saliency (Montabone and Soto 2010) as OpenCV's contrib module computes it, batched in torch.

Bright or dark against the mean of what surrounds a pixel, over six window sizes. The arithmetic follows OpenCV's steps,
where it rounds and where it truncates, so that the peak, which is all that a box needs, is the same.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

SURROUNDS = (12, 24, 28, 48, 56, 112)
EXACT_IN_FLOAT32 = 2**24  # whole numbers below it; the sums over an image are whole
FIXED_POINT = 2**24  # units in which floats are summed
CHUNK_PIXELS = 2**18  # of a batch on the CPU, so that the intermediate maps stay in its cache


def fine_grained_saliency(images: Tensor) -> Tensor:
    """Saliency maps [B, H, W] float32 in [0, 1], in steps of 1/255, of images [B, 3 or 1, H, W] uint8 on any device.

    Each image is a map of its own. The three channels are weighted as OpenCV weighs blue, green and red, whatever
    they are, as the published code has it. Equal to OpenCV up to 256 x 256 pixels; beyond, OpenCV's own sums round.

    Raises:
        ValueError: for another dtype or shape.
    """
    check_detectable(images, torch.uint8)
    return in_chunks(images, lambda part: contrast(smooth_grey(part), None))


def reference_float_saliency(images: Tensor) -> Tensor:
    """The map [B, H, W] that OpenCV returns for images [B, 3 or 1, H, W] float32: the published slip.

    OpenCV takes the surround from the smoothed grey image of floats, but reads its centres as 8-bit pixels: centre
    (y, x) is byte x of the memory of row y (little endian), so only the leftmost quarter of the image is read, mostly
    low bits of mantissas. They depend on the order of rounding; this is the one of OpenCV 5 on a CPU with fused
    multiply-add. The last columns of widths that are no multiple of 8 are rounded otherwise there.

    Raises:
        ValueError: for another dtype or shape.
    """
    check_detectable(images, torch.float32)

    def maps(part: Tensor) -> Tensor:
        grey = smooth_float_grey(part).contiguous()
        return contrast(grey, grey.view(torch.uint8)[..., : grey.shape[-1]].float())

    return in_chunks(images, maps)


def peaks(maps: Tensor) -> Tensor:
    """[B, 2] int64, row and column of the largest value of each map [B, H, W], the first in row-major order."""
    width = maps.shape[-1]
    first = maps.flatten(1).argmax(1)
    return torch.stack([torch.div(first, width, rounding_mode="floor"), first % width], dim=1)


# ------------------------------------------------------------------------------------------------- steps


def check_detectable(images: Tensor, dtype: torch.dtype) -> None:
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"saliency needs images [B, 3 or 1, H, W], not of shape {list(images.shape)}")
    if images.dtype != dtype:
        raise ValueError(f"this saliency detector reads images of dtype {dtype}, not {images.dtype}")


def in_chunks(images: Tensor, maps: Callable[[Tensor], Tensor]) -> Tensor:
    """`maps` of the images, a few of them at a time on the CPU."""
    if images.device.type != "cpu":
        return maps(images)
    chunk = max(1, CHUNK_PIXELS // max(1, images.shape[-2] * images.shape[-1]))
    parts = [maps(part) for part in images.split(chunk)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def smooth_grey(images: Tensor) -> Tensor:
    """Twice blurred luminance [B, H, W] float32, whole numbers 0 to 255, of uint8 images.

    OpenCV weighs in units of 2**-15 and blurs in sixteenths, each rounded half up; every number is whole and below
    2**24, hence exact in float32, which is faster than integers.
    """
    if images.shape[1] == 1:
        grey = images[:, 0].float()
    else:
        grey = images[:, 0].float().mul_(3735).add_(images[:, 1], alpha=19235).add_(images[:, 2], alpha=9798)
        grey.add_(2**14).mul_(2**-15).floor_()
    for _ in range(2):
        grey = binomial(binomial(grey, -1), -2).add_(8).mul_(1 / 16).floor_()
    return grey


def smooth_float_grey(images: Tensor) -> Tensor:
    """Twice blurred luminance [B, H, W] float32 of float32 images, rounded step by step as OpenCV does."""
    if images.shape[1] == 1:
        grey = images[:, 0]
    else:
        blue, green, red = (torch.tensor(w, dtype=torch.float32).item() for w in (0.114, 0.587, 0.299))
        # Float64 followed by rounding to float32 stands for a fused multiply-add.
        grey = (images[:, 0].double() * blue + (images[:, 1] * green).double()).float()
        grey = (images[:, 2].double() * red + grey.double()).float()
    for _ in range(2):
        grey = binomial(binomial(grey, -1).mul_(0.25), -2).mul_(0.25)
    return grey


def binomial(maps: Tensor, dim: int) -> Tensor:
    """Each entry of float maps becomes previous + 2 * itself + next along `dim`, mirrored at the border pixel."""
    length = maps.shape[dim]
    if length == 1:
        return maps * 4
    result = torch.empty_like(maps)
    neighbours = maps.narrow(dim, 0, length - 2), maps.narrow(dim, 2, length - 2)
    result.narrow(dim, 1, length - 2).copy_(neighbours[0] + neighbours[1])
    result.select(dim, 0).copy_(maps.select(dim, 1) * 2)
    result.select(dim, length - 1).copy_(maps.select(dim, length - 2) * 2)
    return result.add_(maps, alpha=2)


def contrast(grey: Tensor, centre: Tensor | None) -> Tensor:
    """Saliency [B, H, W] float32 of smooth grey maps; `centre` float32 replaces their own pixels as centres."""
    sums = SurroundSums(grey, whole=centre is None)
    bytes_of_floats = centre is not None
    centre = grey if centre is None else centre
    brighter, signed = torch.zeros_like(centre), torch.zeros_like(centre)
    for surround, times in sums.distinct():
        mean = (sums.sums(surround) - centre).float().div_(sums.counts(surround))
        difference = torch.sub(centre, mean, out=mean).trunc_()
        if bytes_of_floats:
            difference.fmod_(256)  # stored in 8 bits; only the mean of floats can be negative
        signed.add_(difference, alpha=times)
        brighter.add_(difference.clamp_(min=0), alpha=times)
    on, off = eight_bit(brighter), eight_bit(brighter - signed)
    largest = torch.maximum(on.amax((1, 2), keepdim=True), off.amax((1, 2), keepdim=True)).clamp_(min=1)
    levels = on.add_(off).mul_(255).div_(largest).floor_()
    return levels.sub_(levels.div(256).floor_(), alpha=256).float().mul_(1 / 255)


def eight_bit(maps: Tensor) -> Tensor:
    """Maps [B, H, W] of whole numbers scaled to a largest value of 255 and truncated, float64."""
    share = maps / maps.amax((1, 2), keepdim=True).clamp_(min=1)
    return share.double().mul_(255).floor_()


class SurroundSums:
    """Sums of maps [B, H, W] over windows clipped at the border: rows y - n + 1 to y + n, columns likewise."""

    def __init__(self, maps: Tensor, whole: bool) -> None:
        """`maps` float32: `whole` numbers 0 to 255, or any floats, which are summed to 24 binary places."""
        self.height, self.width = maps.shape[-2:]
        self.longest = max(self.height, self.width)
        self.pad = max((n for n in SURROUNDS if n < self.longest), default=0)
        exact = whole and 255 * self.height * self.width < EXACT_IN_FLOAT32
        # Summed as integers: running sums of floats on a GPU depend on the order of the threads, and torch refuses
        # them in deterministic mode.
        integers = maps.to(torch.int32) if exact else (maps.double() * (1 if whole else FIXED_POINT)).round_().long()
        integral = integers.cumsum(-1, dtype=integers.dtype).cumsum_(-2)
        integral = integral.float() if exact else integral.double().div_(1 if whole else FIXED_POINT)
        integral = F.pad(integral, (1, 0, 1, 0))
        self.total = integral[:, -1:, -1:]
        if self.pad:
            self.integral = F.pad(integral, (self.pad,) * 4, mode="replicate")

    def distinct(self) -> list[tuple[int, int]]:
        """The surrounds that differ, with their multiplicity: all that reach beyond the image are the same."""
        inside = [(n, 1) for n in SURROUNDS if n < self.longest]
        beyond = len(SURROUNDS) - len(inside)
        return inside + ([(self.longest, beyond)] if beyond else [])

    def sums(self, surround: int) -> Tensor:
        """[B, H, W]; one number an image for a surround as long as the image."""
        if surround >= self.longest:
            return self.total
        low = self.pad - surround + 1
        rows = self.integral.narrow(1, low, self.height + 2 * surround)
        inside = rows.narrow(2, low + 2 * surround, self.width) - rows.narrow(2, low, self.width)
        return inside.narrow(1, 2 * surround, self.height) - inside.narrow(1, 0, self.height)

    def counts(self, surround: int) -> Tensor | int:
        """[H, W] pixels of each window but its centre."""
        if surround >= self.longest:
            return max(1, self.height * self.width - 1)
        rows, columns = (self._lengths(surround, length) for length in (self.height, self.width))
        return torch.outer(rows, columns).sub_(1)

    def _lengths(self, surround: int, length: int) -> Tensor:
        place = torch.arange(length, device=self.total.device, dtype=torch.float32)
        return (place + (surround + 1)).clamp_(max=length).sub_((place - (surround - 1)).clamp_(min=0))
