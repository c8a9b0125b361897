"""Random Shuffling (LUMix, Table 12): the mixed image cut into square patches, permuted anew for each sample."""

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from lumix.batch import MixedBatch
from lumix.checks import check_part, check_positive
from lumix.draws import device_of
from lumix.mixers.base import MIXER, Mixer
from lumix.mixers.none import NoMix
from lumix.mixers.patches import patch_grid, permute_patches
from lumix.registry import register


@dataclass(frozen=True)
class ShuffleDraws:
    """What the mixer drew, and the order of the patches, [B, patches] int64."""

    mixing: Any
    order: Tensor


@register("step", "shuffle", "Random shuffling")
@dataclass(frozen=True)
class RandomShuffle(Mixer):
    """Shuffle the patches of what `mixer` returns; labels and their weights stay as they are.

    With the network's own patch size this permutes its tokens before the position embedding. A permutation of 16 x 16
    pixels is the reading for 224 pixels (I-18). The batch's box and mask are dropped: they no longer fit the image.
    """

    mixer: Mixer = field(default_factory=NoMix)
    patch: int = 16

    def __post_init__(self) -> None:
        check_part("mixer", self.mixer, MIXER, "a mixer")
        check_positive("patch", self.patch, whole=True)

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> ShuffleDraws:
        self.check_shape(shape)
        rows, columns = patch_grid(shape[-2], shape[-1], self.patch)
        mixing = self.mixer.draw(shape, generator)
        keys = torch.rand(shape[0], rows * columns, generator=generator, device=device_of(generator))
        return ShuffleDraws(mixing, keys.argsort(dim=1))

    def apply(self, images: Tensor, labels: Tensor, draws: ShuffleDraws, model: Any = None) -> MixedBatch:
        labels = self.check_batch(images, labels, len(draws.order))
        batch = self.mixer.apply(images, labels, draws.mixing, model)
        shuffled = permute_patches(batch.images, draws.order.to(images.device), self.patch)
        return replace(batch, images=shuffled, box=None, mask=None)
