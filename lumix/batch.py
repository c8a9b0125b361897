"""MixedBatch: what mixers return, and what label rules and losses read.

Shape legend: B samples, H rows, W columns. Sample i has an own image (class `labels[i]`) and a partner image
`partner[i]` (class `partner_labels[i]`); methods that cut paste a part of the partner into the own image.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from lumix.inputs import shown, sides

Batch = TypeVar("Batch", bound=tuple[Any, ...])


class Kind(IntEnum):
    """How a sample's pixels were mixed: not at all, blended, by a pasted box, or by a mask. Cuts come last."""

    NONE = 0
    BLEND = 1
    BOX = 2
    MASK = 3


def rows_of(batch: Batch, index: slice | Tensor) -> Batch:
    """Some samples of a NamedTuple of tensors [B, ...], also of such NamedTuples in it; all else stays as it is."""

    def some(part: Any) -> Any:
        return part[index] if isinstance(part, Tensor) else part.rows(index) if hasattr(part, "rows") else part

    return type(batch)(*map(some, batch))


MIXED = "lumix.hidden_mixing"  # under this name a node of autograd's graph says whose mixing it is


@dataclass
class Hidden:
    """Mixing that is left to the network: behind which module, and whether a pass in `hidden_mixing` has done it."""

    name: str
    done: bool = False

    def check(self, logits: Tensor) -> None:
        """Refuse logits of a pass that was not mixed, or twice. Without a graph any pass that was mixed is enough."""
        graph = not torch.compiler.is_compiling() and logits.grad_fn is not None
        times = self._times(logits.grad_fn) if graph else int(self.done)
        if times == 1:
            return
        remedy = "call the network within `with lumix.hidden_mixing(model, batch):` and take the logits of this call"
        if times > 1:
            remedy = f"that module ran {times} times in the pass of these logits, choose one that runs once"
        place = f"inside the network, behind {self.name!r}"
        raise ValueError(f"this batch is to be mixed {place}, and these logits come from a pass that was not: {remedy}")

    def _times(self, node: Any) -> int:
        """How many nodes of the graph behind `node` are mixing of this batch."""
        seen, waiting = {node}, [node]
        while waiting:
            new = {entry for entry, _ in waiting.pop().next_functions if entry is not None} - seen
            seen |= new
            waiting.extend(new)
        return sum(node.metadata.get(MIXED) is self for node in seen)


