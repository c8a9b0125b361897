"""Label space: rules that turn a prediction and a mixed batch into the weight of the own label.

A rule is called as rule(logits [B, C], batch, generator=None) and returns own_weight [B] in float32. `perturbs(batch)`
[B] bool names the samples that the method, and with it the regulariser, applies to.
"""

from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from lumix import functional
from lumix.batch import Kind, MixedBatch
from lumix.mixers.plan import check_choice, check_positive, draw_beta


class Rule(Protocol):
    """What a loss needs of a label rule."""

    def __call__(self, logits: Tensor, batch: MixedBatch, generator: torch.Generator | None = None) -> Tensor: ...

    def perturbs(self, batch: MixedBatch) -> Tensor: ...


class AreaRule:
    """The ordinary label weight: the visible area, or the blend weight, of the own image (lambda_0)."""

    def __call__(self, logits: Tensor, batch: MixedBatch, generator: torch.Generator | None = None) -> Tensor:
        return batch.own_weight

    def perturbs(self, batch: MixedBatch) -> Tensor:
        return torch.zeros_like(batch.kind, dtype=torch.bool)


# ------------------------------------------------------------------------------------------------- laws of lambda_r


class Law(Protocol):
    """The law of lambda_r: [count] float32 on the generator's device."""

    def draw(self, count: int, generator: torch.Generator) -> Tensor: ...


@dataclass(frozen=True)
class BetaLaw:
    """Beta(alpha, alpha), alpha above 0; 2 is the best row of Table 10 (I-9)."""

    alpha: float = 2.0

    def __post_init__(self) -> None:
        check_positive("alpha", self.alpha)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        return draw_beta(self.alpha, count, generator).to(torch.float32)


@dataclass(frozen=True)
class NormalLaw:
    """N(0, scale), which needs a reading as a label weight (I-14).

    Attributes:
        scale: standard deviation, above 0.
        reading: "clamp_final" leaves the draw and lets the rule clamp the final weight; "clamp_draw" clamps the draw to
            [0, 1]; "sigmoid" maps it to (0, 1), symmetric around 1/2.
    """

    scale: float = 1.0
    reading: str = "clamp_final"

    def __post_init__(self) -> None:
        check_positive("scale", self.scale)
        check_choice("reading", self.reading, ("clamp_final", "clamp_draw", "sigmoid"))

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        draw = self.scale * torch.randn(count, generator=generator, device=generator.device)
        if self.reading == "clamp_draw":
            return draw.clamp(0, 1)
        return torch.sigmoid(draw) if self.reading == "sigmoid" else draw


@dataclass(frozen=True)
class ConstantLaw:
    """No randomness: lambda_r at a fixed value, by default its mean. The control that the paper omits."""

    value: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.value <= 1:
            raise ValueError(f"value must lie between 0 and 1, not {self.value!r}")

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.full((count,), self.value, device=generator.device)


# ------------------------------------------------------------------------------------------------- LUMix


@dataclass(frozen=True)
class LUMixRule:
    """Equation 3: lambda = (1 - r_r - r_s) lambda_0 + r_r lambda_r + r_s lambda_s, per sample.

    The final weight is clamped to [0, 1], which acts only on unbounded laws.

    Attributes:
        r_r, r_s: shares of the random draw and of the prediction; at least 0, together at most 1.
        law: of lambda_r, one draw per sample and step.
        detach: take lambda_s as a constant for the gradient (I-12).
        apply_to: "cutmix" perturbs CutMix samples only, "both" all mixed ones (I-13). Unmixed samples never.
        scores: what lambda_s is read from, see `functional.predicted_weight`.
    """

    r_r: float | Tensor = 0.4
    r_s: float | Tensor = 0.1
    law: Law = field(default_factory=BetaLaw)
    detach: bool = True
    apply_to: str = "cutmix"
    scores: str = "softmax"

    def __post_init__(self) -> None:
        check_choice("apply_to", self.apply_to, ("cutmix", "both"))
        check_choice("scores", self.scores, ("softmax", "double_softmax", "sigmoid"))
        if isinstance(self.r_r, Tensor) or isinstance(self.r_s, Tensor):
            return
        # Shares such as 0.3 + 0.7 miss 1 by a rounding error.
        if self.r_r < 0 or self.r_s < 0 or self.r_r + self.r_s > 1 + 1e-9:
            raise ValueError(
                f"r_r and r_s must be at least 0 and sum to at most 1, so that the weight stays in [0, 1]; "
                f"not {self.r_r!r} and {self.r_s!r}"
            )

    def perturbs(self, batch: MixedBatch) -> Tensor:
        if self.apply_to == "cutmix":
            return batch.is_kind(Kind.CUTMIX) | batch.is_kind(Kind.MASK)
        return ~batch.is_kind(Kind.NONE)

    def __call__(self, logits: Tensor, batch: MixedBatch, generator: torch.Generator | None = None) -> Tensor:
        """Own weights [B] float32; `generator` supplies lambda_r."""
        if generator is None:
            raise ValueError("LUMixRule draws lambda_r: pass a torch.Generator as generator=")
        lam_r = self.law.draw(len(batch), generator).to(logits.device, non_blocking=True)
        return self.weigh(logits, batch, lam_r)

    def weigh(self, logits: Tensor, batch: MixedBatch, lam_r: Tensor) -> Tensor:
        """Own weights [B] for given draws lam_r [B], which, like the paper's lambda, weigh the PARTNER's label."""
        predicted = functional.predicted_weight(logits, batch.labels, batch.partner_labels, self.scores)
        if self.detach:
            predicted = predicted.detach()
        own = functional.mix_weights(batch.own_weight, 1 - lam_r, predicted, self.r_r, self.r_s)
        return torch.where(self.perturbs(batch), own.clamp(0, 1), batch.own_weight)
