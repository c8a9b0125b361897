"""MixLoss: equation 6 of LUMix, from logits and a MixedBatch to a scalar, by class index throughout."""

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from operator import add
from typing import Any

import torch
from torch import Tensor, nn

from lumix.batch import Kind, MixedBatch
from lumix.checks import check_number, check_part, check_probability, shown
from lumix.inputs import IGNORED, logits_of
from lumix.rules.area import AreaRule
from lumix.rules.base import Rule
from lumix.terms import fused, fused_rest
from lumix.terms.base import Term
from lumix.terms.cross_entropy import CrossEntropy
from lumix.terms.regulariser import Regulariser


class MixLoss(nn.Module):
    """A sum of terms with the weights of a label rule; by default equation 6, cross entropy + eta R.

    Args:
        rule: gives the own weight [B]; `AreaRule` (default) is the ordinary mixed loss, `LUMixRule` is LUMix.
        terms: of `lumix.terms`, or any `Term`; None is `CrossEntropy(smoothing)`, and `Regulariser(eta, smoothing)`
            where eta is not 0.
        smoothing: label smoothing in [0, 1], timm's convention, for terms=None.
        eta: weight of R, at least 0, for terms=None; R applies to the samples that the rule perturbs.
        ignore_index: label of samples without a class, as in torch's cross entropy. Those whose own label it is, or
            into which a partner of this label was mixed, add nothing, and the mean is that of the others.

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
        ignore_index: int = IGNORED,
    ) -> None:
        super().__init__()
        check_probability("smoothing", smoothing)
        if not isinstance(eta, Tensor):
            check_number("eta", eta, 0)
        check_number("ignore_index", ignore_index, whole=True)
        if rule is not None:
            check_part("rule", rule, ("draw", "weigh", "perturbs"), "a label rule as AreaRule()")
        has_eta = isinstance(eta, Tensor) or eta != 0
        if terms is None:
            regulariser = (Regulariser(eta, smoothing),) if has_eta else ()
            terms = (CrossEntropy(smoothing), *regulariser)
        elif smoothing or has_eta:
            raise ValueError(f"terms have their own settings: give smoothing={smoothing!r} and eta={eta!r} to them")
        if not isinstance(terms, Sequence) or isinstance(terms, str):
            raise ValueError(f"terms must be a sequence of loss terms, not {shown(terms)}: use [CrossEntropy()]")
        for term in terms:
            check_part("each of terms", term, ("__call__",), "a loss term as CrossEntropy()")
        names = [term.name for term in terms]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"a loss needs at least one term, and terms of different names, not {names}")
        self.rule: Rule = rule if rule is not None else AreaRule()
        self.terms = tuple(terms)
        self.ignore_index = ignore_index
        self._fused = next((way.fused_loss for way in (fused, fused_rest) if way.fits(self.terms)), None)

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
        logits = logits_of(logits)
        counts = self.counts(batch)
        draws = self.draw(batch, generator)
        batch = self._labelled(batch, counts)
        loss = self._losses(logits, batch, self._weights(logits, batch, draws, attention), counts)[0]
        if counts is None:
            return loss.mean()
        # A factor of exactly 1 where all samples count; NaN, as in torch, where none does.
        return loss.mean() * (len(loss) / counts.sum())

    def counts(self, batch: MixedBatch) -> Tensor | None:
        """[B] bool, the samples that no `ignore_index` takes from the loss; None where the CPU saw that all count."""
        if not isinstance(batch, MixedBatch):
            raise ValueError(
                f"batch must be the MixedBatch of a mixer, not a {type(batch).__name__}: plain labels go to torch's "
                "cross entropy, and the targets of lumix.integrations.timm.Mixup to the Criterion there"
            )
        own, partner = batch.labels == self.ignore_index, batch.partner_labels == self.ignore_index
        if own.device.type == "cpu" and not fused.is_transformed() and not (own.any() or partner.any()):
            return None
        return ~(own | (partner & (batch.kind != int(Kind.NONE))))

    def _labelled(self, batch: MixedBatch, counts: Tensor | None) -> MixedBatch:
        """The batch with class 0 in place of `ignore_index`."""
        if counts is None:
            return batch
        own, partner = (
            labels.masked_fill(labels == self.ignore_index, 0) for labels in (batch.labels, batch.partner_labels)
        )
        return replace(batch, labels=own, partner_labels=partner)

    def draw(self, batch: MixedBatch, generator: torch.Generator | None) -> Tensor | None:
        """The rule's draws [B] for a whole batch, or None; to be sliced where the batch is."""
        return self.rule.draw(batch, generator)

    def weights(
        self, logits: Tensor, batch: MixedBatch, draws: Tensor | None = None, attention: Tensor | None = None
    ) -> Tensor:
        """The rule's own weights [B] for this batch, to be passed to `per_sample`."""
        return self._weights(logits, self._labelled(batch, self.counts(batch)), draws, attention)

    def _weights(self, logits: Tensor, batch: MixedBatch, draws: Tensor | None, attention: Tensor | None) -> Tensor:
        if batch.hidden is not None and not batch.hidden.done:
            raise ValueError(
                f"this batch is to be mixed inside the network, behind {batch.hidden.name!r}, and was not: call the "
                "network within `with lumix.hidden_mixing(model, batch):`"
            )
        if logits.ndim == 1 or logits.shape[-1] == 1:
            raise ValueError(
                f"logits must be [B, C] for C = 2 classes or more, not of shape {list(logits.shape)}: give one logit "
                "z [B, 1] of two classes as torch.cat([torch.zeros_like(z), z], dim=1), which has its probabilities"
            )
        if logits.shape[:-1] != batch.labels.shape:
            raise ValueError(f"logits must be [B, C] with B = {len(batch)}, not of shape {list(logits.shape)}")
        try:
            return self.rule.weigh(logits, batch, draws, attention)
        except (IndexError, RuntimeError) as error:
            raise _explain(error, logits, batch) from error

    def per_sample(self, logits: Tensor, batch: MixedBatch, own_weight: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss [B] for given own weights [B], equation 6 before the mean, and its parts [B] by name, detached.

        Samples of `ignore_index` have 0, see `counts`.
        """
        counts = self.counts(batch)
        return self._losses(logits, self._labelled(batch, counts), own_weight, counts)

    def _losses(
        self, logits: Tensor, batch: MixedBatch, own_weight: Tensor, counts: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        active = self.rule.perturbs(batch)
        try:
            if self._fused is not None and not fused.is_transformed():
                loss, parts = self._fused(self.terms, logits, batch, own_weight, active)
            else:
                parts = {term.name: term(logits, batch, own_weight, active) for term in self.terms}
                loss = reduce(add, parts.values())
        except (IndexError, RuntimeError) as error:
            raise _explain(error, logits, batch) from error
        parts = {name: value.detach() for name, value in parts.items()}
        if counts is None:
            return loss, parts
        return torch.where(counts, loss, 0), {name: torch.where(counts, value, 0) for name, value in parts.items()}

    def extra_repr(self) -> str:
        return f"rule={self.rule}, terms={self.terms}"


def _explain(error: Exception, logits: Tensor, batch: MixedBatch) -> Exception:
    """`error`, or a clearer one where labels out of range are its cause."""
    if "out of bounds" not in str(error):
        return error
    labels, classes = torch.cat([batch.labels, batch.partner_labels]), logits.shape[-1]
    return ValueError(
        f"labels must lie in 0 .. {classes - 1} for logits of {classes} classes, "
        f"not {int(labels.min())} .. {int(labels.max())}; samples without a class have ignore_index"
    )
