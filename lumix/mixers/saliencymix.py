"""SaliencyMix (Uddin et al. 2021): CutMix with the box on the most salient pixel of the partner.

Saliency is fine-grained and static (Montabone and Soto 2010), as OpenCV's contrib module computes it, batched in torch:
bright or dark against the mean of what surrounds a pixel, over six window sizes. The arithmetic follows OpenCV's steps,
where it rounds and where it truncates, so that the peak, which is all that a box needs, is the same.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from lumix.batch import Kind, MixedBatch
from lumix.inputs import Positive, checked, is_transformed
from lumix.mixers.base import IMAGENET_MEAN, IMAGENET_STD, BatchDraws, WholeBatchMixer
from lumix.mixers.paste import apply_plan, assign, box_around, boxes_drawn, visible_share
from lumix.random import draw_beta, moved, wide
from lumix.registry import register

SURROUNDS = (12, 24, 28, 48, 56, 112)
EXACT_IN_FLOAT32 = 2**24  # whole numbers below it; the sums over an image are whole


@dataclass(frozen=True)
class SaliencyMixDraws(BatchDraws):
    """The own image's share before the box is clipped, [1] float64."""

    own_weight: Tensor


@register("mixer", "saliencymix", "SaliencyMix", pixels="cut", dynamic=True)
@dataclass(frozen=True)
class SaliencyMix(WholeBatchMixer):
    """Paste a box of the partner, centred on a saliency peak, at the same place of the own image.

    As published one map, that of the first sample's partner, places one box for the whole batch. It has the area share
    1 - Beta(alpha, alpha) and is clipped at the border; the own label keeps the share that stays visible. The detector
    sees pixels in 8 bits: those of float images with the normalisation undone (the public code reads the bytes of
    normalised floats, which places the box by little more than chance), of which `mean` and `std` have one entry a
    channel. The authors set `prob` to 1 on ImageNet and 0.5 on CIFAR.
    """

    alpha: Positive = 1.0
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[Positive, ...] = IMAGENET_STD
    BRIGHT: ClassVar[float] = 2550  # no noise of an augmentation makes pixels of 0 to 255 brighter

    def __post_init__(self) -> None:
        super().__post_init__()
        means, stds = len(self.mean), len(self.std)
        if means != stds:
            raise ValueError(f"mean and std must have one entry a channel each, not {means} and {stds}")

    def draw_mixed(self, partner: Tensor, shape: tuple[int, ...], generator: torch.Generator) -> SaliencyMixDraws:
        return SaliencyMixDraws(partner, draw_beta(self.alpha, 1, generator))

    def mix(
        self, images: Tensor, labels: Tensor, draws: SaliencyMixDraws, model: Any, saliency: Tensor | None = None
    ) -> MixedBatch:
        """The batch mixed, for images [B, 3 or 1, H, W], uint8 or floating; with `saliency` maps [B, H, W] for any."""
        (height, width), device = images.shape[-2:], images.device
        first = draws.partner[:1]
        maps = self.saliency(images[first]) if saliency is None else saliency[first]
        box = box_around(moved(draws.own_weight, device), peaks(maps), height, width)
        drawn = boxes_drawn(visible_share(box, height, width), box)
        mixes, group = torch.ones(1, dtype=torch.bool, device=device), torch.zeros_like(draws.partner)
        return apply_plan(images, labels, assign(drawn, mixes, draws.partner, group, frozenset({Kind.BOX})))

    def saliency(self, images: Tensor) -> Tensor:
        """The maps [B, H, W] float32 in [0, 1] that place the boxes, of images [B, 3 or 1, H, W]."""
        pixels = images.detach()
        return fine_grained_saliency(pixels if pixels.dtype == torch.uint8 else self.to_bytes(pixels))

    def to_bytes(self, images: Tensor) -> Tensor:
        """Normalised float images as the uint8 pixels they came from."""
        if not images.is_floating_point():
            raise ValueError(f"SaliencyMix sees pixels of uint8 or normalised floats, not {images.dtype}: convert them")
        channels = images.shape[1]
        checked("mean", self.mean, tuple[float, ...])
        if len(self.mean) != channels:
            found = f"mean and std have {len(self.mean)} entries, the images {channels} channels"
            raise ValueError(f"{found}: give SaliencyMix the mean and std of the images' normalisation")
        scale = torch.tensor([self.mean, self.std], dtype=torch.float32, device="cpu").mul(255)
        mean, std = moved(scale, images.device).unsqueeze(-1).unsqueeze(-1)
        pixels = torch.addcmul(mean, images.float(), std)
        if pixels.device.type == "cpu" and not is_transformed() and bool(pixels.amax() > self.BRIGHT):
            found = f"SaliencyMix sees floats up to {float(images.amax()):g}, no normalised ones"
            raise ValueError(f"{found}: give uint8 images, or say mean=(0,) * {channels}, std=(1 / 255,) * {channels}")
        return pixels.round_().clamp_(0, 255).to(torch.uint8)


