"""timm's switch between Mixup and CutMix, the DeiT baseline: each draw is one of the two; and one of any two mixers."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lumix.batch import Kind, MixedBatch
from lumix.checks import check_batch, check_probability
from lumix.draws import draw_uniform
from lumix.mixers.apply import apply_plan
from lumix.mixers.base import Mixer, PlannedMixer
from lumix.mixers.cutmix import CutMix
from lumix.mixers.mixup import Mixup
from lumix.mixers.plan import Draws, unmixed_plan


@dataclass(frozen=True)
class Switch(PlannedMixer):
    """Draw Mixup or CutMix per batch, pair or sample.

    `mode`, `pairing` and `prob` are the switch's own; those of its two parts are not used.

    Attributes:
        mixup, cutmix: the two parts.
        switch_prob: probability of CutMix.
    """

    mixup: Mixup = field(default_factory=Mixup)
    cutmix: CutMix = field(default_factory=CutMix)
    switch_prob: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_probability("switch_prob", self.switch_prob)

    @property
    def kinds(self) -> frozenset[Kind]:
        return frozenset({Kind.MIXUP, Kind.CUTMIX})

    def draw(self, count: int, height: int, width: int, generator: torch.Generator) -> Draws:
        cuts = draw_uniform(count, generator) < self.switch_prob
        cut = self.cutmix.draw(count, height, width, generator)
        blended = self.mixup.draw(count, height, width, generator)
        return Draws(
            torch.where(cuts, cut.own_weight, blended.own_weight),
            torch.where(cuts, cut.kind, blended.kind),
            torch.where(cuts.unsqueeze(1), cut.box, blended.box),
        )


@dataclass(frozen=True)
class Either:
    """One of two mixers for the whole batch: the switch for methods that look at the images, such as Puzzle-Mix.

    Attributes:
        first, second: any two mixers, as `Mixup(0.8, pairing="flip")` and `SaliencyMix()`.
        switch_prob: probability of the second.
        prob: probability that the batch is mixed at all.
    """

    first: Mixer
    second: Mixer
    switch_prob: float = 0.5
    prob: float = 1.0

    def __post_init__(self) -> None:
        check_probability("switch_prob", self.switch_prob)
        check_probability("prob", self.prob)

    def __call__(self, images: Tensor, labels: Tensor, generator: torch.Generator, model: Any = None) -> MixedBatch:
        """As `Mixer`. Two draws are looked at, which waits for the device of a generator that is not on the CPU."""
        check_batch(images, labels)
        mixing, switching = draw_uniform(2, generator).tolist()
        if mixing >= self.prob:
            return apply_plan(images, labels, unmixed_plan(len(images), images.device))
        chosen = self.second if switching < self.switch_prob else self.first
        return chosen(images, labels, generator, model)
