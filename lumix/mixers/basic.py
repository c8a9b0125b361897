"""Mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019)."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lumix.batch import Kind
from lumix.inputs import Positive
from lumix.mixers.base import ANY, PlannedMixer
from lumix.mixers.paste import Draws, box_around, boxes_drawn, draw_blends, visible_share
from lumix.random import draw_beta, draw_integers
from lumix.registry import register


@register("mixer", "mixup", "Mixup", pixels="blend")
@dataclass(frozen=True)
class Mixup(PlannedMixer):
    """Blend images with partners, lambda x_own + (1 - lambda) x_partner, lambda from Beta(alpha, alpha), as in DeiT."""

    alpha: Positive = 0.8
    kinds = frozenset({Kind.BLEND})
    ndims = ANY

    def draw_each(self, count: int, height: int, width: int, generator: torch.Generator) -> Draws:
        return draw_blends(self.alpha, count, generator)


@register("mixer", "cutmix", "CutMix", pixels="cut")
@dataclass(frozen=True)
class CutMix(PlannedMixer):
    """LUMix, equations 1 and 2: paste a box of the partner; the own label keeps the share that is visible.

    Attributes:
        alpha: of the Beta that the box's share is drawn from; 1 is uniform.
        minmax: instead of alpha, smallest and largest side as a share of the image's (timm's cutmix_minmax).
        box_rule: "legacy" or "full", see `box_around`.
        correct_lam: weight the labels by the box after clipping at the border; with False by the share drawn.
    """

    alpha: Positive = 1.0
    minmax: tuple[float, float] | None = None
    box_rule: Literal["legacy", "full"] = "legacy"
    correct_lam: bool = True
    kinds = frozenset({Kind.BOX})
    ndims = ANY

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.minmax is not None and not 0 <= self.minmax[0] < self.minmax[1] <= 1:
            raise ValueError(f"minmax must be two shares of a side, 0 <= smallest < largest <= 1, not {self.minmax!r}")
        if self.minmax is not None:
            self.refuse("minmax", "alpha", "correct_lam")

    def draw_each(self, count: int, height: int, width: int, generator: torch.Generator) -> Draws:
        weight = draw_beta(self.alpha, count, generator)
        if self.minmax is not None:
            box = self._draw_box_between(*self.minmax, count, height, width, generator)
        else:
            sides = torch.tensor([height, width], device=generator.device).repeat(count)
            centre = draw_integers(sides, generator).view(count, 2)
            box = box_around(weight, centre, height, width, self.box_rule)
        drawn = not self.correct_lam and self.minmax is None
        return boxes_drawn(weight if drawn else visible_share(box, height, width), box)

    def _draw_box_between(
        self, smallest: float, largest: float, count: int, height: int, width: int, generator: torch.Generator
    ) -> Tensor:
        edges: list[Tensor] = []
        for length in (height, width):
            one = torch.ones(count, dtype=torch.int64, device=generator.device)
            if length == 1 < max(height, width):  # a signal is cut along its length alone
                edges += [0 * one, one]
                continue
            low, high = int(length * smallest), int(length * largest)
            if high <= low:
                raise ValueError(f"minmax {self.minmax} leaves no whole pixel for a side of {length}")
            side = low + draw_integers((high - low) * one, generator)
            # The legacy rule never lets a box touch the lower or right border.
            start = draw_integers(length - side + (self.box_rule == "full"), generator)
            edges += [start, start + side]
        return torch.stack(edges, dim=1)
