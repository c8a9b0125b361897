"""LUMixRule: equation 3, label weights perturbed by a random draw and by the prediction."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from lumix import functional
from lumix.batch import Kind, MixedBatch
from lumix.checks import check_choice, check_flag, check_number, check_part, check_probability
from lumix.registry import register
from lumix.rules.attention import attended_weight
from lumix.rules.base import Rule
from lumix.rules.laws import BetaLaw, Law


@register("rule", "lumix", "LUMix")
@dataclass(frozen=True)
class LUMixRule(Rule):
    """Equation 3: lambda = (1 - r_r - r_s) lambda_0 + r_r lambda_r + r_s lambda_s, per sample.

    Attributes:
        r_r, r_s: shares of the random draw and of the prediction; at least 0, together at most 1.
        law: of lambda_r, one draw per sample and step.
        detach: take lambda_s as a constant for the gradient (I-12).
        apply_to: "cut" perturbs the samples that were cut, by box or by mask, "both" the blended ones too (I-13).
            Unmixed samples never.
        scores: what lambda_s is read from, see `functional.predicted_weight`.
        r_a: share of the class token's attention, a third part that is ours; its share, like theirs, is taken from the
            area's.
        clamp: the final weight to [0, 1]; acts only on laws that leave [0, 1] (I-14).
    """

    r_r: float | Tensor = 0.4
    r_s: float | Tensor = 0.1
    law: Law = field(default_factory=BetaLaw)
    detach: bool = True
    apply_to: str = "cut"
    scores: str = "softmax"
    r_a: float = 0.0
    clamp: bool = True

    def __post_init__(self) -> None:
        check_choice("apply_to", self.apply_to, ("cut", "both"))
        check_choice("scores", self.scores, ("softmax", "double_softmax", "sigmoid"))
        check_flag("detach", self.detach)
        check_flag("clamp", self.clamp)
        check_part("law", self.law, ("draw",), "a law as BetaLaw")
        check_probability("r_a", self.r_a)
        shares = {name: getattr(self, name) for name in ("r_r", "r_s") if not isinstance(getattr(self, name), Tensor)}
        for name, share in shares.items():
            check_number(name, share, 0)
        # Shares such as 0.3 + 0.7 miss 1 by a rounding error.
        if sum(shares.values()) + self.r_a > 1 + 1e-9:
            parts, values = "r_r and r_s", f"{self.r_r!r} and {self.r_s!r}"
            if self.r_a:
                parts, values = "r_r, r_s and r_a", f"{self.r_r!r}, {self.r_s!r} and {self.r_a!r}"
            raise ValueError(
                f"{parts} must be at least 0 and sum to at most 1, so that the weight stays in [0, 1]; not {values}"
            )

    @property
    def needs_attention(self) -> bool:
        return self.r_a > 0

    def perturbs(self, batch: MixedBatch) -> Tensor:
        return batch.is_cut() if self.apply_to == "cut" else ~batch.is_kind(Kind.NONE)

    def draw(self, batch: MixedBatch, generator: torch.Generator | None) -> Tensor:
        """lambda_r [B], which like the paper's lambda weighs the PARTNER's label.

        Raises:
            ValueError: without a generator.
        """
        if generator is None:
            raise ValueError("LUMixRule draws lambda_r: pass a torch.Generator as generator=")
        return self.law.draw(len(batch), generator).to(batch.labels.device, non_blocking=True)

    def weigh(
        self, logits: Tensor, batch: MixedBatch, draws: Tensor | None = None, attention: Tensor | None = None
    ) -> Tensor:
        """Own weights [B] for draws [B] of lambda_r; `attention` [B, patches] is for r_a above 0."""
        if draws is None:
            raise ValueError("LUMixRule needs the draws [B] of lambda_r: pass those of its draw() as draws=")
        read = logits.detach() if self.detach else logits
        predicted = functional.predicted_weight(read, batch.labels, batch.partner_labels, self.scores)
        own = functional.mix_weights(batch.own_weight, 1 - draws, predicted, self.r_r, self.r_s)
        if self.needs_attention:
            own = own + self.r_a * (attended_weight(batch, attention) - batch.own_weight)
        own = own.clamp(0, 1) if self.clamp else own
        return torch.where(self.perturbs(batch), own, batch.own_weight)
