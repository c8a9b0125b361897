"""Random Shuffling (LUMix, Table 12): the mixed image cut into square patches, permuted anew for each sample."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lumix.batch import MixedBatch
from lumix.mixers.plan import Mixer


def patch_grid(height: int, width: int, patch: int) -> tuple[int, int]:
    """Rows and columns of a grid of square patches.

    Raises:
        ValueError: where patches of this side do not tile the image.
    """
    if patch < 1 or height % patch or width % patch:
        raise ValueError(f"patches of side {patch} do not tile an image of {height} x {width}: use a common divisor")
    return height // patch, width // patch


def permute_patches(images: Tensor, order: Tensor, patch: int) -> Tensor:
    """Patch i (row-major) of sample b becomes the old patch order[b, i]; images [B, C, H, W], order [B, patches]."""
    rows, columns = patch_grid(images.shape[-2], images.shape[-1], patch)
    size, channels = images.shape[:2]
    patches = images.reshape(size, channels, rows, patch, columns, patch).permute(0, 2, 4, 1, 3, 5)
    patches = patches.reshape(size, rows * columns, -1)
    moved = patches.gather(1, order.unsqueeze(-1).expand_as(patches))
    moved = moved.view(size, rows, columns, channels, patch, patch).permute(0, 3, 1, 4, 2, 5)
    result = moved.reshape(images.shape)
    # reshape of a permuted view is contiguous; the network may have asked for channels_last
    if images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous():
        return result.contiguous(memory_format=torch.channels_last)
    return result


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
