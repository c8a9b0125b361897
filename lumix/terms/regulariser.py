"""Regulariser: eta R, the second term of equation 6."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lumix import functional
from lumix.batch import MixedBatch
from lumix.checks import check_choice, check_number, check_probability
from lumix.registry import register


@register("term", "regulariser", "regulariser R")
@dataclass(frozen=True)
class Regulariser:
    """eta R with R of equations 7 and 8, for the samples that the rule perturbs.

    Attributes:
        eta: weight of R, at least 0 (I-6: the paper gives no value).
        smoothing: of the target, as for `CrossEntropy`.
        reading: "or" as in Algorithm 1, "and" as in equation 8 (I-5).
        scores: probabilities in R, "softmax" or "sigmoid" (I-17).
    """

    eta: float | Tensor = 1.0
    smoothing: float = 0.0
    reading: str = "or"
    scores: str = "softmax"
    name: ClassVar[str] = "regulariser"

    def __post_init__(self) -> None:
        check_probability("smoothing", self.smoothing)
        check_choice("reading", self.reading, ("or", "and"))
        check_choice("scores", self.scores, ("softmax", "sigmoid"))
        if not isinstance(self.eta, Tensor):
            check_number("eta", self.eta, 0)

    def __call__(self, logits: Tensor, batch: MixedBatch, own_weight: Tensor, active: Tensor) -> Tensor:
        z = functional.at_least_float32(logits)
        p = torch.sigmoid(z) if self.scores == "sigmoid" else torch.softmax(z, dim=-1)
        own, partner = self.penalties(batch, own_weight, active, logits.shape[-1])
        own_score, partner_score = functional.take(p, batch.labels), functional.take(p, batch.partner_labels)
        return own * (1 - own_score) + partner * (1 - partner_score)

    def penalties(self, batch: MixedBatch, own_weight: Tensor, active: Tensor, num_classes: int) -> Tensor:
        """eta y_k b_k [2, B] of both classes, by which 1 - p_k is multiplied; 0 where the rule does not perturb."""
        pair = batch.labels, batch.partner_labels
        targets = functional.pair_targets(*pair, own_weight, num_classes, self.smoothing)
        return self.eta * targets * (functional.indicator(pair[0] == pair[1], self.reading) & active)
