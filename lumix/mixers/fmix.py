"""FMix (Harris et al. 2020): the region that shows the own image is the bright part of low-frequency noise."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lumix.batch import Kind, MixedBatch
from lumix.inputs import Positive, Share
from lumix.mixers.base import BatchDraws, WholeBatchMixer
from lumix.mixers.paste import blend, mix_by_mask, mixed_batch
from lumix.random import draw_beta, draw_normal, draw_uniform, moved
from lumix.registry import register

DECAY = 3.0  # power of frequency by which the noise falls


def low_frequency_image(height: int, width: int, generator: torch.Generator) -> Tensor:
    """A grey image [H, W] float64 from 0 to 1, noise whose spectrum falls with frequency**DECAY.

    As the authors' code has it: frequency rows 0 and 1 are taken for the real and imaginary part and their columns for
    the vertical frequencies, so that the image has the horizontal frequencies 0 and 1 only, and the vertical ones 0 to
    W // 2 (W // 2 + 1 for odd widths, whose spectra they draw one column too wide). Frequencies are cycles a pixel,
    and count as at least 1 / max(H, W).
    """
    device = generator.device
    vertical = torch.fft.fftfreq(height, dtype=torch.float64, device=device)[:2]
    horizontal = torch.fft.fftfreq(width, dtype=torch.float64, device=device)[: width // 2 + 1 + width % 2]
    frequency = torch.hypot(vertical.unsqueeze(1), horizontal.unsqueeze(0))
    scale = frequency.clamp(min=1 / max(height, width)) ** -DECAY
    real, imaginary = draw_normal((*scale.shape, 2), generator) * scale.unsqueeze(-1)
    image = torch.fft.irfft2(torch.complex(real, imaginary), s=(height, width))  # cuts or fills to this size
    image = image - image.min()
    return image / image.max().clamp(min=torch.finfo(image.dtype).tiny)  # a flat image stays 0


@dataclass(frozen=True)
class FMixDraws(BatchDraws):
    """The own label's share [1] float64, and the mask [H, W] float32, 1 where the own image shows."""

    own_weight: Tensor
    mask: Tensor


@register("mixer", "fmix", "FMix", pixels="cut")
@dataclass(frozen=True)
class FMix(WholeBatchMixer):
    """Show the own image where low-frequency noise is brightest, on the share Beta(alpha, alpha) of all pixels.

    One mask and one share per batch. The own label has the share that was drawn, not the counted one, which is this
    share of H * W pixels rounded up or down by the toss of a coin.

    Attributes:
        alpha: the authors' is 1.
        max_soft: share of pixels on either side of the mask's edge over which it falls from 1 to 0; 0 for a binary
            mask. Never more than the smaller of the two images' shares.
    """

    alpha: Positive = 1.0
    max_soft: Share = 0.0

    def check_shape(self, shape: tuple[int, ...]) -> None:
        super().check_shape(shape)
        if shape[-2] < 2:
            raise ValueError(f"FMix needs images of 2 rows or more, not {shape[-2]}")

    def draw_mixed(self, partner: Tensor, shape: tuple[int, ...], generator: torch.Generator) -> FMixDraws:
        own_weight = draw_beta(self.alpha, 1, generator)
        return FMixDraws(partner, own_weight, self.draw_mask(shape[-2], shape[-1], own_weight, generator))

    def mix(self, images: Tensor, labels: Tensor, draws: FMixDraws, model: Any) -> MixedBatch:
        size, partner, own = len(images), draws.partner, moved(draws.mask, images.device).expand(1, 1, -1, -1)
        hard = self.max_soft == 0
        mixed = mix_by_mask(images, partner, own > 0) if hard else blend(images, images[partner], own)
        weight, mask = draws.own_weight.expand(size), own.expand(size, -1, -1, -1)
        return mixed_batch(mixed, labels, partner, weight, Kind.MASK, mask=mask)

    def draw_mask(self, height: int, width: int, own_weight: Tensor, generator: torch.Generator) -> Tensor:
        """One mask [H, W] float32 in [0, 1] with the share `own_weight` [1] float64 of ones, up to rounding."""
        image = low_frequency_image(height, width, generator).flatten()
        share, pixels = float(own_weight), height * width
        count = own_weight * pixels
        ones = int(torch.where(draw_uniform(1, generator) < 0.5, count.ceil(), count.floor()))
        soft = int(pixels * min(self.max_soft, share, 1 - share))
        first, last = max(0, ones - soft), min(pixels, ones + soft)
        brightest = image.topk(last).indices
        mask = image.new_zeros(pixels, dtype=torch.float32)
        mask[brightest[:first]] = 1
        mask[brightest[first:]] = torch.linspace(1, 0, last - first, device=image.device, dtype=mask.dtype)
        return mask.view(height, width)
