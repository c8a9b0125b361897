"""Decoupled: the lambda-free term of DM(CE) in Decoupled Mixup, which rewards both mixed classes."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lumix import functional
from lumix.batch import MixedBatch
from lumix.checks import check_choice, check_number
from lumix.registry import register


@register("term", "decoupled", "decoupled term of DM(CE)")
@dataclass(frozen=True)
class Decoupled:
    """eta L_DM with L_DM = -log phi[a|b] - log phi[b|a], beside `CrossEntropy`: together they are DM(CE).

    Same-class pairs have no such term, as nothing competes with their class, nor have images that show less than
    `VISIBLE` of either class, which would be pushed to a class that is not there. Label smoothing is no matter of this
    term, and a label rule changes it only where `exponent` or `terms` ask for the label weight.

    Attributes:
        eta: weight of the term, at least 0: 0.1 or 1 in the paper, see docs/method-card.md.
        exponent: eta is multiplied by the label weight of the class to this power: 0 is the paper's term, 1 and 0.5
            are read by the public configurations (D-7).
        terms: "both" classes, or only the one of "less" or of "more" label weight (D-7).
    """

    eta: float | Tensor = 1.0
    exponent: float = 0.0
    terms: str = "both"
    name: ClassVar[str] = "decoupled"
    VISIBLE: ClassVar[float] = 1e-3

    def __post_init__(self) -> None:
        check_number("exponent", self.exponent, 0)
        check_choice("terms", self.terms, ("both", "less", "more"))
        if not isinstance(self.eta, Tensor):
            check_number("eta", self.eta, 0)

    def __call__(self, logits: Tensor, batch: MixedBatch, own_weight: Tensor, active: Tensor) -> Tensor:
        pair = functional.decoupled(logits, batch.labels, batch.partner_labels)
        return (self.weights(batch, own_weight) * pair).sum(dim=0)

    def weights(self, batch: MixedBatch, own_weight: Tensor) -> Tensor:
        """Factor [2, B], or [B] where it is that of both, of -log phi of the own and of the partner class, detached."""
        shown = (batch.own_weight >= self.VISIBLE) & (batch.own_weight <= 1 - self.VISIBLE)
        factors = self.eta * (shown & (batch.labels != batch.partner_labels))
        if self.exponent:
            factors = factors * torch.stack([own_weight, 1 - own_weight]).detach() ** self.exponent
        if self.terms != "both":
            own_is_less = own_weight.detach() < 0.5
            chosen = own_is_less if self.terms == "less" else ~own_is_less
            factors = factors * torch.stack([chosen, ~chosen])
        return factors
