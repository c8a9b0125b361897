"""AreaRule: the ordinary label weight of a mixed image."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lumix.batch import MixedBatch
from lumix.registry import register
from lumix.rules.base import Rule


@register("rule", "area", "area")
@dataclass(frozen=True)
class AreaRule(Rule):
    """The visible area, or the blend weight, of the own image: 1 - lambda_0."""

    def weigh(
        self, logits: Tensor, batch: MixedBatch, draws: Tensor | None = None, attention: Tensor | None = None
    ) -> Tensor:
        return batch.own_weight

    def perturbs(self, batch: MixedBatch) -> Tensor:
        return torch.zeros_like(batch.kind, dtype=torch.bool)