class MixedBatch(NamedTuple):
    """B mixed images and what a label rule or a loss needs to know of them.

    A plain tuple, so frameworks move and send it as they do all tuples. `_replace` makes a changed copy.

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

    @property
    def size(self) -> int:
        return len(self.labels)

    def rows(self, index: slice | Tensor) -> "MixedBatch":
        """Some of the samples, by slice or index tensor; `partner` stays the index in the whole batch."""
        if self.hidden is not None:
            raise ValueError("a batch that is mixed inside the network cannot be split: give it to the network whole")
        return rows_of(self, index)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "MixedBatch":
        """The batch with every tensor on another device."""
        tensors: dict[str, Any] = {name: part for name, part in self._asdict().items() if isinstance(part, Tensor)}
        return self._replace(**{name: part.to(device, non_blocking=non_blocking) for name, part in tensors.items()})

    def is_kind(self, kind: Kind) -> Tensor:
        """[B] bool, which samples are of this kind."""
        return is_kind(self.kind, kind)

    def is_cut(self) -> Tensor:
        """[B] bool, which samples were cut, by box or by mask."""
        return self.kind >= int(Kind.BOX)

    def own_mask(self, stride: int = 1) -> Tensor:
        """[B, 1, H, W] float32, the share of the own image at each pixel: 1 or 0 when cut, its weight when blended.

        With a `stride`, of rows and columns 0, stride, 2 * stride, ...: [B, 1, ceil(H / stride), ceil(W / stride)].
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
        """Segmentation masks of the unmixed batch, cut and pasted as the images were, which may not be blended.

        They are [B, H, W], or [B, K, H, W] of K planes, as of one-hot masks, of any dtype; of videos [B, T, H, W] or
        [B, K, T, H, W], of signals [B, L] or [B, K, L].
        """
        places = self.images.shape[2:]
        if not isinstance(masks, Tensor):
            raise ValueError(f"masks must be a tensor [B, H, W], not {shown(masks)}: use torch.as_tensor(masks)")
        if masks.shape not in ((self.size, *places), (self.size, *masks.shape[1:2], *places)):
            wanted = ", ".join(map(str, places))
            shapes = f"[{self.size}, {wanted}], or [{self.size}, K, {wanted}] with one-hot planes second"
            raise ValueError(f"masks must be {shapes}, not of shape {list(masks.shape)}")
        if self.moved:
            raise ValueError("this mixer moved pixels inside their image, and masks do not follow: cut those of CutMix")
        own = self.own_mask()
        if bool(self.is_kind(Kind.BLEND).any() | ((own > 0) & (own < 1)).any()):
            raise ValueError("a blended sample has no mask of one object per pixel: cut masks of cut batches only")
        cut = places[-2:]  # a box of a video is that of all its frames
        own = own.reshape(self.size, *(1,) * (masks.ndim - 1 - len(cut)), *cut)
        return torch.where(own > 0.5, masks, masks[self._partners()])

    def mix_targets(self, targets: Tensor) -> Tensor:
        """Dense targets [B, C] of the unmixed batch, weighted as its images were: [B, C] float32 or wider.

        For multi-hot or soft targets, which class indices cannot tell. The mixer is given labels that say so, and the
        loss is an ordinary one:

            unlabelled = torch.full((len(images),), -100)
            batch = mixer(images, unlabelled, generator)
            loss = F.binary_cross_entropy_with_logits(model(batch.images), batch.mix_targets(targets))
        """
        if not isinstance(targets, Tensor) or targets.ndim != 2 or len(targets) != self.size or targets.is_complex():
            what = f"{targets.dtype} of shape {list(targets.shape)}" if isinstance(targets, Tensor) else shown(targets)
            raise ValueError(f"targets must be a tensor [B, C] of real numbers with B = {self.size}, not {what}")
        work = targets.to(torch.promote_types(targets.dtype, torch.float32))
        weight = self.own_weight.unsqueeze(1)
        return weight * work + (1 - weight) * work[self._partners()]

    def _partners(self) -> Tensor:
        """`partner`, where it points into this batch."""
        if self.partner.device.type == "cpu" and int(self.partner.max()) >= self.size:
            raise ValueError("this is a part of a batch, whose partners are elsewhere: use the whole batch, then index")
        return self.partner


def is_kind(kinds: Tensor, kind: Kind) -> Tensor:
    """Where `kinds` uint8 is `kind`, bool of the same shape."""
    # torch.compile takes the comparison of a tensor with an enum for a constant; with an int it compares.
    return kinds == int(kind)


class DrawnBatch(NamedTuple):
    """A mixed batch of B with the label rule's draws for it: [B], or None for a rule that draws nothing."""

    batch: MixedBatch
    draws: Tensor | None

    @property
    def size(self) -> int:
        return self.batch.size

    def rows(self, index: slice) -> "DrawnBatch":
        return rows_of(self, index)


def box_area(box: Tensor) -> Tensor:
    """Pixels [D] int64 in each half-open box [D, 4] (top, bottom, left, right)."""
    top, bottom, left, right = box.unbind(1)
    return (bottom - top) * (right - left)


def inside_box(box: Tensor, height: int, width: int, stride: int = 1) -> Tensor:
    """[B, 1, height, width] bool, true inside each half-open box [B, 4]; rows and columns lie `stride` pixels apart."""
    rows = torch.arange(height, device=box.device).view(1, height, 1) * stride
    columns = torch.arange(width, device=box.device).view(1, 1, width) * stride
    top, bottom, left, right = (side.view(-1, 1, 1) for side in box.unbind(-1))
    return ((rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)).unsqueeze(1)
