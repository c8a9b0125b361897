"""ResizeMix (Qin et al. 2020): the whole partner, made small, pasted into the own image."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lumix.batch import Kind, MixedBatch
from lumix.mixers.base import BatchDraws, WholeBatchMixer
from lumix.mixers.paste import mixed_batch, visible_share
from lumix.random import draw_integers, draw_uniform, moved, wide
from lumix.registry import register

SMALLEST, LARGEST = 0.1, 0.8  # tau is uniform between them


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
    """

    def draw_mixed(self, partner: Tensor, shape: tuple[int, ...], generator: torch.Generator) -> ResizeMixDraws:
        return ResizeMixDraws(partner, self.draw_box(shape[-2], shape[-1], generator))

    def mix(self, images: Tensor, labels: Tensor, draws: ResizeMixDraws, model: Any) -> MixedBatch:
        top, bottom, left, right = draws.box.tolist()
        mixed = images.clone()
        rows = nearest(images.shape[-2], bottom - top, images.device)
        columns = nearest(images.shape[-1], right - left, images.device)
        mixed[:, :, top:bottom, left:right] = images[:, :, rows.unsqueeze(1), columns][draws.partner]
        boxes = moved(draws.box, images.device).expand(len(images), 4)
        weight = visible_share(boxes, *images.shape[-2:])
        return mixed_batch(mixed, labels, draws.partner, weight, Kind.BOX, box=boxes, moved=True)

    def draw_box(self, height: int, width: int, generator: torch.Generator) -> Tensor:
        """One clipped box [4] int64 (top, bottom, left, right) of at least one pixel; sides below 2 pixels become 2."""
        lengths = torch.tensor([height, width], device=generator.device)
        share = SMALLEST + (LARGEST - SMALLEST) * draw_uniform(1, generator)
        centre = draw_integers(lengths, generator)
        half = (lengths * share).long().clamp(min=2) // 2
        start, end = (centre - half).clamp(min=0), torch.minimum(centre + half, lengths)
        return torch.stack([start, end], dim=1).flatten()


def nearest(length: int, count: int, device: torch.device) -> Tensor:
    """Which [count] int64 of `length` pixels torch's nearest interpolation takes, which knows few integer dtypes."""
    place = torch.arange(length, dtype=wide(device), device=device).view(1, 1, length)
    return F.interpolate(place, size=count, mode="nearest").long().flatten()
