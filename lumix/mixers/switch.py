"""timm's switch between Mixup and CutMix, the DeiT baseline: each draw is one of the two."""

from dataclasses import dataclass, field

import torch

from lumix.batch import Kind
from lumix.mixers.cutmix import CutMix
from lumix.mixers.mixup import Mixup
from lumix.mixers.plan import Draws, PlannedMixer, check_probability, draw_uniform


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
