"""ResizeMix (Qin et al. 2020): the whole partner, made small, pasted into the own image."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lumix.batch import Kind, MixedBatch
from lumix.checks import check_choice, check_probability
from lumix.draws import draw_integers, draw_uniform
from lumix.mixers.apply import record
from lumix.mixers.base import BatchDraws, WholeBatchMixer
from lumix.mixers.boxes import visible_share
from lumix.registry import register

INTERPOLATIONS = ("nearest", "bilinear")


@dataclass(frozen=True)
class ResizeMixDraws(BatchDraws):
    """The box [4] int64 (top, bottom, left, right)."""

    box: Tensor


@register("mixer", "resizemix", "ResizeMix", pixels="cut")
@dataclass(frozen=True)
class ResizeMix(WholeBatchMixer):
    """Paste the partner, resized to a box of tau times the image's sides, into each image; one box per batch.

    The box lies around a uniform centre and is clipped at the border; the partner is resized to what is left of it, so
    its aspect changes there, as in the public code (the paper speaks of a random place inside the image). The own
    label keeps the share that stays visible. As the partner's pixels come from elsewhere, `moved` is set.

    Attributes:
        low, high: tau is uniform between them, 0 <= low <= high <= 1. A side below 2 pixels becomes 2.
        interpolation: "nearest" as published, or "bilinear".
    """

    low: float = 0.1
    high: float = 0.8
    interpolation: str = "nearest"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_probability("low", self.low)
        check_probability("high", self.high)
        if not 0 <= self.low <= self.high <= 1:
            raise ValueError(
                f"low and high must be shares of a side, 0 <= low <= high <= 1, not {self.low}, {self.high}"
            )
        check_choice("interpolation", self.interpolation, INTERPOLATIONS)

    def draw_mixed(self, partner: Tensor, shape: tuple[int, ...], generator: torch.Generator) -> ResizeMixDraws:
        return ResizeMixDraws(partner, self.draw_box(shape[-2], shape[-1], generator))

    def mix(self, images: Tensor, labels: Tensor, draws: ResizeMixDraws, model: Any) -> MixedBatch:
        top, bottom, left, right = draws.box.tolist()
        mixed = images.clone()
        mixed[:, :, top:bottom, left:right] = self.resize(images, bottom - top, right - left)[draws.partner]
        boxes = draws.box.to(images.device).expand(len(images), 4)
        weight = visible_share(boxes, *images.shape[-2:])
        return record(mixed, labels, draws.partner, weight, Kind.BOX, box=boxes, moved=True)

    def draw_box(self, height: int, width: int, generator: torch.Generator) -> Tensor:
        """One clipped box [4] int64 (top, bottom, left, right) of at least one pixel, on the generator's device."""
        lengths = torch.tensor([height, width], device=generator.device)
        share = self.low + (self.high - self.low) * draw_uniform(1, generator)
        centre = draw_integers(lengths, generator)
        half = (lengths * share).long().clamp(min=2) // 2
        start, end = (centre - half).clamp(min=0), torch.minimum(centre + half, lengths)
        return torch.stack([start, end], dim=1).flatten()

    def resize(self, images: Tensor, height: int, width: int) -> Tensor:
        """Images [B, C, height, width] in the dtype of `images`; computed in float32 where pixels are averaged."""
        if self.interpolation == "nearest":
            return F.interpolate(images, size=(height, width), mode="nearest")
        work = images if images.dtype in (torch.float32, torch.float64) else images.float()
        resized = F.interpolate(work, size=(height, width), mode="bilinear", align_corners=False)
        return (resized if images.is_floating_point() else resized.round_()).to(images.dtype)
