"""Mixers made of mixers: Switch (Mixup or CutMix for each draw, DeiT's baseline) and Either (one of any two)."""

from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from lumix.batch import Kind, MixedBatch
from lumix.inputs import Checked, Share, check_part
from lumix.mixers.base import MIXER, Mixer, NoMix, PlannedMixer
from lumix.mixers.basic import CutMix, Mixup
from lumix.mixers.paste import Draws
from lumix.random import draw_uniform


@dataclass(frozen=True)
class Switch(PlannedMixer):
    """Draw one of two planned mixers per batch, pair or sample; by default Mixup or CutMix, as DeiT does.

    `switch_prob` is the probability of the second, CutMix. `mode`, `pairing`, `prob` and `inplace` are the switch's
    own: parts with settings of their own are refused.
    """

    mixup: PlannedMixer = field(default_factory=Mixup)
    cutmix: PlannedMixer = field(default_factory=CutMix)
    switch_prob: Share = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("mixup", "cutmix"):  # of each part no more than its `draw_each` is asked
            part = getattr(self, name)
            check_part(name, part, MIXER, "a mixer as Mixup or CutMix")
            if not isinstance(part, PlannedMixer) or type(part).draw is not PlannedMixer.draw:
                raise ValueError(f"{name} must draw without looking at images or layers, as Mixup: use Either")
            for setting in fields(PlannedMixer):
                value = getattr(part, setting.name)
                same = setting.name != "prob" and value == getattr(self, setting.name)  # probabilities would multiply
                if value != setting.default and not same:
                    given = f"{setting.name}={value!r}"
                    raise ValueError(f"{given} of {name} would not be used: give it to the switch, as Switch({given})")

    @property
    def ndims(self) -> tuple[int, ...]:  # type: ignore[override]
        return tuple(count for count in self.mixup.ndims if count in self.cutmix.ndims)

    @property
    def kinds(self) -> frozenset[Kind]:  # type: ignore[override]
        return self.mixup.kinds | self.cutmix.kinds

    def draw_each(self, count: int, height: int, width: int, generator: torch.Generator) -> Draws:
        cuts = draw_uniform(count, generator) < self.switch_prob
        cut = self.cutmix.draw_each(count, height, width, generator)
        blended = self.mixup.draw_each(count, height, width, generator)
        return Draws(
            torch.where(cuts, cut.own_weight, blended.own_weight),
            torch.where(cuts, cut.kind, blended.kind),
            torch.where(cuts.unsqueeze(1), cut.box, blended.box),
        )


@dataclass(frozen=True)
class EitherDraws:
    """Which mixer was drawn, 0 for none of the two, 1 for the first, 2 for the second; and what it drew itself."""

    chosen: int
    draws: Any


@dataclass(frozen=True)
class Either(Checked, Mixer):
    """One of two mixers for the whole batch: the switch for methods that look at the images, one by one.

    `switch_prob` is the probability of the second; `prob` is that of one of them, and multiplies with theirs.
    """

    first: Any  # OmegaConf asks for subclasses, which a protocol with attributes cannot answer
    second: Any
    switch_prob: Share = 0.5
    prob: Share = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_part("first", self.first, MIXER, "a mixer")
        check_part("second", self.second, MIXER, "a mixer")

    def _part(self, chosen: int) -> Mixer:
        return (NoMix(), self.first, self.second)[chosen]

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> EitherDraws:
        """As `Mixer.draw`. Two draws are looked at, which waits for a generator that is not on the CPU."""
        mixing, switching = draw_uniform(2, generator).tolist()
        chosen = (2 if switching < self.switch_prob else 1) if mixing < self.prob else 0
        return EitherDraws(chosen, self._part(chosen).draw(shape, generator))

    def apply(self, images: Tensor, labels: Tensor, draws: EitherDraws, model: Any = None) -> MixedBatch:
        return self._part(draws.chosen).apply(images, labels, draws.draws, model)
