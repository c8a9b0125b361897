"""MixLoss, equation 6 of LUMix and its kin: a sum of terms of logits and a MixedBatch, by class index throughout."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import reduce
from operator import add
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn

from lumix import functional, inputs
from lumix.batch import Kind, MixedBatch
from lumix.inputs import IGNORED, Checked, NotNegative, Positive, Share, check_part, checked, logits_of, shown
from lumix.registry import register
from lumix.rules import AreaRule, Rule

# ------------------------------------------------------------------------------------------------- terms


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


@register("term", "cross_entropy", "mixed cross entropy")
@dataclass(frozen=True)
class CrossEntropy(Checked):
    """Cross entropy against the mixed labels (1 - lambda) Y1 + lambda Y2, the first term of equation 6.

    Attributes:
        smoothing: label smoothing in [0, 1], timm's convention, applied to both one-hots before mixing.
    """

    smoothing: Share = 0.0
    name: ClassVar[str] = "cross_entropy"

    def __call__(self, logits: Tensor, batch: MixedBatch, own_weight: Tensor, active: Tensor) -> Tensor:
        log_p = functional.log_softmax(logits)
        return functional.soft_cross_entropy(log_p, batch.labels, batch.partner_labels, own_weight, self.smoothing)


@register("term", "regulariser", "regulariser R")
@dataclass(frozen=True)
class Regulariser(Checked):
    """eta R, the second term of equation 6, with R of equations 7 and 8, for the samples that the rule perturbs.

    Attributes:
        eta: weight of R (I-6: the paper gives no value).
        smoothing: of the target, as for `CrossEntropy`.
        reading: "or" as in Algorithm 1, "and" as in equation 8 (I-5).
        scores: probabilities in R (I-17).
    """

    eta: NotNegative | Tensor = 1.0
    smoothing: Share = 0.0
    reading: Literal["or", "and"] = "or"
    scores: Literal["softmax", "sigmoid"] = "softmax"
    name: ClassVar[str] = "regulariser"

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


@register("term", "binary_cross_entropy", "binary cross entropy")
@dataclass(frozen=True)
class BinaryCrossEntropy(Checked):
    """Sigmoid cross entropy against the mixed labels (Table 11).

    Samples that the rule perturbs always have soft targets, as a threshold would undo it.

    Attributes:
        smoothing: as for `CrossEntropy`.
        target: of the samples that the rule does not perturb: 1 for both classes ("twohot"), 1 where the mixed target
            exceeds `threshold` ("threshold", timm's), or the mixed target itself ("soft") (I-17).
        threshold: of the target "threshold".
        reduction: "mean" over the classes as in timm, or "class_sum".
    """

    smoothing: Share = 0.0
    target: Literal["twohot", "threshold", "soft"] = "twohot"
    threshold: Share = 0.2
    reduction: Literal["mean", "class_sum"] = "mean"
    name: ClassVar[str] = "binary_cross_entropy"

    def __call__(self, logits: Tensor, batch: MixedBatch, own_weight: Tensor, active: Tensor) -> Tensor:
        num_classes = logits.shape[-1]
        pair = batch.labels, batch.partner_labels
        soft = functional.pair_targets(*pair, own_weight, num_classes, self.smoothing)
        off = self.smoothing / num_classes
        unperturbed, rest = self._unperturbed(batch, soft, off)
        targets = torch.where(active, soft, unperturbed)
        others = torch.where(active, off, torch.full_like(soft[0], rest))
        total = functional.binary_cross_entropy(logits, *pair, targets, others)
        return total / num_classes if self.reduction == "mean" else total

    def _unperturbed(self, batch: MixedBatch, soft: Tensor, off: float) -> tuple[Tensor, float]:
        """Targets of the pair [2, B] and of every other class where the rule does not perturb."""
        if self.target == "twohot":
            # A class of weight 0 is not in the image and stays off.
            visible = torch.stack([batch.own_weight > 0, batch.own_weight < 1]) | (batch.labels == batch.partner_labels)
            return torch.full_like(soft, off).masked_fill(visible, 1 - self.smoothing + off), off
        if self.target == "threshold":
            return (soft > self.threshold).to(soft), float(off > self.threshold)
        return soft, off


@register("term", "decoupled", "decoupled term of DM(CE)")
@dataclass(frozen=True)
class Decoupled(Checked):
    """DM, DM(CE): eta L_DM with L_DM = -log phi[a|b] - log phi[b|a], beside `CrossEntropy`.

    It knows no lambda, no label smoothing and no label rule. Same-class pairs have no such term, as nothing competes
    with their class, nor have images that show less than `VISIBLE` of either class, which would be pushed to a class
    that is not there.

    Attributes:
        eta: weight of the term: 0.1 or 1 in the paper, see docs/method-card.md.
    """

    eta: NotNegative | Tensor = 1.0
    name: ClassVar[str] = "decoupled"
    VISIBLE: ClassVar[float] = 1e-3

    def __call__(self, logits: Tensor, batch: MixedBatch, own_weight: Tensor, active: Tensor) -> Tensor:
        pair = functional.decoupled(logits, batch.labels, batch.partner_labels)
        return (self.weights(batch) * pair).sum(dim=0)

    def weights(self, batch: MixedBatch) -> Tensor:
        """Factor [B] of -log phi of the own and of the partner class."""
        shown = (batch.own_weight >= self.VISIBLE) & (batch.own_weight <= 1 - self.VISIBLE)
        return self.eta * (shown & (batch.labels != batch.partner_labels))


@register("term", "rescaled_binary_cross_entropy", "DM(BCE)")
@dataclass(frozen=True)
class RescaledBinaryCrossEntropy(Checked):
    """DM, DM(BCE): sigmoid cross entropy, summed over classes, with target r(lambda; t, xi) = min(1, lambda / t) ^ xi.

    t and xi go by the kind of each sample, so that a batch may be switched: blended or cut (all others). t = xi = 1 is
    MBCE (one), xi = 0 is MBCE (two). The two targets need not sum to 1; a same-class pair has one, the sum of both and
    at most 1, and a class that the image does not show has target 0.

    DM, appendix B.3: t = 1, xi = 0.8 for methods that cut, t = 0.5, xi = 1 for those that blend.

    Attributes:
        cut_t, cut_xi: of cut samples.
        blend_t, blend_xi: of blended samples.
    """

    cut_t: Positive = 1.0
    cut_xi: NotNegative = 0.8
    blend_t: Positive = 0.5
    blend_xi: NotNegative = 1.0
    name: ClassVar[str] = "rescaled_binary_cross_entropy"

    def __call__(self, logits: Tensor, batch: MixedBatch, own_weight: Tensor, active: Tensor) -> Tensor:
        pair, off = (batch.labels, batch.partner_labels), torch.zeros_like(own_weight)
        return functional.binary_cross_entropy(logits, *pair, self.targets(batch, own_weight), off)

    def targets(self, batch: MixedBatch, own_weight: Tensor) -> Tensor:
        """The targets [2, B] in [0, 1] of the own and of the partner class."""
        blended = batch.kind == int(Kind.BLEND)
        t = torch.where(blended, self.blend_t, self.cut_t)
        xi = torch.where(blended, self.blend_xi, self.cut_xi)
        weights = torch.stack([own_weight, 1 - own_weight])
        shown = torch.stack([batch.own_weight, 1 - batch.own_weight]) > 0
        own, partner = torch.where(shown, functional.rescale(weights, t, xi), 0)
        same = batch.labels == batch.partner_labels
        return torch.stack([torch.where(same, (own + partner).clamp(max=1), own), partner])


# ------------------------------------------------------------------------------------------------- the loss


class MixLoss(nn.Module):
    """LUMix, equation 6: cross entropy + eta R, with the weights of a label rule; or the sum of other terms.

    Args:
        rule: gives the own weight [B]; `AreaRule` (default) is the ordinary mixed loss, `LUMixRule` is LUMix.
        terms: any `Term`s; None is `CrossEntropy(smoothing)`, and `Regulariser(eta, smoothing)` where eta is not 0.
            Tensors in the fields of rule and terms, which may be learnt, and terms that are modules belong to this one.
        smoothing: label smoothing in [0, 1], timm's convention, for terms=None.
        eta: weight of R, at least 0, for terms=None; R applies to the samples that the rule perturbs.
        ignore_index: label of samples without a class, as in torch's cross entropy. Those whose own label it is, or
            into which a partner of this label was mixed, add nothing, and the mean is that of the others.
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
        checked("smoothing", smoothing, Share)
        if not isinstance(eta, Tensor):
            checked("eta", eta, NotNegative)
        checked("ignore_index", ignore_index, int)
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
        names = [getattr(term, "name", None) for term in terms]
        if None in names:
            raise ValueError(f"each of terms must be a loss term with a name, see lumix.Term, not {shown(terms)}")
        if not names or len(set(names)) < len(names):
            raise ValueError(f"a loss needs at least one term, and terms of different names, not {names}")
        self.rule: Rule = rule if rule is not None else AreaRule()
        self.terms = tuple(terms)
        self.ignore_index = ignore_index
        self._in_one_piece = in_one_piece(self.terms)
        for place, part in self._parts().items():
            if isinstance(part, nn.Module):
                self.add_module(place, part)
            for name, value in _tensors(part).items():
                if isinstance(value, nn.Parameter):
                    self.register_parameter(f"{place}_{name}", value)
                else:
                    self.register_buffer(f"{place}_{name}", value)

    def _parts(self) -> dict[str, Any]:
        return {"rule": self.rule, **{term.name: term for term in self.terms}}

    def _apply(self, fn: Any, recurse: bool = True) -> "MixLoss":
        """As of any module, for `to` and its kin: parts that hold tensors are made anew with those moved."""
        super()._apply(fn, recurse)
        moved = [
            replace(part, **{name: getattr(self, f"{place}_{name}") for name in found})
            if (found := _tensors(part))
            else part
            for place, part in self._parts().items()
        ]
        self.rule, self.terms = moved[0], tuple(moved[1:])
        return self

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

        `generator` is for rules that draw, `attention` [B, patches] for those that read the class token's.
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
        if own.device.type == "cpu" and not inputs.is_transformed() and not (own.any() or partner.any()):
            return None
        return ~(own | (partner & (batch.kind != int(Kind.NONE))))

    def _labelled(self, batch: MixedBatch, counts: Tensor | None) -> MixedBatch:
        """The batch with class 0 in place of `ignore_index`, and weights that a framework has halved in float32."""
        if batch.own_weight.dtype not in (torch.float32, torch.float64):
            batch = batch._replace(own_weight=batch.own_weight.float())
        if counts is None:
            return batch
        own, partner = (
            labels.masked_fill(labels == self.ignore_index, 0) for labels in (batch.labels, batch.partner_labels)
        )
        return batch._replace(labels=own, partner_labels=partner)

    def draw(self, batch: MixedBatch, generator: torch.Generator | None) -> Tensor | None:
        """The rule's draws [B] for a whole batch, or None; to be sliced where the batch is."""
        return self.rule.draw(batch, generator)

    def weights(
        self, logits: Tensor, batch: MixedBatch, draws: Tensor | None = None, attention: Tensor | None = None
    ) -> Tensor:
        """The rule's own weights [B] for this batch, to be passed to `per_sample`."""
        return self._weights(logits, self._labelled(batch, self.counts(batch)), draws, attention)

    def _weights(self, logits: Tensor, batch: MixedBatch, draws: Tensor | None, attention: Tensor | None) -> Tensor:
        if batch.hidden is not None:
            batch.hidden.check(logits)
        if logits.ndim == 1 or logits.shape[-1] == 1:
            raise ValueError(
                f"logits must be [B, C] for C = 2 classes or more, not of shape {list(logits.shape)}: give one logit "
                "z [B, 1] of two classes as torch.cat([torch.zeros_like(z), z], dim=1), which has its probabilities"
            )
        if logits.shape[:-1] != batch.labels.shape:
            raise ValueError(f"logits must be [B, C] with B = {batch.size}, not of shape {list(logits.shape)}")
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
            if self._in_one_piece is not None and not inputs.is_transformed():
                loss, parts = self._in_one_piece(self.terms, logits, batch, own_weight, active)
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


def _tensors(part: Any) -> dict[str, Tensor]:
    """The fields of a dataclass that hold tensors."""
    found = {entry.name: getattr(part, entry.name) for entry in fields(part)} if is_dataclass(part) else {}
    return {name: value for name, value in found.items() if isinstance(value, Tensor)}


def _explain(error: Exception, logits: Tensor, batch: MixedBatch) -> Exception:
    """`error`, or a clearer one where labels out of range are its cause."""
    if "out of bounds" not in str(error):
        return error
    labels, classes = torch.cat([batch.labels, batch.partner_labels]), logits.shape[-1]
    return ValueError(
        f"labels must lie in 0 .. {classes - 1} for logits of {classes} classes, "
        f"not {int(labels.min())} .. {int(labels.max())}; samples without a class have ignore_index"
    )


# ------------------------------------------------------------------------------------------------- in one piece
# Cross entropy, alone or with R of softmax scores and with the decoupled term, from one softmax: the values of the
# plain terms in about the time of one cross entropy, with one array [B, C] kept for the backward pass, not two to four.
# At 1000 classes that is 0.19 ms in place of 0.28 (CE), 0.34 in place of 0.57 (CE + R), 0.33 in place of 0.61 (DM(CE)).

OnePiece = Callable[[Any, Tensor, MixedBatch, Tensor, Tensor], tuple[Tensor, dict[str, Tensor]]]
# torch's own compiled backward passes ask the same before they reuse memory.
graph_is_kept = torch._C._autograd._get_current_graph_task_keep_graph


def in_one_piece(terms: tuple[Any, ...]) -> OnePiece | None:
    """How these terms are computed together: (terms, logits, batch, own weights, active) -> sum [B] and its parts."""
    kinds = tuple(map(type, terms))
    if any(type(term) is Regulariser and term.scores != "softmax" for term in terms):
        return None
    if kinds in ((CrossEntropy,), (CrossEntropy, Regulariser)):
        return _by_pair
    return _by_rest if kinds in ((CrossEntropy, Decoupled), (CrossEntropy, Regulariser, Decoupled)) else None


def take_pair(values: Tensor, index: Tensor) -> Tensor:
    """The entries [2, B] of the rows of `values` [B, C] that `index` [2, B] names."""
    return values.t().gather(0, index)


def _may_overwrite(upstream: Tensor) -> bool:
    """Whether a backward pass may write into what it kept: not where its graph is kept or its gradient batched."""
    batched = torch._C._functorch.is_legacy_batchedtensor(upstream) or torch._C._are_functorch_transforms_active()
    return not (torch.is_grad_enabled() or graph_is_kept() or batched)


def _by_pair(
    terms: tuple[Any, ...], logits: Tensor, batch: MixedBatch, own_weight: Tensor, active: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """`functional.soft_cross_entropy`, and with two terms `functional.regulariser`; only the sum carries a gradient."""
    penalties = terms[1].penalties(batch, own_weight, active, logits.shape[-1]) if len(terms) == 2 else None
    index = torch.stack([batch.labels, batch.partner_labels])
    weights = torch.stack([own_weight, 1 - own_weight])
    found = _PairLoss.apply(logits, index, weights, penalties, terms[0].smoothing)
    loss, *parts = (found, found) if penalties is None else found
    return loss, {term.name: part for term, part in zip(terms, parts, strict=True)}


class _PairLoss(torch.autograd.Function):
    """Loss [B], or loss, cross entropy and regulariser; `index`, `weights` and `penalties` [2, B] are of the pair.

    One array [B, C] is kept for the backward pass, which turns it into the gradient if the graph is not kept. With
    c_k = -(1 - smoothing) w_k - y_k p_k on the pair, the gradient to z_j is the sum of c_k over the classes k of the
    pair that are j, minus smoothing / C, minus p_j times (the sum of c - smoothing).
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
        gradient = p.mul_(total) if _may_overwrite(upstream) else p * total
        if smoothing:
            gradient = gradient.sub_((smoothed / logits.shape[-1]).unsqueeze(-1))
        gradient.scatter_add_(-1, index.t(), on_pair.t())
        return gradient.to(logits.dtype), None, to_weights, to_penalties, None


def _by_rest(
    terms: tuple[Any, ...], logits: Tensor, batch: MixedBatch, own_weight: Tensor, active: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """With r the log of the sum of exp(z_c) outside the pair, every term is a function of z_a, z_b and r."""
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
    parts[decoupled.name] = (decoupled.weights(batch) * apart).sum(dim=0)
    return sum(parts.values(), torch.zeros_like(rest)), {name: part.detach() for name, part in parts.items()}


class _Rest(torch.autograd.Function):
    """Logits of the pair [2, B], `functional.rest` [B] and, if wanted, the mean of all logits [B].

    As above one array [B, C] is kept, the softmax outside the pair.
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
        if torch.is_grad_enabled():  # a gradient of this gradient is wanted, which the kept softmax does not have
            softmax = torch.softmax(functional.without_pair(logits, index), dim=-1)
        scale = to_rest.unsqueeze(-1)
        gradient = softmax.mul_(scale) if _may_overwrite(to_rest) else softmax * scale
        if to_mean is not None:
            gradient = gradient.add_((to_mean / logits.shape[-1]).unsqueeze(-1))
        return gradient.scatter_add_(-1, index.t(), to_pair.t()).to(logits.dtype), None, None
