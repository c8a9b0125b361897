"""Mixing on the CPU, where memory traffic, not arithmetic, is the cost: writes only what changes.

A sample must not be read after it was written. Small batches are read from a copy. For large ones a copy takes several
times as long as the mixing, as glibc gives blocks above 32 MB back to the kernel and gets them anew at every step; so
partners are followed round their cycles, in which each sample reads from the next and the last from the first: written
in this order, only what the last one needs of the first is kept.

Boxes are pasted through NumPy views where NumPy is installed, because an assignment takes 1 microsecond there and 5 in
torch. Blends go through the batch in pieces that stay in the cache.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from lumix.batch import Kind, box_area, is_kind
from lumix.mixers.pixels import blend, blend_into, shares
from lumix.mixers.plan import MixPlan

PIECE = 2**20  # bytes of images that are blended at a time, about a core's second-level cache
LARGE = 2**16  # bytes of an image from which on a pasted box costs more than its Python statement
REUSED = 2**25  # bytes up to which glibc reuses memory
NARROW = 64  # bytes of a box's row below which whole rows of the image are gathered
INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def mix_by_writing(images: Tensor, plan: MixPlan, inplace: bool = False) -> Tensor:
    """The mixed images [B, C, H, W] of a plan, both on the CPU: in new memory, or `inplace`. No gradient passes.

    Raises:
        ValueError: in place, for images that share memory with each other.
    """
    if inplace and any(not stride and size > 1 for stride, size in zip(images.stride(), images.shape, strict=True)):
        raise ValueError("images that share memory (expand) cannot be mixed in place: use images.contiguous()")
    mixed = images if inplace else images.clone()
    blends, large_image = Kind.BLEND in plan.kinds, images.nbytes >= LARGE * len(images)
    if not blends and plan.one_draw and not large_image and paste_at_once(mixed, plan):
        return mixed
    if blends and not large_image and bool(is_kind(plan.kind, Kind.BLEND).all()) and is_flip(plan.partner):
        return blend_mirrored(mixed, plan)
    if inplace and (images.nbytes > REUSED or (large_image and not blends)):
        partner = plan.partner.tolist()
        if len(set(partner)) == len(partner):  # no cycles where two samples read from one
            return rewrite(images, plan, partner)
    return write(images.clone() if inplace else images, mixed, plan)


def write(source: Tensor, mixed: Tensor, plan: MixPlan) -> Tensor:
    """Blend and paste from `source` into `mixed`, a copy of it."""
    blended = is_kind(plan.kind, Kind.BLEND).nonzero().squeeze(1) if Kind.BLEND in plan.kinds else ()
    if len(blended) == len(source):
        own = in_memory_order(mixed)
        others = source if own is mixed else source.permute(0, 2, 3, 1)  # whose order may differ where it has gaps
        own_share, other_share = shares(plan.own_weight, own.dtype)
        step = samples_at_once(source)
        for start in range(0, len(source), step):
            rows = slice(start, start + step)
            theirs = others.index_select(0, plan.partner[rows]).to(own_share.dtype).mul_(other_share[rows])
            blend_into(own[rows], own_share[rows], theirs)
        return mixed
    if len(blended):
        mixed[blended] = blend(source[blended], source[plan.partner[blended]], plan.own_weight[blended])
    if Kind.BOX in plan.kinds:
        read, target = pixels(source), pixels(mixed)
        torch.autograd.graph.increment_version(mixed)  # NumPy writes behind autograd's back
        for i, (j, (top, bottom, left, right)) in enumerate(zip(plan.partner.tolist(), plan.box.tolist(), strict=True)):
            target[i, top:bottom, left:right] = read[j, top:bottom, left:right]
    return mixed


def in_memory_order(images: Tensor) -> Tensor:
    """[B, H, W, C] for channels_last, which index_select would give up."""
    return images.permute(0, 2, 3, 1) if images.is_contiguous(memory_format=torch.channels_last) else images


def samples_at_once(images: Tensor) -> int:
    return max(1, PIECE // images[0].nbytes)


def pixels(images: Tensor) -> Any:
    """A view [B, H, W, C] of the images' bits to read and write by slices: a NumPy array, or a tensor without NumPy."""
    return as_array(images.detach().view(INTEGERS[images.element_size()]).permute(0, 2, 3, 1))


def as_array(bits: Tensor) -> Any:
    """A NumPy array that shares memory with a tensor of integers, or the tensor where NumPy is not installed."""
    try:
        return bits.numpy()
    except RuntimeError:  # what torch says then
        return bits


# ------------------------------------------------------------------------------------------------- one draw or flip


