"""Label space: rules that turn a prediction and a mixed batch into the weight of the own label.

A rule is called as rule(logits [B, C], batch, generator=None, attention=None) and returns own_weight [B] in float32.
`perturbs(batch)` [B] bool names the samples that the method, and with it the regulariser, applies to. A rule that
`needs_attention` reads `attention` [B, P]: that of the class token on the P patches of the mixed images, from the very
forward pass that gave the logits (`lumix.train.attention` records it from timm's vision transformers).
"""

import math
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from lumix import functional
from lumix.batch import Kind, MixedBatch
from lumix.checks import check_choice, check_positive, check_probability
from lumix.draws import draw_beta


class Rule(Protocol):
    """What a loss needs of a label rule."""

    @property
    def needs_attention(self) -> bool: ...

    def __call__(
        self,
        logits: Tensor,
        batch: MixedBatch,
        generator: torch.Generator | None = None,
        attention: Tensor | None = None,
    ) -> Tensor: ...

    def perturbs(self, batch: MixedBatch) -> Tensor: ...


class AreaRule:
    """The ordinary label weight: the visible area, or the blend weight, of the own image (lambda_0)."""

    needs_attention = False

    def __call__(
        self,
        logits: Tensor,
        batch: MixedBatch,
        generator: torch.Generator | None = None,
        attention: Tensor | None = None,
    ) -> Tensor:
        return batch.own_weight

    def perturbs(self, batch: MixedBatch) -> Tensor:
        return torch.zeros_like(batch.kind, dtype=torch.bool)


# ------------------------------------------------------------------------------------------------- TransMix


def attended_weight(batch: MixedBatch, attention: Tensor | None) -> Tensor:
    """Own weights [B] by where the class token looks: lambda_1 of TransMix, seen from the own label.

    A patch belongs to the image that shows at its first pixel, so a box smaller than a patch may get no attention.

    Args:
        attention: [B, P] on the patches, row by row; square patches that tile the image. Taken as a constant.

    Raises:
        ValueError: without attention, for one of another shape, or where the record no longer knows its cut.
    """
    if attention is None:
        raise ValueError("this label rule reads the class token's attention: pass it as attention= [B, patches]")
    height, width = batch.images.shape[-2:]
    patch = math.isqrt(height * width // attention.shape[-1]) if attention.ndim == 2 and attention.shape[-1] else 0
    if not patch or height % patch or width % patch or (height // patch) * (width // patch) != attention.shape[-1]:
        raise ValueError(
            f"attention must be [B, patches] with square patches that tile {height} x {width} pixels, not of shape "
            f"{list(attention.shape)}: average over heads and leave out the class token"
        )
    return functional.attention_weight(attention.detach(), batch.own_mask(patch).flatten(1))


@dataclass(frozen=True)
class TransMixRule:
    """TransMix (Chen et al. 2022): the weight by area and the weight by attention, averaged.

    Applies to cut samples; blended and unmixed ones keep their weight.

    Attributes:
        share: of attention in the weight, 1/2 as published.
    """

    share: float = 0.5
    needs_attention = True

    def __post_init__(self) -> None:
        check_probability("share", self.share)

    def perturbs(self, batch: MixedBatch) -> Tensor:
        return batch.is_cut()

    def __call__(
        self,
        logits: Tensor,
        batch: MixedBatch,
        generator: torch.Generator | None = None,
        attention: Tensor | None = None,
    ) -> Tensor:
        """Own weights [B] float32; `attention` [B, patches] as for `attended_weight`."""
        own = (1 - self.share) * batch.own_weight + self.share * attended_weight(batch, attention)
        return torch.where(self.perturbs(batch), own, batch.own_weight)


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
        r_a: share of the class token's attention, a third part that is ours: LUMix and TransMix together. Its share,
            like theirs, is taken from the area's.
    """

    r_r: float | Tensor = 0.4
    r_s: float | Tensor = 0.1
    law: Law = field(default_factory=BetaLaw)
    detach: bool = True
    apply_to: str = "cutmix"
    scores: str = "softmax"
    r_a: float = 0.0

    def __post_init__(self) -> None:
        check_choice("apply_to", self.apply_to, ("cutmix", "both"))
        check_choice("scores", self.scores, ("softmax", "double_softmax", "sigmoid"))
        check_probability("r_a", self.r_a)
        if isinstance(self.r_r, Tensor) or isinstance(self.r_s, Tensor):
            return
        # Shares such as 0.3 + 0.7 miss 1 by a rounding error.
        if self.r_r < 0 or self.r_s < 0 or self.r_r + self.r_s + self.r_a > 1 + 1e-9:
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
        return batch.is_cut() if self.apply_to == "cutmix" else ~batch.is_kind(Kind.NONE)

    def __call__(
        self,
        logits: Tensor,
        batch: MixedBatch,
        generator: torch.Generator | None = None,
        attention: Tensor | None = None,
    ) -> Tensor:
        """Own weights [B] float32; `generator` supplies lambda_r, `attention` is for r_a above 0."""
        if generator is None:
            raise ValueError("LUMixRule draws lambda_r: pass a torch.Generator as generator=")
        lam_r = self.law.draw(len(batch), generator).to(logits.device, non_blocking=True)
        return self.weigh(logits, batch, lam_r, attention)

    def weigh(self, logits: Tensor, batch: MixedBatch, lam_r: Tensor, attention: Tensor | None = None) -> Tensor:
        """Own weights [B] for given draws lam_r [B], which, like the paper's lambda, weigh the PARTNER's label."""
        read = logits.detach() if self.detach else logits
        predicted = functional.predicted_weight(read, batch.labels, batch.partner_labels, self.scores)
        own = functional.mix_weights(batch.own_weight, 1 - lam_r, predicted, self.r_r, self.r_s)
        if self.needs_attention:
            own = own + self.r_a * (attended_weight(batch, attention) - batch.own_weight)
        return torch.where(self.perturbs(batch), own.clamp(0, 1), batch.own_weight)
