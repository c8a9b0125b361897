"""MixedBatch: what mixers return, and what label rules and losses read.

Shape legend: B samples, H rows, W columns. Sample i has an own image (class `labels[i]`) and a partner image
`partner[i]` (class `partner_labels[i]`); methods that cut paste a part of the partner into the own image.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from enum import IntEnum
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from lumix.checks import shown
from lumix.inputs import sides


class Kind(IntEnum):
    """How a sample's pixels were mixed: not at all, blended, by a pasted box, or by a mask. Cuts come last."""

    NONE = 0
    BLEND = 1
    BOX = 2
    MASK = 3


class Record:
    """Base of the dataclasses that stand for a batch: training frameworks move, cast, pin and slice them as one."""

    def _map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """The same with `function` of every tensor, also of records in it."""
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        for name, value in values.items():
            if isinstance(value, Tensor):
                values[name] = function(value)
            elif isinstance(value, Record):
                values[name] = value._map(function)
        return type(self)(**values)

    def to(self, *arguments: Any, **keywords: Any) -> Self:
        """The same with every tensor on another device. Arguments as of `Tensor.to`.

        A dtype, of floating point, and a memory format are for images of floating point alone.
        """
        device, dtype, non_blocking, layout = torch._C._nn._parse_to(*arguments, **keywords)
        moved = self if device is None else self._map(lambda t: t.to(device, non_blocking=non_blocking))
        images = getattr(moved, "images", None)
        if images is None or (dtype is None and layout is None):
            return moved
        if dtype is not None and not dtype.is_floating_point:
            raise ValueError(f"images are cast to dtypes of floating point, not to {dtype}: cast batch.images yourself")
        dtype = dtype if images.is_floating_point() else images.dtype
        return replace(moved, images=images.to(dtype=dtype, memory_format=layout or torch.preserve_format))  # type: ignore[type-var]

    def pin_memory(self) -> Self:
        """The same in pinned memory, for a DataLoader with pin_memory=True."""
        return self._map(Tensor.pin_memory)

    def __getitem__(self, index: slice | Tensor) -> Self:
        """Some of the samples, by slice or index tensor; `partner` stays the index in the whole batch."""
        if not isinstance(index, slice | Tensor | list) or (isinstance(index, Tensor) and index.ndim == 0):
            hint = f": use [{index}:{index + 1}]" if isinstance(index, int) else ""
            raise TypeError(f"index a {type(self).__name__} with a slice or a tensor, not {index!r}{hint}")
        return self._map(lambda t: t[index])


def open_to_frameworks(kind: type[Record], *constant: str) -> None:
    """Let Lightning assign to the fields of a kind of record, and torch.utils._pytree walk its tensors.

    In a walk fields named `constant`, and those that are None, stay as they are.
    """
    kind.__setattr__ = _assign  # type: ignore[method-assign, assignment]

    def flatten(record: Any) -> tuple[list[Any], Any]:
        values = {field.name: getattr(record, field.name) for field in fields(record)}
        leaves = {name: value for name, value in values.items() if name not in constant and value is not None}
        return list(leaves.values()), (tuple(leaves), tuple(values[name] for name in constant))

    def flatten_with_keys(record: Any) -> tuple[list[Any], Any]:
        leaves, context = flatten(record)
        return [(pytree.GetAttrKey(name), leaf) for name, leaf in zip(context[0], leaves, strict=True)], context

    def unflatten(leaves: Any, context: Any) -> Any:
        return kind(**dict(zip(context[0], leaves, strict=True)), **dict(zip(constant, context[1], strict=True)))

    pytree.register_pytree_node(kind, flatten, unflatten, flatten_with_keys_fn=flatten_with_keys)


def _assign(record: Record, name: str, value: Any) -> None:
    """Lightning casts a copy field by field for true half and double precision: that is for the images alone."""
    old = record.__dict__.get(name)
    if name != "images" and isinstance(old, Tensor) and isinstance(value, Tensor) and value.dtype != old.dtype:
        value = old.to(value.device)
    object.__setattr__(record, name, value)


@dataclass
class Hidden:
    """Mixing that is left to the network: behind which module, and whether `hidden_mixing` has done it."""

    name: str
    done: bool = False


