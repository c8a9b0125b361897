"""A batch transform as torchvision's v2.MixUp and v2.CutMix are, for a collate_fn.

    mix = Mix(lumix.Switch())
    loader = DataLoader(dataset, 128, collate_fn=lambda items: mix(*default_collate(items)))

It goes with v2.Compose, v2.RandomChoice and v2.RandomApply. Unlike theirs it returns a `MixedBatch`, for `MixLoss`:
a dense target does not say what was mixed.
"""

from typing import Any

import torch
from torch import Tensor, nn

from lumix.batch import MixedBatch
from lumix.inputs import check_part, checked
from lumix.mixers.base import MIXER, Mixer


class Mix(nn.Module):
    """Mixes (images [B, C, H, W], labels [B]), given as two arguments or as one pair, by a mixer without a network.

    It draws from the `generator`, on the CPU, or one of this `seed`; each worker and each epoch draws anew.
    """

    def __init__(self, mixer: Mixer, generator: torch.Generator | None = None, seed: int = 0) -> None:
        super().__init__()
        check_part("mixer", mixer, MIXER, "a mixer as CutMix()")
        checked("seed", seed, int)
        self.mixer = mixer
        self.generator = torch.Generator().manual_seed(seed) if generator is None else generator

    def forward(self, *inputs: Any) -> MixedBatch:
        pair = inputs[0] if len(inputs) == 1 and isinstance(inputs[0], tuple | list) else inputs
        if len(pair) != 2 or not all(isinstance(part, Tensor) for part in pair):
            kinds = ", ".join(type(part).__name__ for part in pair)
            raise ValueError(f"give a batch as (images, labels), two tensors, not ({kinds}): use default_collate first")
        # A tv_tensors.Image would hand its type on to weights and masks.
        images, labels = (part.as_subclass(Tensor) for part in pair)
        return self.mixer(images, labels, self.generator)

    def extra_repr(self) -> str:
        return f"mixer={self.mixer}"
