"""Random lambda (LUMix, Table 12): every patch of the image is blended with a weight of its own."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lumix.batch import Kind, MixedBatch
from lumix.checks import check_choice, check_positive
from lumix.draws import PAIRINGS, draw_beta, draw_partners
from lumix.mixers.apply import record
from lumix.mixers.base import Mixer
from lumix.mixers.patches import patch_grid
from lumix.mixers.pixels import blend
from lumix.registry import register


@dataclass(frozen=True)
class RandomLambdaDraws:
    """Partners [B] int64, and the own weight [B, 1, rows, columns] float64 of each patch."""

    partner: Tensor
    own_weight: Tensor


@register("mixer", "random_lambda", "Random lambda", pixels="blend")
@dataclass(frozen=True)
class RandomLambda(Mixer):
    """Blend with one Beta(alpha, alpha) draw per patch; the label weight is the mean over patches (I-18).

    Attributes:
        alpha: above 0, the Mixup alpha of the recipe.
        patch: side of a patch in pixels.
        pairing: "permutation" or timm's "flip".
    """

    alpha: float = 0.8
    patch: int = 16
    pairing: str = "permutation"

    def __post_init__(self) -> None:
        check_positive("alpha", self.alpha)
        check_positive("patch", self.patch, whole=True)
        check_choice("pairing", self.pairing, PAIRINGS)

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> RandomLambdaDraws:
        self.check_shape(shape)
        rows, columns = patch_grid(shape[-2], shape[-1], self.patch)
        partner, _, _ = draw_partners(shape[0], "elem", self.pairing, generator)
        weight = draw_beta(self.alpha, shape[0] * rows * columns, generator)
        return RandomLambdaDraws(partner, weight.view(shape[0], 1, rows, columns))

    def apply(self, images: Tensor, labels: Tensor, draws: RandomLambdaDraws, model: Any = None) -> MixedBatch:
        labels = self.check_batch(images, labels, len(draws.partner))
        partner, grid = draws.partner.to(images.device), draws.own_weight.to(images.device)
        weights = grid.repeat_interleave(self.patch, dim=2).repeat_interleave(self.patch, dim=3)
        mixed = blend(images, images.index_select(0, partner), weights)
        return record(mixed, labels, partner, grid.mean(dim=(1, 2, 3)), Kind.BLEND)