@dataclass(frozen=True, eq=False)
class MixedBatch(Record):
    """B mixed images and what a label rule or a loss needs to know of them.

    Attributes:
        images: [B, C, H, W] mixed images, dtype and memory format of the input; Mixup and CutMix also mix videos
            [B, C, T, H, W], with one box for all frames, and signals [B, C, L], which are 1 high and L wide here.
        labels: [B] int64, own class.
        partner_labels: [B] int64, class of the partner.
        own_weight: [B] float32 in [0, 1], weight of the own label by area or by blending (1 - lambda_0).
        partner: [B] int64, index of the partner in the whole batch.
        kind: [B] uint8, the `Kind` of each sample.
        box: [B, 4] int64 or None: pasted box (top, bottom, left, right), half open; zeros where none was pasted.
        mask: [B, 1, H, W] or None: share of the own image at each pixel, for methods whose region is not a box.
        moved: whether pixels were also moved inside their image, resized or transported. Box and mask
            then say from which of the two images a pixel comes, but not from where in it.
        hidden: the module whose output is still to be mixed (see `hidden_mixing`), or None.
    """

    images: Tensor
    labels: Tensor
    partner_labels: Tensor
    own_weight: Tensor
    partner: Tensor
    kind: Tensor
    box: Tensor | None = None
    mask: Tensor | None = None
    moved: bool = False
    hidden: Hidden | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def keys(self) -> list[str]:
        """Names of the fields that hold something. accelerate walks a batch as a mapping, and makes a new one of it."""
        return [field.name for field in fields(self) if getattr(self, field.name) is not field.default]

    def items(self) -> list[tuple[str, Any]]:
        return [(name, self[name]) for name in self.keys()]

    def values(self) -> list[Any]:
        return [self[name] for name in self.keys()]

    def size(self, dim: int | None = None) -> torch.Size | int:
        """That of the images."""
        return self.images.size() if dim is None else self.images.size(dim)

    def __getitem__(self, index: Any) -> Any:
        """A field by its name; or some of the samples, by slice or index tensor: `partner` stays as it was."""
        if isinstance(index, str):
            return getattr(self, index)
        if self.hidden is not None:
            raise ValueError("a batch that is mixed inside the network cannot be split: give it to the network whole")
        return super().__getitem__(index)

    def is_kind(self, kind: Kind) -> Tensor:
        """[B] bool, which samples are of this kind."""
        return is_kind(self.kind, kind)

    def is_cut(self) -> Tensor:
        """[B] bool, which samples were cut, by box or by mask."""
        return self.kind >= int(Kind.BOX)

    def own_mask(self, stride: int = 1) -> Tensor:
        """[B, 1, H, W] float32, the share of the own image at each pixel: 1 or 0 when cut, its weight when blended.

        With a `stride`, of rows and columns 0, stride, 2 * stride, ...: [B, 1, ceil(H / stride), ceil(W / stride)].

        Raises:
            ValueError: for a cut batch without box and mask, as RandomShuffle returns it.
        """
        if self.mask is not None:
            return self.mask[..., ::stride, ::stride].float()
        if self.box is None and bool(self.is_cut().any()):
            raise ValueError("this batch was cut but holds neither box nor mask: ask before patches are shuffled")
        height, width = (-(-side // stride) for side in sides(self.images.shape))
        share = torch.where(self.is_kind(Kind.BLEND), self.own_weight, torch.ones_like(self.own_weight))
        shares = share.view(-1, 1, 1, 1).expand(-1, 1, height, width)
        if self.box is None:
            return shares
        return torch.where(inside_box(self.box, height, width, stride), torch.zeros_like(shares), shares)

    def cut_masks(self, masks: Tensor) -> Tensor:
        """Segmentation masks of the unmixed batch, cut and pasted as the images were.

        Args:
            masks: [B, H, W], or [B, K, H, W] of K planes, as of one-hot masks; any dtype. Of videos [B, T, H, W] or
                [B, K, T, H, W], of signals [B, L] or [B, K, L].

        Raises:
            ValueError: for masks of another shape; for a batch with blended pixels, which belong to two objects at
                once, or with moved pixels; for a part of a batch, whose partners are elsewhere.
        """
        size, places = len(self), self.images.shape[2:]
        if not isinstance(masks, Tensor):
            raise ValueError(f"masks must be a tensor [B, H, W], not {shown(masks)}: use torch.as_tensor(masks)")
        if masks.shape not in ((size, *places), (size, *masks.shape[1:2], *places)):
            wanted = ", ".join(map(str, places))
            raise ValueError(
                f"masks must be [{size}, {wanted}], or [{size}, K, {wanted}] with one-hot planes second, "
                f"not of shape {list(masks.shape)}"
            )
        if self.moved:
            raise ValueError("this mixer moved pixels inside their image, and masks do not follow: cut those of CutMix")
        own = self.own_mask()
        if bool(self.is_kind(Kind.BLEND).any() | ((own > 0) & (own < 1)).any()):
            raise ValueError("a blended sample has no mask of one object per pixel: cut masks of cut batches only")
        cut = places[-2:]  # a box of a video is that of all its frames
        own = own.reshape(size, *(1,) * (masks.ndim - 1 - len(cut)), *cut)
        return torch.where(own > 0.5, masks, masks[self._partners()])

    def mix_targets(self, targets: Tensor) -> Tensor:
        """Dense targets [B, C] of the unmixed batch, weighted as its images were: [B, C] float32 or wider.

        For multi-hot or soft targets, which class indices cannot tell. The mixer is given labels that say so, and the
        loss is an ordinary one:

            unlabelled = torch.full((len(images),), -100)
            batch = mixer(images, unlabelled, generator)
            loss = F.binary_cross_entropy_with_logits(model(batch.images), batch.mix_targets(targets))

        Raises:
            ValueError: for targets of another shape, or a part of a batch, whose partners are elsewhere.
        """
        if not isinstance(targets, Tensor) or targets.ndim != 2 or targets.shape[:1] != self.labels.shape:
            what = f"of shape {list(targets.shape)}" if isinstance(targets, Tensor) else shown(targets)
            raise ValueError(f"targets must be a tensor [B, C] with B = {len(self)}, not {what}")
        if targets.is_complex():
            raise ValueError(f"targets must be real numbers, not {targets.dtype}")
        work = targets.to(torch.promote_types(targets.dtype, torch.float32))
        weight = self.own_weight.unsqueeze(1)
        return weight * work + (1 - weight) * work[self._partners()]

    def _partners(self) -> Tensor:
        """`partner`, where it points into this batch."""
        if self.partner.device.type == "cpu" and int(self.partner.max()) >= len(self):
            raise ValueError("this is a part of a batch, whose partners are elsewhere: use the whole batch, then index")
        return self.partner


def _init(self: MixedBatch, images: Any, *values: Any, **named: Any) -> None:
    """The dataclass's own, or from one mapping as `items` gives it."""
    if isinstance(images, Mapping):
        return _fields_init(self, **images)
    return _fields_init(self, images, *values, **named)


_fields_init, MixedBatch.__init__ = MixedBatch.__init__, _init  # type: ignore[method-assign]
Mapping.register(MixedBatch)
open_to_frameworks(MixedBatch, "moved", "hidden")


def is_kind(kinds: Tensor, kind: Kind) -> Tensor:
    """Where `kinds` uint8 is `kind`, bool of the same shape."""
    # torch.compile takes the comparison of a tensor with an enum for a constant; with an int it compares.
    return kinds == int(kind)


def box_area(box: Tensor) -> Tensor:
    """Pixels [D] int64 in each half-open box [D, 4] (top, bottom, left, right)."""
    top, bottom, left, right = box.unbind(1)
    return (bottom - top) * (right - left)


def inside_box(box: Tensor, height: int, width: int, stride: int = 1) -> Tensor:
    """[B, 1, height, width] bool, true inside each half-open box [B, 4] (top, bottom, left, right).

    `height` rows and `width` columns are looked at, `stride` pixels apart.
    """
    rows = torch.arange(height, device=box.device).view(1, height, 1) * stride
    columns = torch.arange(width, device=box.device).view(1, 1, width) * stride
    top, bottom, left, right = (side.view(-1, 1, 1) for side in box.unbind(-1))
    return ((rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)).unsqueeze(1)
