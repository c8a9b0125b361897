"""Random Shuffling (LUMix, Table 12): the mixed image cut into square patches, permuted anew for each sample."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lumix.batch import MixedBatch
from lumix.mixers.base import Mixer
from lumix.mixers.patches import patch_grid, permute_patches


@dataclass(frozen=True)
class RandomShuffle:
    """Shuffle the patches of what `mixer` returns; labels and their weights stay as they are.

    With the network's own patch size this permutes its tokens before the position embedding. A permutation of 16 x 16
    pixels is the reading for 224 pixels (I-18). The record's box is dropped: it no longer describes the image.
    """

    mixer: Mixer
    patch: int = 16

    def __call__(self, images: Tensor, labels: Tensor, generator: torch.Generator, model: Any = None) -> MixedBatch:
        batch = self.mixer(images, labels, generator, model)
        rows, columns = patch_grid(images.shape[-2], images.shape[-1], self.patch)
        keys = torch.rand(len(batch), rows * columns, generator=generator, device=generator.device)
        order = keys.argsort(dim=1).to(images.device)
        return replace(batch, images=permute_patches(batch.images, order, self.patch), box=None, mask=None)
