"""Pixels of two images into one: blended by a weight, or selected by a mask."""

import torch
from torch import Tensor


def work_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which images of `dtype` are blended: one that holds all their values (of int64 those to 2**53)."""
    wide = (torch.float64, torch.int32, torch.int64)
    return torch.float64 if dtype in wide else torch.float32


def blend(own: Tensor, other: Tensor, own_weight: Tensor) -> Tensor:
    """own_weight * own + (1 - own_weight) * other for `own_weight` float64 [B] or broadcastable to [B, C, H, W].

    Computed in `work_dtype` and returned in the dtype of `own`, rounded for integers. Two products and a sum, in this
    order, are what timm computes.
    """
    own_share, other_share = shares(own_weight, own.dtype)
    mixed = own.to(own_share.dtype) * own_share
    mixed.add_(other.to(own_share.dtype) * other_share)
    return (mixed if own.is_floating_point() else mixed.round_()).to(own.dtype)


def blend_into(own: Tensor, own_share: Tensor, theirs: Tensor) -> None:
    """`blend`, written into `own`; `theirs` is other_share * other, in the dtype of the `shares`."""
    mixed = own.to(theirs.dtype).mul_(own_share).add_(theirs)
    if own.dtype != theirs.dtype:
        own.copy_(mixed if own.is_floating_point() else mixed.round_())


def shares(own_weight: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Weights of own and other, as [B, 1, 1, 1] or given, in the dtype in which images of `dtype` are blended."""
    work = work_dtype(dtype)
    weight = own_weight.view(-1, 1, 1, 1) if own_weight.ndim == 1 else own_weight
    weight = weight.to(torch.promote_types(weight.dtype, work))  # the difference from 1 is exact in the wider
    return weight.to(work), (1 - weight).to(work)


def mix_by_mask(images: Tensor, partner: Tensor, own: Tensor) -> Tensor:
    """Images [B, C, H, W] where `own`, bool [B or 1, 1, H, W], is true, and their partner's pixels elsewhere."""
    other = images[partner]
    # In place of the copy: touching fresh memory costs the CPU as much as the selection.
    return torch.where(own, images, other) if images.requires_grad else torch.where(own, images, other, out=other)
