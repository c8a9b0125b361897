"""NoMix: the mixer that leaves every sample as it is."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lumix.batch import MixedBatch
from lumix.draws import device_of
from lumix.mixers.apply import apply_plan
from lumix.mixers.base import ANY, Mixer
from lumix.mixers.plan import MixPlan, unmixed_plan


@dataclass(frozen=True)
class NoMix(Mixer):
    """Return a copy of the images, all of kind NONE. Nothing is drawn from the generator."""

    ndims = ANY

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> MixPlan:
        self.check_shape(shape)
        return unmixed_plan(shape[0], device_of(generator))

    def apply(self, images: Tensor, labels: Tensor, draws: MixPlan, model: Any = None) -> MixedBatch:
        return apply_plan(images, self.check_batch(images, labels, len(draws.partner)), draws)
