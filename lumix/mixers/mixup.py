"""Mixup (Zhang et al. 2018): the convex combination of two images, weighted by one draw from Beta(alpha, alpha)."""

from dataclasses import dataclass

import torch

from lumix.batch import Kind
from lumix.checks import check_positive
from lumix.mixers.base import ANY, PlannedMixer
from lumix.mixers.plan import Draws, draw_blends
from lumix.registry import register


@register("mixer", "mixup", "Mixup", pixels="blend")
@dataclass(frozen=True)
class Mixup(PlannedMixer):
    """Blend each image with its partner. `alpha` above 0 (timm and DeiT: 0.8); the rest as in `PlannedMixer`."""

    alpha: float = 0.8
    kinds = frozenset({Kind.BLEND})
    ndims = ANY

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("alpha", self.alpha)

    def draw_each(self, count: int, height: int, width: int, generator: torch.Generator) -> Draws:
        return draw_blends(self.alpha, count, generator)