def paste_at_once(images: Tensor, plan: MixPlan) -> bool:
    """Paste the box that all samples share, in place; False, with nothing done, where rows are not one block of memory.

    Each row of a box is one item of a NumPy array, copied as a whole.
    """
    channels_last = images.is_contiguous(memory_format=torch.channels_last)
    if not (channels_last or images.is_contiguous()):
        return False
    flat = as_array(in_memory_order(images.detach()).reshape(len(images), -1).view(torch.uint8))
    if isinstance(flat, Tensor):
        return False
    top, bottom, left, right = plan.box[0].tolist()
    if top == bottom or left == right:
        return True
    torch.autograd.graph.increment_version(images)
    size, channels, height, _ = images.shape
    bits = flat.reshape((size, height, -1) if channels_last else (size, channels, height, -1))
    pixel = bits.shape[-1] // images.shape[-1]
    rows, partner = bits[..., top:bottom, :], plan.partner.numpy()
    box = rows[..., left * pixel : right * pixel]
    if box.shape[-1] >= NARROW:
        as_items(box)[...] = as_items(box)[partner]
    else:
        items = as_items(rows.reshape(*rows.shape[:-2], -1))[partner]
        rows = items[..., None].view(bits.dtype).reshape(rows.shape)
        as_items(box)[...] = as_items(rows[..., left * pixel : right * pixel])
    return True


def as_items(rows: Any) -> Any:
    """An array of bytes [..., N] as an array [...] of items of N bytes, in the same memory."""
    return rows.view(f"V{rows.shape[-1]}")[..., 0]


def is_flip(partner: Tensor) -> bool:
    """Whether the first sample is mixed with the last, the second with the last but one, and so on."""
    return len(partner) % 2 == 0 and torch.equal(partner, torch.arange(len(partner) - 1, -1, -1))


def blend_mirrored(images: Tensor, plan: MixPlan) -> Tensor:
    """Blend all pairs of a flipped batch in place, some from either end at a time."""
    own, size, step = in_memory_order(images), len(images), samples_at_once(images)
    # One number is multiplied faster than a column of equal ones.
    own_share, other_share = shares(plan.own_weight[0] if plan.one_draw else plan.own_weight, own.dtype)

    def some(share: Tensor, rows: slice) -> Tensor:
        return share if plan.one_draw else share[rows]

    for start in range(0, size // 2, step):
        stop = min(start + step, size // 2)
        front, back = slice(start, stop), slice(size - stop, size - start)
        first, last = own[front], own[back]
        of_first = first.flip(0).to(own_share.dtype).mul_(some(other_share, back))
        of_last = last.flip(0).to(own_share.dtype).mul_(some(other_share, front))
        blend_into(first, some(own_share, front), of_last)
        blend_into(last, some(own_share, back), of_first)
    return images


# ------------------------------------------------------------------------------------------------- in place


def cycles(partner: list[int]) -> Iterator[list[int]]:
    """The cycles of a permutation of 0 .. B - 1: each sample is followed by its partner, the last by the first."""
    waiting = [True] * len(partner)
    for first in range(len(partner)):
        if waiting[first]:
            cycle, i = [], first
            while waiting[i]:
                waiting[i] = False
                cycle.append(i)
                i = partner[i]
            yield cycle


def rewrite(images: Tensor, plan: MixPlan, partner: list[int]) -> Tensor:
    """Blend or paste one sample after the other."""
    blended, boxes, own = is_kind(plan.kind, Kind.BLEND).tolist(), plan.box.tolist(), in_memory_order(images)
    own_share, other_share = shares(plan.own_weight, own.dtype)
    view, each = pixels(images), own.unbind(0) if Kind.BLEND in plan.kinds else ()
    torch.autograd.graph.increment_version(images)

    def theirs(i: int) -> Any:
        """What sample i takes of its partner: a share in new memory, or a view of a box."""
        if blended[i]:
            return each[partner[i]].to(own_share.dtype) * other_share[i]
        top, bottom, left, right = boxes[i]
        return view[partner[i], top:bottom, left:right]

    areas = box_area(plan.box).tolist()
    for cycle in cycles(partner):
        if len(cycle) == 2 and areas[cycle[0]] < areas[cycle[1]]:
            cycle.reverse()  # keeps the smaller of the two boxes
        last = cycle[-1]
        kept = theirs(last)
        if not blended[last]:
            kept = kept.clone() if isinstance(kept, Tensor) else kept.copy("K")
        for i in cycle:
            other = kept if i == last else theirs(i)
            if blended[i]:
                blend_into(each[i], own_share[i], other)
            else:
                top, bottom, left, right = boxes[i]
                view[i, top:bottom, left:right] = other
    return images
