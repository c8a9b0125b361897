"""MixLoss, equation 6 of LUMix and its kin: a sum of terms of logits and a MixedBatch, by class index throughout."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from functools import reduce
from operator import add
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn

from lumix import functional, inputs
from lumix.batch import Kind, MixedBatch
from lumix.inputs import IGNORED, Checked, Learnable, NotNegative, Positive, Share, check_part, checked, shown
from lumix.registry import register
from lumix.rules import AreaRule, Rule


class Term(Protocol):
    """A named part of a loss. No branches on data: it runs under torch.compile and torch.func.vmap."""

    @property
    def name(self) -> str: ...

    def __call__(self, logits: Tensor, batch: MixedBatch, own_weight: Tensor, active: Tensor) -> Tensor:
        """Value [B], float32 or wider.

        Args:
            logits: [B, C] of the mixed images, of any floating dtype.
            own_weight: [B] weights of the own labels, from the rule; a constant unless it carries a gradient.
            active: [B] bool, the samples that the rule perturbs.
        """


@dataclass(frozen=True)
class Weighted(Checked):
    """Base of the terms: with `weight` [C], at least 0, classes count as in torch; the mean stays one over samples."""

    weight: Tensor | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("weight", "pos_weight"):
            if (value := getattr(self, name, None)) is not None:
                object.__setattr__(self, name, class_weights(f"{type(self).__name__}.{name}", value))

    def of_pair(self, batch: MixedBatch) -> Tensor | int:
        """Weights [2, B] of the own and of the partner class, or 1."""
        return 1 if self.weight is None else self.weight[torch.stack([batch.labels, batch.partner_labels])]


def class_weights(name: str, value: Any) -> Tensor:
    """Weights [C] of classes as a floating tensor; ValueError for anything else."""
    try:
        found = value if isinstance(value, Tensor) else torch.tensor([float(x) for x in value], dtype=torch.float32)
    except (TypeError, ValueError):
        found = torch.empty(0)
    usable = found.ndim == 1 and len(found) > 1 and found.is_floating_point()
    if not usable or (found.device.type == "cpu" and not bool((found.isfinite() & (found >= 0)).all())):
        raise ValueError(f"{name} must be [C] numbers of at least 0, one for each class, not {shown(value)}")
    return found


@register("term", "cross_entropy", "mixed cross entropy")
@dataclass(frozen=True)
class CrossEntropy(Weighted):
    """Cross entropy against (1 - lambda) Y1 + lambda Y2, the first term of equation 6, both smoothed as in timm."""

    smoothing: Share = 0.0
    name: ClassVar[str] = "cross_entropy"

    def __call__(self, logits: Tensor, batch: MixedBatch, own_weight: Tensor, active: Tensor) -> Tensor:
        log_p = functional.log_softmax(logits)
        if self.weight is not None:
            log_p = self.weight * log_p
        return functional.soft_cross_entropy(log_p, batch.labels, batch.partner_labels, own_weight, self.smoothing)


@register("term", "regulariser", "regulariser R")
@dataclass(frozen=True)
class Regulariser(Weighted):
    """LUMix, equation 7: eta R with R = sum over the pair of y_k max(0, b_k - p_k), where the rule perturbs.

    As p_k <= 1 = b_k on the pair and b_k = 0 off it, the maximum never acts (I-11): R = sum of y_k b_k (1 - p_k).

    Attributes:
        eta: weight of R (I-6: the paper gives no value).
        reading: "or" as in Algorithm 1, "and" as in equation 8 (I-5).
        scores: probabilities in R (I-17).
    """

    eta: Learnable = 1.0
    smoothing: Share = 0.0
    reading: Literal["or", "and"] = "or"
    scores: Literal["softmax", "sigmoid"] = "softmax"
    name: ClassVar[str] = "regulariser"

    def __call__(self, logits: Tensor, batch: MixedBatch, own_weight: Tensor, active: Tensor) -> Tensor:
        z = functional.at_least_float32(logits)
        p = torch.sigmoid(z) if self.scores == "sigmoid" else torch.softmax(z, dim=-1)
        scores = torch.stack([functional.take(p, batch.labels), functional.take(p, batch.partner_labels)])
        return (self.penalties(batch, own_weight, active, logits.shape[-1]) * (1 - scores)).sum(dim=0)

    def penalties(self, batch: MixedBatch, own_weight: Tensor, active: Tensor, num_classes: int) -> Tensor:
        """eta y_k b_k [2, B] of both classes, by which 1 - p_k is multiplied; 0 where the rule does not perturb."""
        pair = batch.labels, batch.partner_labels
        targets = functional.pair_targets(*pair, own_weight, num_classes, self.smoothing)
        found = self.eta * targets * (functional.indicator(pair[0] == pair[1], self.reading) & active)
        return found if self.weight is None else found * self.of_pair(batch)


@register("term", "binary_cross_entropy", "binary cross entropy")
@dataclass(frozen=True)
class BinaryCrossEntropy(Weighted):
    """Sigmoid cross entropy against the mixed labels (Table 11).

    Samples that the rule perturbs always have soft targets, as a threshold would undo it.

    Attributes:
        target: of the samples that the rule does not perturb: 1 for both classes ("twohot"), 1 where the mixed target
            exceeds `threshold` ("threshold", timm's), or the mixed target itself ("soft") (I-17).
        threshold: of the target "threshold".
        reduction: "mean" over the classes as in timm, or "class_sum".
        pos_weight: [C], of the positive parts, as in torch and timm.
    """

    smoothing: Share = 0.0
    target: Literal["twohot", "threshold", "soft"] = "twohot"
    threshold: Share = 0.2
    reduction: Literal["mean", "class_sum"] = "mean"
    pos_weight: Tensor | None = field(default=None, kw_only=True)
    name: ClassVar[str] = "binary_cross_entropy"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.target != "threshold":
            self.refuse("target", "threshold")

    def __call__(self, logits: Tensor, batch: MixedBatch, own_weight: Tensor, active: Tensor) -> Tensor:
        num_classes = logits.shape[-1]
        pair = batch.labels, batch.partner_labels
        soft = functional.pair_targets(*pair, own_weight, num_classes, self.smoothing)
        off = self.smoothing / num_classes
        unperturbed, rest = soft, off  # of the pair [2, B], and of every other class, where the rule does not perturb
        if self.target == "twohot":
            # A class of weight 0 is not in the image and stays off.
            visible = torch.stack([batch.own_weight > 0, batch.own_weight < 1]) | (batch.labels == batch.partner_labels)
            unperturbed = torch.full_like(soft, off).masked_fill(visible, 1 - self.smoothing + off)
        elif self.target == "threshold":
            unperturbed, rest = (soft > self.threshold).to(soft), float(off > self.threshold)
        targets = torch.where(active, soft, unperturbed)
        others = torch.where(active, off, torch.full_like(soft[0], rest))
        total = functional.binary_cross_entropy(logits, *pair, targets, others, self.weight, self.pos_weight)
        return total / num_classes if self.reduction == "mean" else total


@register("term", "decoupled", "decoupled term of DM(CE)")
@dataclass(frozen=True)
class Decoupled(Weighted):
    """DM, DM(CE): eta L_DM with L_DM = -log phi[a|b] - log phi[b|a], beside `CrossEntropy`.

    It knows no lambda, no label smoothing and no label rule; `eta` is 0.1 or 1 in the paper. Same-class pairs have no
    such term, as nothing competes with their class, nor have images that show less than `VISIBLE` of either class,
    which would be pushed to a class that is not there.
    """

    eta: Learnable = 1.0
    name: ClassVar[str] = "decoupled"
    VISIBLE: ClassVar[float] = 1e-3

    def __call__(self, logits: Tensor, batch: MixedBatch, own_weight: Tensor, active: Tensor) -> Tensor:
        pair = functional.decoupled(logits, batch.labels, batch.partner_labels)
        return (self.weights(batch) * pair).sum(dim=0)

    def weights(self, batch: MixedBatch) -> Tensor:
        """Factor [B], or [2, B], of -log phi of the own and of the partner class."""
        visible = (batch.own_weight >= self.VISIBLE) & (batch.own_weight <= 1 - self.VISIBLE)
        found: Tensor = self.eta * (visible & (batch.labels != batch.partner_labels))
        return found if self.weight is None else found * self.of_pair(batch)


@register("term", "rescaled_binary_cross_entropy", "DM(BCE)")
@dataclass(frozen=True)
class RescaledBinaryCrossEntropy(Weighted):
    """DM, DM(BCE): sigmoid cross entropy, summed over classes, with target r(lambda; t, xi) = min(1, lambda / t) ^ xi.

    t and xi go by the kind of each sample, so that a batch may be switched: blended or cut (all others). t = xi = 1 is
    MBCE (one), xi = 0 is MBCE (two). The two targets need not sum to 1; a same-class pair has one, the sum of both and
    at most 1, and a class that the image does not show has target 0.

    DM, appendix B.3: t = 1, xi = 0.8 for methods that cut, t = 0.5, xi = 1 for those that blend.

    `pos_weight` [C] is of the positive parts, as in torch.
    """

    cut_t: Positive = 1.0
    cut_xi: NotNegative = 0.8
    blend_t: Positive = 0.5
    blend_xi: NotNegative = 1.0
    pos_weight: Tensor | None = field(default=None, kw_only=True)
    name: ClassVar[str] = "rescaled_binary_cross_entropy"

    def __call__(self, logits: Tensor, batch: MixedBatch, own_weight: Tensor, active: Tensor) -> Tensor:
        pair, off = (batch.labels, batch.partner_labels), torch.zeros_like(own_weight)
        targets = self.targets(batch, own_weight)
        return functional.binary_cross_entropy(logits, *pair, targets, off, self.weight, self.pos_weight)

    def targets(self, batch: MixedBatch, own_weight: Tensor) -> Tensor:
        blended = batch.kind == int(Kind.BLEND)
        t = torch.where(blended, self.blend_t, self.cut_t)
        xi = torch.where(blended, self.blend_xi, self.cut_xi)
        weights = torch.stack([own_weight, 1 - own_weight])
        shown = torch.stack([batch.own_weight, 1 - batch.own_weight]) > 0
        own, partner = torch.where(shown, functional.rescale(weights, t, xi), 0)
        same = batch.labels == batch.partner_labels
        return torch.stack([torch.where(same, (own + partner).clamp(max=1), own), partner])


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
        checked("eta", eta, Learnable)
        checked("ignore_index", ignore_index, int)
        if rule is not None:
            check_part("rule", rule, ("draw", "weigh", "perturbs"), "a label rule as AreaRule()")
        has_eta = isinstance(eta, Tensor) or eta != 0
        if terms is None:
            if has_eta and (rule is None or type(rule) is AreaRule):
                found = f"eta={eta!r} has no use with AreaRule, which perturbs nothing"
                raise ValueError(f"{found}: use LUMixRule(), or LUMixRule(0, 0) for R alone")
            regulariser = (Regulariser(eta, smoothing),) if has_eta else ()
            terms = (CrossEntropy(smoothing), *regulariser)
        elif smoothing or has_eta:
            raise ValueError(f"terms have their own settings: give smoothing={smoothing!r} and eta={eta!r} to them")
        if not isinstance(terms, Sequence) or isinstance(terms, str):
            raise ValueError(f"terms must be a sequence of loss terms, not {shown(terms)}: use [CrossEntropy()]")
        if type(terms).__module__.startswith("omegaconf"):  # it makes mappings of dataclasses
            raise ValueError("terms must be a list of loss terms, not one of Hydra's: say _convert_: partial there")
        for term in terms:
            check_part("each of terms", term, ("__call__",), "a loss term as CrossEntropy()")
        names = [getattr(term, "name", None) for term in terms]
        if None in names:
            raise ValueError(f"each of terms must be a loss term with a name, see lumix.Term, not {shown(terms)}")
        if not names or len(set(names)) < len(names):
            raise ValueError(f"a loss needs at least one term, and terms of different names, not {names}")
        self.ignore_index = ignore_index
        self._rule, self._terms = rule if rule is not None else AreaRule(), tuple(terms)
        self._in_one_piece = all(map(in_one_piece, terms))
        self._held: dict[str, list[str]] = {}  # the names of tensors, by the name of their part
        for place, part in {"rule": self._rule, **{term.name: term for term in terms}}.items():
            if isinstance(part, nn.Module) and part is not self._rule:
                self.add_module(place, part)
            for name in (entry.name for entry in fields(part)) if is_dataclass(part) else ():
                if isinstance(value := getattr(part, name), Tensor):
                    self._held.setdefault(place, []).append(name)
                    learnt = isinstance(value, nn.Parameter)
                    (self.register_parameter if learnt else self.register_buffer)(f"{place}_{name}", value)  # type: ignore[arg-type]

    @property
    def rule(self) -> Rule:
        return self._own("rule", self._rule)

    @property
    def terms(self) -> tuple[Any, ...]:
        return tuple(self._own(term.name, term) for term in self._terms)

    def _own(self, place: str, part: Any) -> Any:
        """The part with this module's tensors, which may have been moved, loaded or replaced since."""
        if place in self._held:
            part = copy.copy(part)
            for name in self._held[place]:
                object.__setattr__(part, name, getattr(self, f"{place}_{name}"))
        return part

    @property
    def smoothing(self) -> set[float]:
        """Label smoothing of the terms that know it; 0 where none does."""
        return {float(term.smoothing) for term in self._terms if hasattr(term, "smoothing")} or {0.0}

    def forward(
        self, logits: Any, batch: MixedBatch, generator: torch.Generator | None = None, attention: Tensor | None = None
    ) -> Tensor:
        """Mean loss over the batch, a float32 scalar; logits [B, C] of any floating dtype, or an output with `logits`.

        `generator` is for rules that draw, `attention` [B, patches] for those that read the class token's.
        """
        logits = inputs.logits_of(logits)
        counts = self.counts(batch)
        draws = self.draw(batch, generator)
        batch = self._labelled(batch, counts)
        loss = self._losses(logits, batch, self._weights(logits, batch, draws, attention), counts)[0]
        # NaN, as in torch, where no sample counts.
        return loss.mean() if counts is None else loss.mean() * (len(loss) / counts.sum())

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
        pair = batch.labels, batch.partner_labels
        own, partner = (labels.masked_fill(labels == self.ignore_index, 0) for labels in pair)
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
        for place, names in self._held.items():
            for size in (len(getattr(self, f"{place}_{name}")) for name in names if name in ("weight", "pos_weight")):
                if size != logits.shape[-1]:
                    raise ValueError(f"{place} weighs {size} classes, the logits have {logits.shape[-1]}")
        try:
            return self.rule.weigh(logits, batch, draws, attention)
        except (IndexError, RuntimeError) as error:
            raise _explain(error, logits, batch) from error

    def per_sample(self, logits: Tensor, batch: MixedBatch, own_weight: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss [B], equation 6 before the mean, and its parts [B] by name, detached; 0 where `counts` is false."""
        counts = self.counts(batch)
        return self._losses(logits, self._labelled(batch, counts), own_weight, counts)

    def _losses(
        self, logits: Tensor, batch: MixedBatch, own_weight: Tensor, counts: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        active = self.rule.perturbs(batch)
        try:
            if self._in_one_piece and not inputs.is_transformed():
                parts = from_one_softmax(self.terms, logits, batch, own_weight, active)
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


def mean_factor(counts: Tensor | None) -> Tensor | float:
    """By what losses [B] are multiplied so that their mean is that of the samples that count, 0 where none does."""
    return 1.0 if counts is None else len(counts) / counts.sum().clamp(min=1)


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
# Cross entropy, R of softmax scores and the decoupled term from one pass of exponentials: the plain terms' values, with
# one array [B, C] kept for the backward pass, not two to four; docs/performance.md has what that saves.

# torch's own compiled backward passes ask the same before they reuse memory.
graph_is_kept = torch._C._autograd._get_current_graph_task_keep_graph


def in_one_piece(term: Any) -> bool:
    """Whether `from_one_softmax` knows this term."""
    known = type(term) in (CrossEntropy, Regulariser, Decoupled) and term.weight is None
    return known and getattr(term, "scores", "softmax") == "softmax"


def from_one_softmax(
    terms: tuple[Any, ...], logits: Tensor, batch: MixedBatch, own_weight: Tensor, active: Tensor
) -> dict[str, Tensor]:
    """The terms [B] by name, functions of the two logits of the pair, of a log-normaliser and of the mean logit."""
    index = torch.stack([batch.labels, batch.partner_labels])
    apart = any(type(term) is Decoupled for term in terms)
    smoothed = any(type(term) is CrossEntropy and term.smoothing for term in terms)
    pair, rest, mean = _Summary.apply(logits, index, apart, smoothed)
    normaliser = rest
    if apart:
        once = torch.stack([pair[0], pair[1].masked_fill(index[0] == index[1], torch.finfo(pair.dtype).min)])
        normaliser = torch.logsumexp(torch.cat([once, rest.unsqueeze(0)]), dim=0)
    parts = {}
    for term in terms:
        if type(term) is CrossEntropy:
            found = normaliser - (torch.stack([own_weight, 1 - own_weight]) * pair).sum(dim=0)
            if term.smoothing:
                found = (1 - term.smoothing) * found + term.smoothing * (normaliser - mean)
        elif type(term) is Regulariser:
            penalties = term.penalties(batch, own_weight, active, logits.shape[-1])
            found = -(penalties * torch.expm1(pair - normaliser)).sum(dim=0)
        else:
            found = (term.weights(batch) * torch.nn.functional.softplus(rest - pair)).sum(dim=0)
        parts[term.name] = found
    return parts


class _Summary(torch.autograd.Function):
    """Logits of the pair [2, B], log of the sum of exp(z) [B] and, if wanted, the mean logit [B], less the largest.

    With `apart` the sum is over the classes outside the pair (`functional.rest`). What is made of the three may not
    depend on an offset of all logits: the largest logit counts as a constant. One array [B, C] is held,
    the classes' shares of the sum; the backward pass turns it into the gradient if the graph is not kept.
    """

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, index: Tensor, apart: bool, with_mean: bool
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        z = functional.at_least_float32(logits)
        shifted = z - z.amax(dim=-1, keepdim=True)
        mean = shifted.mean(dim=-1) if with_mean else None
        pair = shifted.t().gather(0, index)
        if apart:
            shifted.scatter_(-1, index.t(), torch.finfo(z.dtype).min)
            top = shifted.amax(dim=-1)
            shifted.sub_(top.unsqueeze(-1))
        shares = shifted.exp_()
        total = shares.sum(dim=-1)
        ctx.apart = apart
        ctx.save_for_backward(logits, index, shares, total)
        return pair, total.log() + top if apart else total.log(), mean

    @staticmethod
    def backward(ctx: Any, to_pair: Tensor, to_rest: Tensor, to_mean: Tensor | None) -> tuple[Tensor | None, ...]:
        logits, index, shares, total = ctx.saved_tensors
        scale = to_rest / total
        if torch.is_grad_enabled():  # a gradient of this gradient is wanted, which the kept shares do not have
            z = functional.at_least_float32(logits)
            shares, scale = torch.softmax(functional.without_pair(z, index) if ctx.apart else z, dim=-1), to_rest
        # Not where the graph is kept or its gradient batched.
        batched = torch._C._functorch.is_legacy_batchedtensor(to_rest) or torch._C._are_functorch_transforms_active()
        keeps = torch.is_grad_enabled() or graph_is_kept() or batched
        gradient = shares * scale.unsqueeze(-1) if keeps else shares.mul_(scale.unsqueeze(-1))
        if to_mean is not None:
            gradient = gradient.add_((to_mean / logits.shape[-1]).unsqueeze(-1))
        return gradient.scatter_add_(-1, index.t(), to_pair.t()).to(logits.dtype), None, None, None
