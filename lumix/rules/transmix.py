"""TransMix (Chen et al. 2022): label weights by area and by attention."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lumix.batch import MixedBatch
from lumix.checks import check_probability
from lumix.registry import register
from lumix.rules.attention import attended_weight
from lumix.rules.base import Rule


@register("rule", "transmix", "TransMix")
@dataclass(frozen=True)
class TransMixRule(Rule):
    """The weight by area and the weight by attention, averaged; blended and unmixed samples keep their weight.

    Attributes:
        share: of attention in the weight, 1/2 as published.
    """

    share: float = 0.5

    def __post_init__(self) -> None:
        check_probability("share", self.share)

    @property
    def needs_attention(self) -> bool:
        return True

    def perturbs(self, batch: MixedBatch) -> Tensor:
        return batch.is_cut()

    def weigh(
        self, logits: Tensor, batch: MixedBatch, draws: Tensor | None = None, attention: Tensor | None = None
    ) -> Tensor:
        """Own weights [B] float32; `attention` [B, patches] as for `attended_weight`."""
        own = (1 - self.share) * batch.own_weight + self.share * attended_weight(batch, attention)
        return torch.where(self.perturbs(batch), own, batch.own_weight)