def peaks(maps: Tensor) -> Tensor:
    """[B, 2] int64, row and column of the largest value of each map [B, H, W], the first in row-major order."""
    width = maps.shape[-1]
    first = maps.flatten(1).argmax(1)
    return torch.stack([torch.div(first, width, rounding_mode="floor"), first % width], dim=1)


def fine_grained_saliency(images: Tensor) -> Tensor:
    """Saliency maps [B, H, W] float32 in [0, 1], in steps of 1/255, of images [B, 3 or 1, H, W] uint8 on any device.

    The three channels are weighted as OpenCV weighs blue, green and red, whatever they are, as the published code has
    it. Equal to OpenCV up to 256 x 256 pixels; beyond, OpenCV's own sums round.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"saliency needs images [B, 3 or 1, H, W], not of shape {list(images.shape)}")
    if images.dtype != torch.uint8:
        raise ValueError(f"the saliency detector reads images of dtype torch.uint8, not {images.dtype}")
    grey = smooth_grey(images)
    brighter, signed = torch.zeros_like(grey), torch.zeros_like(grey)
    for mean, times in surround_means(grey):
        difference = torch.sub(grey, mean, out=mean).trunc_()
        signed.add_(difference, alpha=times)
        brighter.add_(difference.clamp_(min=0), alpha=times)
    on, off = eight_bit(brighter), eight_bit(brighter - signed)
    largest = torch.maximum(on.amax((1, 2), keepdim=True), off.amax((1, 2), keepdim=True)).clamp_(min=1)
    levels = on.add_(off).mul_(255).div_(largest).floor_()
    return levels.sub_(levels.div(256).floor_(), alpha=256).float().mul_(1 / 255)


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


def binomial(maps: Tensor, dim: int) -> Tensor:
    """Each entry of maps becomes previous + 2 * itself + next along `dim`, mirrored at the border pixel."""
    last = maps.shape[dim] - 1
    place = torch.arange(last + 1, device=maps.device)
    before, after = (place - 1).abs().clamp(max=last), (last - (last - 1 - place).abs()).clamp(min=0)
    return maps.index_select(dim, before).add_(maps.index_select(dim, after)).add_(maps, alpha=2)


def surround_means(grey: Tensor) -> list[tuple[Tensor, int]]:
    """Means [B, H, W] of what surrounds each pixel of whole-numbered maps, and how many of `SURROUNDS` have this mean.

    A window has the rows y - n + 1 to y + n, columns likewise, clipped at the border; all that reach beyond the image
    are the same.
    """
    height, width = grey.shape[-2:]
    longest = max(height, width)
    # Summed as integers: running sums of floats on a GPU depend on the order of the threads, and torch refuses them in
    # deterministic mode.
    exact = 255 * height * width < EXACT_IN_FLOAT32
    integers = grey.to(torch.int32 if exact else torch.int64)
    summed = integers.cumsum(-1, dtype=integers.dtype).cumsum_(-2)
    integral = F.pad(summed.to(torch.float32 if exact else wide(grey.device)), (1, 0, 1, 0))
    inside = [n for n in SURROUNDS if n < longest]
    pad = max(inside, default=0)
    padded = F.pad(integral, (pad,) * 4, mode="replicate") if pad else integral

    def lengths(n: int, length: int) -> Tensor:
        place = torch.arange(length, device=grey.device, dtype=torch.float32)
        return (place + (n + 1)).clamp_(max=length).sub_((place - (n - 1)).clamp_(min=0))

    means = []
    for n in inside:
        rows = padded.narrow(1, pad - n + 1, height + 2 * n)
        columns = rows.narrow(2, pad + n + 1, width) - rows.narrow(2, pad - n + 1, width)
        sums = columns.narrow(1, 2 * n, height) - columns.narrow(1, 0, height)
        counts = torch.outer(lengths(n, height), lengths(n, width)).sub_(1)
        means.append(((sums - grey).float().div_(counts), 1))
    if len(inside) < len(SURROUNDS):
        total = integral[:, -1:, -1:]
        means.append(((total - grey).float().div_(max(1, height * width - 1)), len(SURROUNDS) - len(inside)))
    return means


def eight_bit(maps: Tensor) -> Tensor:
    """Maps [B, H, W] of whole numbers scaled to a largest value of 255 and truncated, float64."""
    share = maps / maps.amax((1, 2), keepdim=True).clamp_(min=1)
    return share.to(wide(maps.device)).mul_(255).floor_()
