"""Square patches of images: their grid, and images with their patches permuted."""

import torch
from torch import Tensor


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
    return permute_grid(images, order, *patch_grid(images.shape[-2], images.shape[-1], patch))


def permute_grid(images: Tensor, order: Tensor, rows: int, columns: int) -> Tensor:
    """The same for the patches of a grid, which must divide the image and need not be square."""
    size, channels, height, width = images.shape
    high, wide = height // rows, width // columns
    patches = images.reshape(size, channels, rows, high, columns, wide).permute(0, 2, 4, 1, 3, 5)
    patches = patches.reshape(size, rows * columns, -1)
    moved = patches.gather(1, order.unsqueeze(-1).expand_as(patches))
    moved = moved.view(size, rows, columns, channels, high, wide).permute(0, 3, 1, 4, 2, 5)
    result = moved.reshape(images.shape)
    # reshape of a permuted view is contiguous; the network may have asked for channels_last
    if images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous():
        return result.contiguous(memory_format=torch.channels_last)
    return result
