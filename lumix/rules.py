"""Label rules, from a prediction and a mixed batch to the OWN label's weight, 1 - lambda; and the laws of lambda_r."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal, Protocol, runtime_checkable

import torch
from torch import Generator, Tensor

from lumix import functional
from lumix.batch import Kind, MixedBatch
from lumix.inputs import Checked, Learnable, Positive, Range, Share, check_part, known
from lumix.random import device_of, draw_beta, moved
from lumix.registry import register


class Rule(ABC):
    """Gives the weight [B] of each sample's own label; the partner's label has the rest.

    What is random is drawn once for the whole batch (`draw`), and the batch may then be weighed part by part (`weigh`,
    with the draws sliced like the batch): the number of parts changes no weight. A call does both.
    """

    needs_attention: ClassVar[bool] = False  # whether `weigh` reads the attention that `lumix.integrations` record

    def draw(self, batch: MixedBatch, generator: Generator | None) -> Tensor | None:
        """All that is random about the weights of this batch: [B] on its device, None for a rule that draws nothing."""
        return None

    @abstractmethod
    def weigh(
        self, logits: Tensor, batch: MixedBatch, draws: Tensor | None = None, attention: Tensor | None = None
    ) -> Tensor:
        """Own weights [B], float32 or wider, for logits [B, C] of the mixed images and draws [B] of `draw`.

        `attention` [B, P] is the class token's on the P patches, row by row, of the pass that gave the logits.
        """

    @abstractmethod
    def perturbs(self, batch: MixedBatch) -> Tensor:
        """[B] bool: the samples that the method, and with it the regulariser, applies to."""

    def __call__(
        self, logits: Tensor, batch: MixedBatch, generator: Generator | None = None, attention: Tensor | None = None
    ) -> Tensor:
        """Own weights [B] by draws from `generator`."""
        return self.weigh(logits, batch, self.draw(batch, generator), attention)


@register("rule", "area", "area")
@dataclass(frozen=True)
class AreaRule(Rule):
    """The visible area, or the blend weight, of the own image: 1 - lambda_0."""

    def weigh(
        self, logits: Tensor, batch: MixedBatch, draws: Tensor | None = None, attention: Tensor | None = None
    ) -> Tensor:
        return batch.own_weight

    def perturbs(self, batch: MixedBatch) -> Tensor:
        return torch.zeros_like(batch.kind, dtype=torch.bool)


def attended_weight(batch: MixedBatch, attention: Tensor | None) -> Tensor:
    """Own weights [B] by where the class token looks, see `functional.attention_weight`, with the own image's mask.

    `attention` [B, P] is taken as a constant, of square patches that tile the image, row by row. A patch belongs to the
    image that shows at its first pixel, so a box smaller than a patch may get no attention.
    """
    if not isinstance(attention, Tensor):
        raise ValueError("this label rule reads the class token's attention: pass it as attention= [B, patches]")
    if batch.images.ndim != 4:
        raise ValueError(f"attention is read for images [B, C, H, W], not for {list(batch.images.shape)}: use AreaRule")
    height, width = batch.images.shape[-2:]
    patches = attention.shape[-1] if attention.ndim == 2 and len(attention) == batch.size else 0
    patch = math.isqrt(height * width // patches) if patches else 0
    if not patch or height % patch or width % patch or (height // patch) * (width // patch) != patches:
        raise ValueError(
            f"attention must be [{batch.size}, patches] with square patches that tile {height} x {width} pixels, not "
            f"of shape {list(attention.shape)}: average over heads and leave out the class token"
        )
    return functional.attention_weight(attention.detach(), batch.own_mask(patch).flatten(1))


@register("rule", "transmix", "TransMix")
@dataclass(frozen=True)
class TransMixRule(Checked, Rule):
    """TransMix, label: of cut samples the weights by area and, with this share, by attention (Chen et al. 2022)."""

    share: Share = 0.5
    needs_attention: ClassVar[bool] = True

    def perturbs(self, batch: MixedBatch) -> Tensor:
        return batch.is_cut()

    def weigh(
        self, logits: Tensor, batch: MixedBatch, draws: Tensor | None = None, attention: Tensor | None = None
    ) -> Tensor:
        own = (1 - self.share) * batch.own_weight + self.share * attended_weight(batch, attention)
        return torch.where(self.perturbs(batch), own, batch.own_weight)


@runtime_checkable
class Law(Protocol):
    """The law of lambda_r, the random part of equation 3: [count] float32 on the generator's device."""

    def draw(self, count: int, generator: Generator) -> Tensor: ...


