"""Laws of lambda_r, the random part of equation 3."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from lumix.checks import check_choice, check_number, check_positive, check_probability
from lumix.draws import device_of, draw_beta
from lumix.registry import register


class Law(Protocol):
    """The law of lambda_r: [count] float32 on the generator's device."""

    def draw(self, count: int, generator: torch.Generator) -> Tensor: ...


@register("law", "beta", "Beta(alpha, alpha)")
@dataclass(frozen=True)
class BetaLaw:
    """Beta(alpha, alpha), alpha above 0; 2 is the best row of Table 10 (I-9)."""

    alpha: float = 2.0

    def __post_init__(self) -> None:
        check_positive("alpha", self.alpha)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        return draw_beta(self.alpha, count, generator).to(torch.float32)


@register("law", "normal", "N(0, scale)")
@dataclass(frozen=True)
class NormalLaw:
    """N(0, scale), which needs a reading as a label weight (I-14).

    Attributes:
        scale: standard deviation, above 0 and at most 1e6.
        reading: "raw" leaves the draw as it is, and `LUMixRule(clamp=...)` decides about the final weight; "clamp_draw"
            clamps the draw to [0, 1]; "sigmoid" maps it to (0, 1), symmetric around 1/2.
    """

    scale: float = 1.0
    reading: str = "raw"

    def __post_init__(self) -> None:
        check_number("scale", self.scale, 0, 1e6, open_low=True)  # float32 holds every draw
        check_choice("reading", self.reading, ("raw", "clamp_draw", "sigmoid"))

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        draw = self.scale * torch.randn(count, generator=generator, device=device_of(generator))
        if self.reading == "clamp_draw":
            return draw.clamp(0, 1)
        return torch.sigmoid(draw) if self.reading == "sigmoid" else draw


@register("law", "constant", "a constant")
@dataclass(frozen=True)
class ConstantLaw:
    """No randomness: lambda_r at a fixed value, by default its mean. The control that the paper omits."""

    value: float = 0.5

    def __post_init__(self) -> None:
        check_probability("value", self.value)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.full((count,), self.value, device=device_of(generator))
