"""CutMix (Yun et al. 2019): a rectangle of the partner pasted into the own image, weighted by what remains visible."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lumix.batch import Kind
from lumix.checks import check_choice, check_flag, check_numbers, check_positive
from lumix.draws import draw_beta, draw_integers, draw_uniform
from lumix.mixers.base import ANY, PlannedMixer
from lumix.mixers.boxes import BOX_RULES, box_around, is_one, visible_share
from lumix.mixers.plan import Draws
from lumix.registry import register


@register("mixer", "cutmix", "CutMix", pixels="cut")
@dataclass(frozen=True)
class CutMix(PlannedMixer):
    """Paste a box of the partner into each image; mode, pairing and prob as in `PlannedMixer`.

    Attributes:
        alpha: of the Beta that the box's share is drawn from, above 0; 1 is uniform.
        minmax: instead of alpha, smallest and largest side as a share of the image's (timm's cutmix_minmax).
        box_rule: "legacy" or "full", see `lumix.mixers.boxes`.
        correct_lam: weight the labels by the box after clipping at the border; with False by the share drawn.
    """

    alpha: float = 1.0
    minmax: tuple[float, float] | None = None
    box_rule: str = "legacy"
    correct_lam: bool = True
    kinds = frozenset({Kind.BOX})
    ndims = ANY

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("alpha", self.alpha)
        check_choice("box_rule", self.box_rule, BOX_RULES)
        check_flag("correct_lam", self.correct_lam)
        if self.minmax is not None:
            check_numbers("minmax", self.minmax)
            if not (len(self.minmax) == 2 and 0 <= self.minmax[0] < self.minmax[1] <= 1):
                raise ValueError(
                    f"minmax must be two shares of a side, 0 <= smallest < largest <= 1, not {self.minmax!r}"
                )

    def draw_each(self, count: int, height: int, width: int, generator: torch.Generator) -> Draws:
        weight = draw_beta(self.alpha, count, generator)
        if self.minmax is not None:
            box = self._draw_box_between(count, height, width, generator)
        else:
            sides = torch.tensor([height, width], device=generator.device).repeat(count)
            centre = draw_integers(sides, generator).view(count, 2)
            box = box_around(weight, centre, height, width, self.box_rule)
        if self.correct_lam or self.minmax is not None:
            weight = visible_share(box, height, width)
        kind = torch.full((count,), int(Kind.BOX), dtype=torch.uint8, device=generator.device)
        return Draws(weight, kind, box)

    def _draw_box_between(self, count: int, height: int, width: int, generator: torch.Generator) -> Tensor:
        assert self.minmax is not None
        edges: list[Any] = []
        for length in (height, width):
            if length == 1 < max(height, width):  # a signal is cut along its length alone
                whole = torch.tensor([[0], [1]], device=generator.device).expand(2, count)
                edges += whole[:, 0].tolist() if is_one(whole[0]) else whole.unbind()
                continue
            low, high = (int(length * share) for share in self.minmax)
            if high <= low:
                raise ValueError(f"minmax {self.minmax} leaves no whole pixel for a side of {length}")
            side = low + self._draw_below(high - low, count, generator)
            # The legacy rule never lets a box touch the lower or right border.
            start = self._draw_below(length - side + (self.box_rule == "full"), count, generator)
            edges += [start, start + side]
        return torch.stack(edges, dim=1) if isinstance(edges[0], Tensor) else torch.tensor([edges])

    @staticmethod
    def _draw_below(high: Any, count: int, generator: torch.Generator) -> Any:
        """Uniform on 0 .. high - 1: an int where `is_one`, else [D] int64."""
        drawn = draw_uniform(count, generator)
        if is_one(drawn):
            return min(int(drawn.item() * high), high - 1)
        return (drawn * high).long().clamp(max=high - 1)
