"""CrossEntropy: the first term of equation 6."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lumix import functional
from lumix.batch import MixedBatch
from lumix.checks import check_probability
from lumix.registry import register


@register("term", "cross_entropy", "mixed cross entropy")
@dataclass(frozen=True)
class CrossEntropy:
    """Cross entropy against the mixed labels (1 - lambda) Y1 + lambda Y2, the first term of equation 6.

    Attributes:
        smoothing: label smoothing in [0, 1], timm's convention, applied to both one-hots before mixing.
    """

    smoothing: float = 0.0
    name: ClassVar[str] = "cross_entropy"

    def __post_init__(self) -> None:
        check_probability("smoothing", self.smoothing)

    def __call__(self, logits: Tensor, batch: MixedBatch, own_weight: Tensor, active: Tensor) -> Tensor:
        log_p = functional.log_softmax(logits)
        pair = batch.labels, batch.partner_labels
        return functional.soft_cross_entropy(log_p, *pair, own_weight, self.smoothing)
