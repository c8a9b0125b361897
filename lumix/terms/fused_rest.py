"""DM(CE), with the regulariser where it is asked for, from one softmax over the classes outside the pair.

With r the log of the sum of exp(z_c) outside the pair, every term is a function of z_a, z_b and r: the plain terms'
values for the time of about one cross entropy. Used like `lumix.terms.fused`.
"""

from typing import Any

import torch
from torch import Tensor

from lumix import functional
from lumix.batch import MixedBatch
from lumix.terms.base import Term
from lumix.terms.cross_entropy import CrossEntropy
from lumix.terms.decoupled import Decoupled
from lumix.terms.fused import graph_is_kept, take_pair
from lumix.terms.regulariser import Regulariser


def fits(terms: tuple[Term, ...]) -> bool:
    """Whether these are the terms that `fused_loss` computes: cross entropy, R of softmax scores or not, decoupled."""
    kinds = tuple(type(term) for term in terms)
    if kinds == (CrossEntropy, Regulariser, Decoupled):
        return terms[1].scores == "softmax"  # type: ignore[attr-defined]
    return kinds == (CrossEntropy, Decoupled)


def fused_loss(
    terms: tuple[Any, ...], logits: Tensor, batch: MixedBatch, own_weight: Tensor, active: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """The sum [B] of `terms` that `fits`, and its parts [B] by name, detached."""
    cross_entropy, *regularisers, decoupled = terms
    index = torch.stack([batch.labels, batch.partner_labels])
    smoothing = cross_entropy.smoothing
    pair, rest, mean = _Rest.apply(logits, index, smoothing > 0)
    once = torch.stack([pair[0], pair[1].masked_fill(index[0] == index[1], torch.finfo(pair.dtype).min)])
    normaliser = torch.logsumexp(torch.cat([once, rest.unsqueeze(0)]), dim=0)
    weights = torch.stack([own_weight, 1 - own_weight])
    mixed = normaliser - (weights * pair).sum(dim=0)
    if smoothing:
        mixed = (1 - smoothing) * mixed + smoothing * (normaliser - mean)
    parts = {cross_entropy.name: mixed}
    for regulariser in regularisers:
        penalties = regulariser.penalties(batch, own_weight, active, logits.shape[-1])
        parts[regulariser.name] = (penalties * (1 - torch.exp(pair - normaliser))).sum(dim=0)
    apart = torch.nn.functional.softplus(rest - pair)
    parts[decoupled.name] = (decoupled.weights(batch, own_weight) * apart).sum(dim=0)
    return sum(parts.values(), torch.zeros_like(rest)), {name: part.detach() for name, part in parts.items()}


class _Rest(torch.autograd.Function):
    """Logits of the pair [2, B], `functional.rest` [B] and, if wanted, the mean of all logits [B].

    Keeps one array [B, C], the softmax outside the pair, which the backward pass turns into the gradient if the graph
    is not kept.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, index: Tensor, with_mean: bool) -> tuple[Tensor, Tensor, Tensor | None]:
        z = functional.at_least_float32(logits)
        others = functional.without_pair(z, index)
        softmax = torch.softmax(others, dim=-1)
        ctx.save_for_backward(logits, index, softmax)
        # The largest share is at least 1 / C: its logarithm is exact where those of others are not.
        rest = others.amax(dim=-1) - softmax.amax(dim=-1).log()
        return take_pair(z, index), rest, z.mean(dim=-1) if with_mean else None

    @staticmethod
    def backward(ctx: Any, to_pair: Tensor, to_rest: Tensor, to_mean: Tensor | None) -> tuple[Tensor, None, None]:
        logits, index, softmax = ctx.saved_tensors
        may_overwrite = not (torch.is_grad_enabled() or graph_is_kept())
        if torch.is_grad_enabled():  # a gradient of this gradient is wanted, which the kept softmax does not have
            softmax = torch.softmax(functional.without_pair(logits, index), dim=-1)
        scale = to_rest.unsqueeze(-1)
        gradient = softmax.mul_(scale) if may_overwrite else softmax * scale
        if to_mean is not None:
            gradient = gradient.add_((to_mean / logits.shape[-1]).unsqueeze(-1))
        return gradient.scatter_add_(-1, index.t(), to_pair.t()).to(logits.dtype), None, None
