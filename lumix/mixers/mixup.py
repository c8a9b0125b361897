"""Mixup (Zhang et al. 2018): the convex combination of two images, weighted by one draw from Beta(alpha, alpha)."""

from dataclasses import dataclass

import torch

from lumix.batch import Kind
from lumix.checks import check_positive
from lumix.draws import draw_beta
from lumix.mixers.base import PlannedMixer
from lumix.mixers.plan import Draws


@dataclass(frozen=True)
class Mixup(PlannedMixer):
    """Blend each image with its partner. `alpha` above 0 (timm and DeiT: 0.8); the rest as in `PlannedMixer`."""

    alpha: float = 0.8

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("alpha", self.alpha)

    @property
    def kinds(self) -> frozenset[Kind]:
        return frozenset({Kind.MIXUP})

    def draw(self, count: int, height: int, width: int, generator: torch.Generator) -> Draws:
        weight = draw_beta(self.alpha, count, generator)
        kind = torch.full((count,), int(Kind.MIXUP), dtype=torch.uint8, device=generator.device)
        box = torch.zeros((count, 4), dtype=torch.int64, device=generator.device)
        return Draws(weight, kind, box)
