"""BinaryCrossEntropy: sigmoid cross entropy against the mixed labels (Table 11)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lumix import functional
from lumix.batch import MixedBatch
from lumix.checks import check_choice, check_probability
from lumix.registry import register


@register("term", "binary_cross_entropy", "binary cross entropy")
@dataclass(frozen=True)
class BinaryCrossEntropy:
    """Sigmoid cross entropy; samples that the rule perturbs always have soft targets, as a threshold would undo it.

    Attributes:
        smoothing: as for `CrossEntropy`.
        target: of the samples that the rule does not perturb: 1 for both classes ("twohot"), 1 where the mixed target
            exceeds `threshold` ("threshold", timm's), or the mixed target itself ("soft") (I-17).
        threshold: of the target "threshold", in [0, 1].
        reduction: "mean" over the classes as in timm, or "class_sum".
    """

    smoothing: float = 0.0
    target: str = "twohot"
    threshold: float = 0.2
    reduction: str = "mean"
    name: ClassVar[str] = "binary_cross_entropy"

    def __post_init__(self) -> None:
        check_probability("smoothing", self.smoothing)
        check_probability("threshold", self.threshold)
        check_choice("target", self.target, ("twohot", "threshold", "soft"))
        check_choice("reduction", self.reduction, ("mean", "class_sum"))

    def __call__(self, logits: Tensor, batch: MixedBatch, own_weight: Tensor, active: Tensor) -> Tensor:
        num_classes = logits.shape[-1]
        pair = batch.labels, batch.partner_labels
        soft = functional.pair_targets(*pair, own_weight, num_classes, self.smoothing)
        off = self.smoothing / num_classes
        unperturbed, rest = self._unperturbed(batch, soft, off)
        targets = torch.where(active, soft, unperturbed)
        others = torch.where(active, off, torch.full_like(soft[0], rest))
        total = functional.binary_cross_entropy(logits, *pair, targets, others)
        return total / num_classes if self.reduction == "mean" else total

    def _unperturbed(self, batch: MixedBatch, soft: Tensor, off: float) -> tuple[Tensor, float]:
        """Targets of the pair [2, B] and of every other class where the rule does not perturb."""
        if self.target == "twohot":
            # A class of weight 0 is not in the image and stays off.
            visible = torch.stack([batch.own_weight > 0, batch.own_weight < 1]) | (batch.labels == batch.partner_labels)
            return torch.full_like(soft, off).masked_fill(visible, 1 - self.smoothing + off), off
        if self.target == "threshold":
            return (soft > self.threshold).to(soft), float(off > self.threshold)
        return soft, off
