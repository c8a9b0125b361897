"""MixLoss: equation 6 of LUMix, from logits and a MixedBatch to a scalar, by class index throughout."""

from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import Any

import torch
from torch import Tensor, nn

from lumix.batch import MixedBatch
from lumix.checks import logits_of
from lumix.rules.area import AreaRule
from lumix.rules.base import Rule
from lumix.terms.base import Term
from lumix.terms.cross_entropy import CrossEntropy
from lumix.terms.fused import fits, fused_loss, is_transformed
from lumix.terms.regulariser import Regulariser


class MixLoss(nn.Module):
    """A sum of terms with the weights of a label rule; by default equation 6, cross entropy + eta R.

    Args:
        rule: gives the own weight [B]; `AreaRule` (default) is the ordinary mixed loss, `LUMixRule` is LUMix.
        terms: of `lumix.terms`, or any `Term`; None is `CrossEntropy(smoothing)`, and `Regulariser(eta, smoothing)`
            where eta is not 0.
        smoothing: label smoothing in [0, 1], timm's convention, for terms=None.
        eta: weight of R, at least 0, for terms=None; R applies to the samples that the rule perturbs.

    Raises:
        ValueError: for terms together with smoothing or eta, for no terms, or for two of one name.
    """

    def __init__(
        self,
        rule: Rule | None = None,
        terms: Sequence[Term] | None = None,
        *,
        smoothing: float = 0.0,
        eta: float | Tensor = 0.0,
    ) -> None:
        super().__init__()
        has_eta = isinstance(eta, Tensor) or eta != 0
        if terms is None:
            regulariser = (Regulariser(eta, smoothing),) if has_eta else ()
            terms = (CrossEntropy(smoothing), *regulariser)
        elif smoothing or has_eta:
            raise ValueError(f"terms have their own settings: give smoothing={smoothing!r} and eta={eta!r} to them")
        names = [term.name for term in terms]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"a loss needs at least one term, and terms of different names, not {names}")
        self.rule: Rule = rule if rule is not None else AreaRule()
        self.terms = tuple(terms)
        self._fuses = fits(self.terms)

    @property
    def smoothing(self) -> float:
        """Label smoothing of the first term."""
        return getattr(self.terms[0], "smoothing", 0.0)

    def forward(
        self,
        logits: Any,
        batch: MixedBatch,
        generator: torch.Generator | None = None,
        attention: Tensor | None = None,
    ) -> Tensor:
        """Mean loss over the batch, a float32 scalar; logits [B, C] of any floating dtype, or an output with `logits`.

        Raises:
            ValueError: for an output without logits, or a batch that is no MixedBatch or was to be mixed inside the
                network and was not; on the CPU, for labels outside 0 .. C - 1; where the rule draws and no generator
                is given, or reads `attention` [B, patches] and none is given.
        """
        if not isinstance(batch, MixedBatch):
            raise ValueError(
                f"batch must be the MixedBatch of a mixer, not a {type(batch).__name__}: plain labels go to torch's "
                "cross entropy, and the targets of lumix.integrations.timm.Mixup to the Criterion there"
            )
        logits = logits_of(logits)
        weight = self.weights(logits, batch, self.draw(batch, generator), attention)
        return self.per_sample(logits, batch, weight)[0].mean()

    def draw(self, batch: MixedBatch, generator: torch.Generator | None) -> Tensor | None:
        """The rule's draws [B] for a whole batch, or None; to be sliced where the batch is."""
        return self.rule.draw(batch, generator)

    def weights(
        self, logits: Tensor, batch: MixedBatch, draws: Tensor | None = None, attention: Tensor | None = None
    ) -> Tensor:
        """The rule's own weights [B] for this batch, to be passed to `per_sample`."""
        if batch.hidden is not None and not batch.hidden.done:
            raise ValueError(
                f"this batch is to be mixed inside the network, behind {batch.hidden.name!r}, and was not: call the "
                "network within `with lumix.hidden_mixing(model, batch):`"
            )
        if logits.shape[:-1] != batch.labels.shape:
            raise ValueError(f"logits must be [B, C] with B = {len(batch)}, not of shape {list(logits.shape)}")
        try:
            return self.rule.weigh(logits, batch, draws, attention)
        except (IndexError, RuntimeError) as error:
            raise _explain(error, logits, batch) from error

    def per_sample(self, logits: Tensor, batch: MixedBatch, own_weight: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss [B] for given own weights [B], equation 6 before the mean, and its parts [B] by name, detached."""
        active = self.rule.perturbs(batch)
        try:
            if self._fuses and not is_transformed():
                return fused_loss(self.terms, logits, batch, own_weight, active)
            values = {term.name: term(logits, batch, own_weight, active) for term in self.terms}
        except (IndexError, RuntimeError) as error:
            raise _explain(error, logits, batch) from error
        return reduce(add, values.values()), {name: value.detach() for name, value in values.items()}

    def extra_repr(self) -> str:
        return f"rule={self.rule}, terms={self.terms}"


def _explain(error: Exception, logits: Tensor, batch: MixedBatch) -> Exception:
    """`error`, or a clearer one where labels out of range are its cause."""
    if "out of bounds" not in str(error):
        return error
    labels, classes = torch.cat([batch.labels, batch.partner_labels]), logits.shape[-1]
    return ValueError(
        f"labels must lie in 0 .. {classes - 1} for logits of {classes} classes, "
        f"not {int(labels.min())} .. {int(labels.max())}"
    )
