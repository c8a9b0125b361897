"""MixedBatch: the one record that travels from image space to label space.

Shape legend: B samples, H rows, W columns. Sample i has an own image (the canvas, class `labels[i]`) and a partner
image `partner[i]` (class `partner_labels[i]`); for cutting methods the partner is what is pasted.
"""

from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any

import torch
from torch import Tensor


class Kind(IntEnum):
    """How a sample was mixed; the values of `MixedBatch.kind`."""

    NONE = 0
    MIXUP = 1
    CUTMIX = 2
    MASK = 3


@dataclass(frozen=True)
class MixedBatch:
    """B mixed images and everything a label rule or loss may ask about them.

    Attributes:
        images: [B, C, H, W] mixed images, dtype and memory format of the input.
        labels: [B] int64, own class.
        partner_labels: [B] int64, class of the partner.
        own_weight: [B] float32 in [0, 1], area or blend weight of the own label (1 - lambda_0).
        partner: [B] int64, index of the partner in the batch that was mixed.
        kind: [B] uint8, a `Kind` per sample.
        box: [B, 4] int64 or None: pasted rectangle (top, bottom, left, right), half open; zeros where nothing was cut.
        mask: [B, 1, H, W] or None: 1 where the own image shows, for methods whose region is no rectangle.
    """

    images: Tensor
    labels: Tensor
    partner_labels: Tensor
    own_weight: Tensor
    partner: Tensor
    kind: Tensor
    box: Tensor | None = None
    mask: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def _map(self, function: Any) -> "MixedBatch":
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        mapped: dict[str, Any] = {name: None if value is None else function(value) for name, value in values.items()}
        return MixedBatch(**mapped)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "MixedBatch":
        """The same batch with every tensor on `device`."""
        return self._map(lambda t: t.to(device, non_blocking=non_blocking))

    def __getitem__(self, index: slice | Tensor) -> "MixedBatch":
        """Some of the samples, by slice or index tensor. `partner` goes on naming rows of the batch that was mixed."""
        if isinstance(index, int):
            raise TypeError(f"index a MixedBatch with a slice or a tensor, not {index}: use [{index}:{index + 1}]")
        return self._map(lambda t: t[index])

    def is_kind(self, kind: Kind) -> Tensor:
        """[B] bool, which samples were mixed in this way."""
        return is_kind(self.kind, kind)

    def own_mask(self) -> Tensor:
        """[B, 1, H, W] float32, the share of the own image at each pixel: 1 or 0 when cut, its weight when blended.

        Raises:
            ValueError: where the record no longer knows the place of the cut, as after RandomShuffle.
        """
        if self.mask is not None:
            return self.mask.float()
        if self.box is None and bool((self.is_kind(Kind.CUTMIX) | self.is_kind(Kind.MASK)).any()):
            raise ValueError("this batch was cut but holds neither box nor mask: ask before patches are shuffled")
        height, width = self.images.shape[-2:]
        share = torch.where(self.is_kind(Kind.MIXUP), self.own_weight, torch.ones_like(self.own_weight))
        shares = share.view(-1, 1, 1, 1).expand(-1, 1, height, width)
        if self.box is None:
            return shares
        return torch.where(inside_box(self.box, height, width), torch.zeros_like(shares), shares)

    def cut_masks(self, masks: Tensor) -> Tensor:
        """Segmentation masks [B, H, W] of the unmixed batch, cut and pasted as the images were.

        Raises:
            ValueError: for a batch with blended samples, whose pixels belong to two objects at once.
        """
        if bool(self.is_kind(Kind.MIXUP).any()):
            raise ValueError("a blended (Mixup) sample has no mask of one object per pixel: cut masks of CutMix only")
        return torch.where(self.own_mask().squeeze(1) > 0.5, masks, masks[self.partner])


def is_kind(kinds: Tensor, kind: Kind) -> Tensor:
    """Where `kinds` uint8 is `kind`, bool of the same shape."""
    # torch.compile takes the comparison of a tensor with an enum for a constant; with an int it compares.
    return kinds == int(kind)


def inside_box(box: Tensor, height: int, width: int) -> Tensor:
    """[B, 1, H, W] bool, true inside each half-open box [B, 4] (top, bottom, left, right)."""
    rows = torch.arange(height, device=box.device).view(1, height, 1)
    columns = torch.arange(width, device=box.device).view(1, 1, width)
    top, bottom, left, right = (side.view(-1, 1, 1) for side in box.unbind(-1))
    return ((rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)).unsqueeze(1)