@register("law", "beta", "Beta(alpha, alpha)")
@dataclass(frozen=True)
class BetaLaw(Checked):
    """Beta(alpha, alpha), alpha above 0; 2 is the best row of Table 10 (I-9)."""

    alpha: Positive = 2.0

    def draw(self, count: int, generator: Generator) -> Tensor:
        return draw_beta(self.alpha, count, generator).to(torch.float32)


@register("law", "normal", "N(0, scale)")
@dataclass(frozen=True)
class NormalLaw(Checked):
    """N(0, scale), which needs a reading as a label weight (I-14).

    Attributes:
        scale: standard deviation, above 0 and at most 1e6, so that float32 holds every draw.
        reading: "raw" leaves the draw as it is, and `LUMixRule` clamps the final weight; "clamp_draw" clamps the draw
            to [0, 1]; "sigmoid" maps it to (0, 1), symmetric around 1/2.
    """

    scale: Annotated[float, Range(0, 1e6, open_low=True)] = 1.0
    reading: Literal["raw", "clamp_draw", "sigmoid"] = "raw"

    def draw(self, count: int, generator: Generator) -> Tensor:
        draw = self.scale * torch.randn(count, generator=generator, device=device_of(generator), dtype=torch.float32)
        if self.reading == "clamp_draw":
            return draw.clamp(0, 1)
        return torch.sigmoid(draw) if self.reading == "sigmoid" else draw


@register("law", "constant", "a constant")
@dataclass(frozen=True)
class ConstantLaw(Checked):
    """No randomness: lambda_r at a fixed value, by default its mean. The control that the paper omits."""

    value: Share = 0.5

    def draw(self, count: int, generator: Generator) -> Tensor:
        return torch.full((count,), self.value, device=device_of(generator), dtype=torch.float32)


@register("rule", "lumix", "LUMix")
@dataclass(frozen=True)
class LUMixRule(Checked, Rule):
    """LUMix, equation 3: (1 - r_r - r_s) lambda_0 + r_r lambda_r + r_s lambda_s per sample, clamped to [0, 1].

    Attributes:
        r_r, r_s: shares of the random draw and of the prediction; at least 0, together at most 1.
        law: of lambda_r, one draw per sample and step.
        detach: take lambda_s as a constant for the gradient (I-12).
        apply_to: "cut" perturbs the samples that were cut, by box or by mask, "both" the blended ones too (I-13).
            Unmixed samples never.
        scores: what lambda_s, equations 4 and 5, is read from, see `functional.predicted_weight`.
        r_a: share of the class token's attention, a third part that is ours; its share, like theirs, is taken from the
            area's.
    """

    r_r: Learnable = 0.4
    r_s: Learnable = 0.1
    law: Law = field(default_factory=BetaLaw)
    detach: bool = True
    apply_to: Literal["cut", "both"] = "cut"
    scores: Literal["softmax", "double_softmax", "sigmoid"] = "softmax"
    r_a: Share = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_part("law", self.law, ("draw",), "a law as BetaLaw")
        shares = {name: getattr(self, name) for name in ("r_r", "r_s", "r_a")}
        # Shares such as 0.3 + 0.7 miss 1 by a rounding error.
        if sum(known(share) or 0.0 for share in shares.values()) > 1 + 1e-6:
            found = " and ".join(f"{name} = {share!r}" for name, share in shares.items() if name != "r_a" or share)
            raise ValueError(f"shares must sum to at most 1, so that the weight stays in [0, 1]; not {found}")

    @property
    def needs_attention(self) -> bool:  # type: ignore[override]
        return self.r_a > 0

    def perturbs(self, batch: MixedBatch) -> Tensor:
        return batch.is_cut() if self.apply_to == "cut" else ~batch.is_kind(Kind.NONE)

    def draw(self, batch: MixedBatch, generator: Generator | None) -> Tensor:
        """lambda_r [B], which like the paper's lambda weighs the PARTNER's label."""
        if generator is None:
            raise ValueError("LUMixRule draws lambda_r: pass a torch.Generator as generator=")
        return moved(self.law.draw(batch.size, generator), batch.labels.device)

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
        return torch.where(self.perturbs(batch), own.clamp(0, 1), batch.own_weight)
