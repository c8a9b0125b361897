"""FMix (Harris et al. 2020): the region that shows the own image is the bright part of low-frequency noise."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lumix.batch import Kind, MixedBatch
from lumix.checks import check_choice, check_number, check_positive, check_probability
from lumix.draws import draw_beta, draw_normal, draw_uniform
from lumix.mixers.apply import record
from lumix.mixers.base import BatchDraws, WholeBatchMixer
from lumix.mixers.pixels import blend, mix_by_mask
from lumix.registry import register

SPECTRA = ("reference", "full")


def frequency_scale(rows: int, columns: int, height: int, width: int, decay: float, device: torch.device) -> Tensor:
    """[rows, columns] float64, 1 / frequency**decay of the first rows and columns of a spectrum of height x width.

    Frequencies are cycles a pixel, and at least 1 / max(height, width).
    """
    vertical = torch.fft.fftfreq(height, dtype=torch.float64, device=device)[:rows]
    horizontal = torch.fft.fftfreq(width, dtype=torch.float64, device=device)[:columns]
    frequency = torch.hypot(vertical.unsqueeze(1), horizontal.unsqueeze(0))
    return frequency.clamp(min=1 / max(height, width)) ** -decay


def low_frequency_image(height: int, width: int, decay: float, spectrum: str, generator: torch.Generator) -> Tensor:
    """A grey image [H, W] float64 from 0 to 1, noise whose spectrum falls with frequency**decay.

    "full" draws the whole complex spectrum. "reference" is what the authors' code does: it takes the frequency rows 0
    and 1 for the real and imaginary part and their columns for the vertical frequencies, so that the image has the
    horizontal frequencies 0 and 1 only, and the vertical ones 0 to W // 2 (W // 2 + 1 for odd widths, whose spectra
    they draw one column too wide).
    """
    if spectrum == "full":
        scale = frequency_scale(height, width // 2 + 1, height, width, decay, generator.device)
        complex_spectrum = torch.view_as_complex(draw_normal((*scale.shape, 2), generator) * scale.unsqueeze(-1))
    else:
        scale = frequency_scale(2, width // 2 + 1 + width % 2, height, width, decay, generator.device)
        real, imaginary = draw_normal((*scale.shape, 2), generator) * scale.unsqueeze(-1)
        complex_spectrum = torch.complex(real, imaginary)
    image = torch.fft.irfft2(complex_spectrum, s=(height, width))  # cuts or fills the spectrum to this size
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
        alpha: above 0; the authors' is 1.
        decay: power of frequency by which the noise falls, 0 to 50.
        spectrum: "reference" as the authors' code has it, or "full" as they meant it, see `low_frequency_image`.
        max_soft: share of pixels on either side of the mask's edge over which it falls from 1 to 0; 0 for a binary
            mask. Never more than the smaller of the two images' shares.
    """

    alpha: float = 1.0
    decay: float = 3.0
    spectrum: str = "reference"
    max_soft: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("alpha", self.alpha)
        check_number("decay", self.decay, 0, 50)  # beyond it powers of the lowest frequency overflow
        check_choice("spectrum", self.spectrum, SPECTRA)
        check_probability("max_soft", self.max_soft)

    def check_shape(self, shape: tuple[int, ...]) -> None:
        super().check_shape(shape)
        if self.spectrum == "reference" and shape[-2] < 2:
            raise ValueError(
                f"the reference spectrum needs images of 2 rows or more, not {shape[-2]}: use spectrum='full'"
            )

    def draw_mixed(self, partner: Tensor, shape: tuple[int, ...], generator: torch.Generator) -> FMixDraws:
        own_weight = draw_beta(self.alpha, 1, generator)
        return FMixDraws(partner, own_weight, self.draw_mask(shape[-2], shape[-1], own_weight, generator))

    def mix(self, images: Tensor, labels: Tensor, draws: FMixDraws, model: Any) -> MixedBatch:
        size, partner, own = len(images), draws.partner, draws.mask.to(images.device).expand(1, 1, -1, -1)
        hard = self.max_soft == 0
        mixed = mix_by_mask(images, partner, own > 0) if hard else blend(images, images[partner], own)
        weight, mask = draws.own_weight.expand(size), own.expand(size, -1, -1, -1)
        return record(mixed, labels, partner, weight, Kind.MASK, mask=mask)

    def draw_mask(self, height: int, width: int, own_weight: Tensor, generator: torch.Generator) -> Tensor:
        """One mask [H, W] float32 in [0, 1] with the share `own_weight` [1] float64 of ones, up to rounding."""
        image = low_frequency_image(height, width, self.decay, self.spectrum, generator).flatten()
        share, pixels = float(own_weight), height * width
        count = own_weight * pixels
        ones = int(torch.where(draw_uniform(1, generator) < 0.5, count.ceil(), count.floor()))
        soft = int(pixels * min(self.max_soft, share, 1 - share))
        first, last = max(0, ones - soft), min(pixels, ones + soft)
        mask = torch.zeros(pixels, device=image.device)
        if soft == 0:
            mask[image.topk(ones, sorted=False).indices] = 1
        else:
            brightest = image.topk(last).indices
            mask[brightest[:first]] = 1
            mask[brightest[first:]] = torch.linspace(1, 0, last - first, device=image.device)
        return mask.view(height, width)
