"""Rule: what every label rule has, draws apart from weights."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from lumix.batch import MixedBatch


class Rule(ABC):
    """Gives the weight [B] of each sample's own label; the partner's label has the rest.

    What is random is drawn once for the whole batch (`draw`), and the batch may then be weighed part by part (`weigh`,
    with the draws sliced like the batch): the number of parts changes no weight. A call does both.
    """

    @property
    def needs_attention(self) -> bool:
        """Whether `weigh` reads the class token's attention, which `training.attention` records."""
        return False

    def draw(self, batch: MixedBatch, generator: torch.Generator | None) -> Tensor | None:
        """All that is random about the weights of this batch: [B] on its device, None for a rule that draws nothing."""
        return None

    @abstractmethod
    def weigh(
        self, logits: Tensor, batch: MixedBatch, draws: Tensor | None = None, attention: Tensor | None = None
    ) -> Tensor:
        """Own weights [B], float32 or wider.

        Args:
            logits: [B, C] of the mixed images.
            batch: the B samples.
            draws: [B] from `draw`, or given.
            attention: [B, P] of the class token on the P patches of the mixed images, from the forward pass that gave
                the logits.
        """

    @abstractmethod
    def perturbs(self, batch: MixedBatch) -> Tensor:
        """[B] bool: the samples that the method, and with it the regulariser, applies to."""

    def __call__(
        self,
        logits: Tensor,
        batch: MixedBatch,
        generator: torch.Generator | None = None,
        attention: Tensor | None = None,
    ) -> Tensor:
        """Own weights [B] by draws from `generator`."""
        return self.weigh(logits, batch, self.draw(batch, generator), attention)
