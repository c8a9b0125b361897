"""RescaledBinaryCrossEntropy: DM(BCE) of Decoupled Mixup, whose two targets need not sum to 1."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lumix import functional
from lumix.batch import Kind, MixedBatch
from lumix.checks import check_choice, check_number
from lumix.registry import register


@register("term", "rescaled_binary_cross_entropy", "DM(BCE)")
@dataclass(frozen=True)
class RescaledBinaryCrossEntropy:
    """Sigmoid cross entropy with target r(lambda) at each class, r(lambda; t, xi) = min(1, lambda / t) ^ xi.

    t and xi go by the kind of each sample, so that a batch may be switched: blended or cut (all
    others). t = xi = 1 is MBCE (one), xi = 0 is MBCE (two). A same-class pair has one target, the sum of both and at
    most 1, and a class that the image does not show has target 0.

    Attributes:
        cut_t, cut_xi: of cut samples; t above 0, xi at least 0.
        blend_t, blend_xi: of blended samples.
        reduction: "class_sum" over the classes as in the public code, or "mean".
    """

    cut_t: float = 1.0
    cut_xi: float = 0.8
    blend_t: float = 0.5
    blend_xi: float = 1.0
    reduction: str = "class_sum"
    name: ClassVar[str] = "rescaled_binary_cross_entropy"

    def __post_init__(self) -> None:
        for name in ("cut_t", "blend_t"):
            check_number(name, getattr(self, name), 0, open_low=True)
        for name in ("cut_xi", "blend_xi"):
            check_number(name, getattr(self, name), 0)
        check_choice("reduction", self.reduction, ("mean", "class_sum"))

    def __call__(self, logits: Tensor, batch: MixedBatch, own_weight: Tensor, active: Tensor) -> Tensor:
        pair = batch.labels, batch.partner_labels
        total = functional.binary_cross_entropy(
            logits, *pair, self.targets(batch, own_weight), torch.zeros_like(own_weight)
        )
        return total / logits.shape[-1] if self.reduction == "mean" else total

    def targets(self, batch: MixedBatch, own_weight: Tensor) -> Tensor:
        """The targets [2, B] in [0, 1] of the own and of the partner class."""
        blended = batch.kind == int(Kind.BLEND)
        t = torch.where(blended, self.blend_t, self.cut_t)
        xi = torch.where(blended, self.blend_xi, self.cut_xi)
        weights = torch.stack([own_weight, 1 - own_weight])
        shown = torch.stack([batch.own_weight, 1 - batch.own_weight]) > 0
        own, partner = torch.where(shown, functional.rescale(weights, t, xi), 0)
        same = batch.labels == batch.partner_labels
        return torch.stack([torch.where(same, (own + partner).clamp(max=1), own), partner])
