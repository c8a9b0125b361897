"""MixLoss: equation 6 of LUMix, from logits and a MixedBatch to a scalar, by class index throughout."""

import torch
from torch import Tensor, nn

from lumix import functional
from lumix.batch import MixedBatch
from lumix.checks import check_choice, check_probability
from lumix.rules import AreaRule, Rule


class MixLoss(nn.Module):
    """Mixed cross entropy or sigmoid cross entropy, with the weights of a label rule, smoothing and the regulariser R.

    Args:
        rule: gives the own weight [B]; `AreaRule` (default) is the ordinary mixed loss, `LUMixRule` is LUMix.
        kind: "ce" (soft-target cross entropy) or "bce" (sigmoid cross entropy, Table 11).
        smoothing: label smoothing in [0, 1], timm's convention, applied to both one-hots before mixing.
        eta: weight of R, at least 0; R applies to the samples that the rule perturbs (I-6: the paper gives no value).
        regulariser: "or" as in Algorithm 1, "and" as in equation 8 (I-5).
        bce_target: target of samples that the rule does not perturb: 1 for both classes ("twohot"), 1 where the mixed
            target exceeds `bce_threshold` ("threshold", timm's), or the mixed target itself ("soft"). Perturbed samples
            always have soft targets: a threshold would undo the perturbation (I-17).
        bce_reduction: "mean" over classes as in timm, or "class_sum"; R is always summed over the pair (I-7).
        score: probabilities in R, "softmax" or "sigmoid" (I-17).
    """

    def __init__(
        self,
        rule: Rule | None = None,
        *,
        kind: str = "ce",
        smoothing: float = 0.0,
        eta: float | Tensor = 0.0,
        regulariser: str = "or",
        bce_target: str = "twohot",
        bce_threshold: float = 0.2,
        bce_reduction: str = "mean",
        score: str = "softmax",
    ) -> None:
        super().__init__()
        check_choice("kind", kind, ("ce", "bce"))
        check_choice("regulariser", regulariser, ("or", "and"))
        check_choice("bce_target", bce_target, ("twohot", "threshold", "soft"))
        check_choice("bce_reduction", bce_reduction, ("mean", "class_sum"))
        check_choice("score", score, ("softmax", "sigmoid"))
        check_probability("smoothing", smoothing)
        if not isinstance(eta, Tensor) and eta < 0:
            raise ValueError(f"eta must be at least 0, not {eta!r}")
        self.rule: Rule = rule if rule is not None else AreaRule()
        self.kind, self.smoothing, self.eta, self.regulariser = kind, smoothing, eta, regulariser
        self.bce_target, self.bce_threshold, self.bce_reduction = bce_target, bce_threshold, bce_reduction
        self.score = score

    def forward(
        self,
        logits: Tensor,
        batch: MixedBatch,
        generator: torch.Generator | None = None,
        attention: Tensor | None = None,
    ) -> Tensor:
        """Mean loss over the batch, a float32 scalar; logits [B, C] of any floating dtype.

        Raises:
            ValueError: on the CPU, for labels outside 0 .. C - 1; where the rule draws and no generator is given, or
                reads `attention` [B, patches] and none is given.
        """
        weight = self.weights(logits, batch, generator, attention)
        return self.per_sample(logits, batch, weight).mean()

    def weights(
        self,
        logits: Tensor,
        batch: MixedBatch,
        generator: torch.Generator | None = None,
        attention: Tensor | None = None,
    ) -> Tensor:
        """The rule's own weights [B] for this batch, to be passed to `per_sample`."""
        if logits.shape[:-1] != batch.labels.shape:
            raise ValueError(f"logits must be [B, C] with B = {len(batch)}, not of shape {list(logits.shape)}")
        try:
            return self.rule(logits, batch, generator, attention)
        except (IndexError, RuntimeError) as error:
            raise self._explain(error, logits, batch) from error

    def per_sample(self, logits: Tensor, batch: MixedBatch, own_weight: Tensor) -> Tensor:
        """Loss [B] for given own weights [B]: equation 6 before the mean."""
        try:
            return self._per_sample(logits, batch, own_weight)
        except (IndexError, RuntimeError) as error:
            raise self._explain(error, logits, batch) from error

    def _per_sample(self, logits: Tensor, batch: MixedBatch, own_weight: Tensor) -> Tensor:
        pair = (batch.labels, batch.partner_labels)
        penalties = self._penalties(batch, own_weight, logits.shape[-1])
        if self.kind == "ce":
            return functional.pair_loss(logits, *pair, own_weight, penalties, self.smoothing)
        z = functional.at_least_float32(logits)
        base = self._binary(z, batch, own_weight)
        if penalties is None:
            return base
        p = torch.sigmoid(z) if self.score == "sigmoid" else torch.softmax(z, dim=-1)
        own, partner = (1 - functional.take(p, labels) for labels in pair)
        return base + penalties[0] * own + penalties[1] * partner

    def _penalties(self, batch: MixedBatch, own_weight: Tensor, num_classes: int) -> tuple[Tensor, Tensor] | None:
        """eta y_k b_k of both classes, 0 for samples that the rule does not perturb; None without R."""
        if not isinstance(self.eta, Tensor) and self.eta == 0:
            return None
        pair = (batch.labels, batch.partner_labels)
        targets = functional.pair_targets(*pair, own_weight, num_classes, self.smoothing)
        own, partner = functional.penalties(targets, pair[0] == pair[1], self.regulariser)
        eta = torch.where(self.rule.perturbs(batch), self.eta, 0.0)
        return eta * own, eta * partner

    def _binary(self, logits: Tensor, batch: MixedBatch, own_weight: Tensor) -> Tensor:
        """Sigmoid cross entropy [B]: soft targets where the rule perturbs, `bce_target` elsewhere."""
        num_classes = logits.shape[-1]
        pair = (batch.labels, batch.partner_labels)
        soft = functional.pair_targets(*pair, own_weight, num_classes, self.smoothing)
        off, same = self.smoothing / num_classes, pair[0] == pair[1]
        targets, others = soft, torch.full_like(own_weight, off)
        if self.bce_target == "twohot":
            # A class of weight 0 is not in the image and stays off.
            visible = (batch.own_weight > 0, batch.own_weight < 1)
            on = 1 - self.smoothing + off
            targets = (torch.where(visible[0] | same, on, off), torch.where(visible[1] | same, on, off))
        elif self.bce_target == "threshold":
            targets = ((soft[0] > self.bce_threshold).float(), (soft[1] > self.bce_threshold).float())
            others = torch.full_like(own_weight, float(off > self.bce_threshold))
        perturbed = self.rule.perturbs(batch)
        own = torch.where(perturbed, soft[0], targets[0])
        partner = torch.where(perturbed, soft[1], targets[1])
        others = torch.where(perturbed, off, others)
        total = functional.binary_cross_entropy(logits, *pair, (own, partner), others)
        return total / num_classes if self.bce_reduction == "mean" else total

    @staticmethod
    def _explain(error: Exception, logits: Tensor, batch: MixedBatch) -> Exception:
        """`error`, or a clearer one where labels out of range are its cause."""
        if "out of bounds" not in str(error):
            return error
        labels, classes = torch.cat([batch.labels, batch.partner_labels]), logits.shape[-1]
        return ValueError(
            f"labels must lie in 0 .. {classes - 1} for logits of {classes} classes, "
            f"not {int(labels.min())} .. {int(labels.max())}"
        )

    def extra_repr(self) -> str:
        return f"kind={self.kind}, smoothing={self.smoothing}, eta={self.eta}, rule={self.rule}"
