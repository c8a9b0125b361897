"""Random lambda (LUMix, Table 12): every patch of the image is blended with a weight of its own."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lumix.batch import Kind, MixedBatch
from lumix.checks import check_batch, check_choice, check_positive
from lumix.draws import PAIRINGS, draw_beta, draw_partners
from lumix.mixers.patches import patch_grid
from lumix.mixers.pixels import blend


@dataclass(frozen=True)
class RandomLambda:
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
        check_choice("pairing", self.pairing, PAIRINGS)

    def __call__(self, images: Tensor, labels: Tensor, generator: torch.Generator, model: Any = None) -> MixedBatch:
        check_batch(images, labels)
        size = len(images)
        rows, columns = patch_grid(images.shape[-2], images.shape[-1], self.patch)
        partner, _, _ = draw_partners(size, "elem", self.pairing, generator)
        grid = draw_beta(self.alpha, size * rows * columns, generator).view(size, 1, rows, columns).to(images.device)
        partner = partner.to(images.device)
        weights = grid.repeat_interleave(self.patch, dim=2).repeat_interleave(self.patch, dim=3)
        return MixedBatch(
            images=blend(images, images.index_select(0, partner), weights),
            labels=labels,
            partner_labels=labels[partner],
            own_weight=grid.mean(dim=(1, 2, 3)).to(torch.float32),
            partner=partner,
            kind=torch.full((size,), int(Kind.MIXUP), dtype=torch.uint8, device=images.device),
        )
