"""Term: what a loss needs of each of its parts."""

from typing import Protocol

from torch import Tensor

from lumix.batch import MixedBatch


class Term(Protocol):
    """A part of a loss. Without branches on data, so that it runs under torch.compile and torch.func.vmap."""

    @property
    def name(self) -> str:
        """Names the part in logs; differs from those of the other terms."""
        ...

    def __call__(self, logits: Tensor, batch: MixedBatch, own_weight: Tensor, active: Tensor) -> Tensor:
        """Value [B], float32 or wider.

        Args:
            logits: [B, C] of the mixed images, of any floating dtype.
            batch: the B samples.
            own_weight: [B] weights of the own labels, from the rule; a constant unless it carries a gradient.
            active: [B] bool, the samples that the rule perturbs.
        """
        ...
