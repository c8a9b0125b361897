"""Cross entropy and the regulariser of softmax scores from one softmax: same values, a fraction of time and memory.

For eager use; under torch.compile and the transforms of torch.func the plain terms do the same.
"""

from typing import Any

import torch
from torch import Tensor

from lumix import functional
from lumix.batch import MixedBatch
from lumix.terms.base import Term
from lumix.terms.cross_entropy import CrossEntropy
from lumix.terms.regulariser import Regulariser

# torch's own compiled backward passes ask the same before they reuse memory.
graph_is_kept = torch._C._autograd._get_current_graph_task_keep_graph


def fits(terms: tuple[Term, ...]) -> bool:
    """Whether these are the terms that `fused_loss` computes: cross entropy, alone or with R of softmax scores."""
    if tuple(type(term) for term in terms) == (CrossEntropy, Regulariser):
        return terms[1].scores == "softmax"  # type: ignore[attr-defined]
    return tuple(type(term) for term in terms) == (CrossEntropy,)


def is_transformed() -> bool:
    """Whether torch.compile or a transform of torch.func looks on, which need the plain terms."""
    return torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()


def fused_loss(
    terms: tuple[Any, ...], logits: Tensor, batch: MixedBatch, own_weight: Tensor, active: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """The sum [B] of `terms` that `fits`, and its parts [B] by name, detached."""
    penalties = terms[1].penalties(batch, own_weight, active, logits.shape[-1]) if len(terms) == 2 else None
    loss, *parts = pair_loss(logits, batch.labels, batch.partner_labels, own_weight, penalties, terms[0].smoothing)
    return loss, {term.name: part for term, part in zip(terms, parts, strict=True)}


def pair_loss(
    logits: Tensor,
    labels: Tensor,
    partner_labels: Tensor,
    own_weight: Tensor,
    penalties: Tensor | None = None,
    smoothing: float = 0.0,
) -> tuple[Tensor, ...]:
    """`functional.soft_cross_entropy` and `functional.regulariser` together: (sum, cross entropy[, regulariser]), [B].

    Only the sum carries a gradient. One array of the size of the logits [B, C] is kept for the backward pass, which
    turns it into the gradient if the graph is not kept.

    Args:
        logits: [B, C].
        labels, partner_labels: [B] int64.
        own_weight: [B].
        penalties: [2, B] from `Regulariser.penalties`; None leaves the regulariser out.
        smoothing: as for `functional.soft_cross_entropy`.
    """
    index = torch.stack([labels, partner_labels])
    weights = torch.stack([own_weight, 1 - own_weight])
    if penalties is None:
        loss = _PairLoss.apply(logits, index, weights, None, smoothing)
        return loss, loss.detach()
    return _PairLoss.apply(logits, index, weights, penalties, smoothing)


class _PairLoss(torch.autograd.Function):
    """`pair_loss` with the pair as the first axis of `index`, `weights` and `penalties` [2, B].

    With c_k = -(1 - smoothing) w_k - y_k p_k on the pair, the gradient to z_j is the sum of c_k over the classes k of
    the pair that are j, minus smoothing / C, minus p_j times (the sum of c - smoothing).
    """

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, index: Tensor, weights: Tensor, penalties: Tensor | None, smoothing: float
    ) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        z = functional.at_least_float32(logits)
        p = torch.softmax(z, dim=-1)
        # log p = z - normaliser. The largest p is at least 1 / C: its logarithm is exact where those of others are not.
        normaliser = z.amax(dim=-1) - p.amax(dim=-1).log()
        cross_entropy = (weights * (take_pair(z, index) - normaliser)).sum(dim=0) * (smoothing - 1)
        if smoothing:
            cross_entropy = cross_entropy - smoothing * (z.mean(dim=-1) - normaliser)
        ctx.smoothing = smoothing
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(logits, index, weights, penalties, p)
        if penalties is None:
            return cross_entropy
        regulariser = (penalties * (1 - take_pair(p, index))).sum(dim=0)
        ctx.mark_non_differentiable(cross_entropy, regulariser)
        return cross_entropy + regulariser, cross_entropy, regulariser

    @staticmethod
    def backward(ctx: Any, upstream: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        if upstream is None:
            return (None,) * 5
        logits, index, weights, penalties, p = ctx.saved_tensors
        may_overwrite = not (torch.is_grad_enabled() or graph_is_kept())
        if torch.is_grad_enabled():  # a gradient of this gradient is wanted, which the kept p does not have
            p = torch.softmax(functional.at_least_float32(logits), dim=-1)
        smoothing = ctx.smoothing
        on_pair = (smoothing - 1) * weights
        to_weights = to_penalties = None
        if penalties is not None:
            p_pair = take_pair(p, index)
            on_pair = on_pair - penalties * p_pair
            to_penalties = upstream * (1 - p_pair) if ctx.needs_input_grad[3] else None
        if ctx.needs_input_grad[2]:
            to_weights = (smoothing - 1) * upstream * take_pair(functional.log_softmax(logits), index)
        on_pair, smoothed = (upstream * on_pair).to(p.dtype), (smoothing * upstream).to(p.dtype)
        total = (smoothed - on_pair.sum(dim=0)).unsqueeze(-1)
        gradient = p.mul_(total) if may_overwrite else p * total
        if smoothing:
            gradient = gradient.sub_((smoothed / logits.shape[-1]).unsqueeze(-1))
        gradient.scatter_add_(-1, index.t(), on_pair.t())
        return gradient.to(logits.dtype), None, to_weights, to_penalties, None


def take_pair(values: Tensor, index: Tensor) -> Tensor:
    """The entries [2, B] of the rows of `values` [B, C] that `index` [2, B] names."""
    return values.t().gather(0, index)
