"""Mixing on the CPU, where memory traffic, not arithmetic, is the cost: writes only what changes.

Boxes are pasted through NumPy views where NumPy is installed, because an assignment takes 1 microsecond there and 5 in
torch. Blends go through the batch in pieces that stay in the cache.

In place there is no copy of the batch at all. glibc gives blocks above 32 MB back to the kernel and gets them anew at
every step, which for such a copy takes several times as long as the mixing. But a sample must not be read after it was
written. Partners form cycles, in which each sample reads from the next and the last from the first; written in this
order, only what the last one needs of the first is kept.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from lumix.batch import Kind, box_area, is_kind
from lumix.mixers.pixels import blend
from lumix.mixers.plan import MixPlan

PIECE = 2**21  # bytes of float32 that are blended at a time, a few times a core's second-level cache
LARGE = 2**16  # bytes of an image from which on an assignment a sample is cheaper than one gather for all
REUSED = 2**25  # bytes up to which glibc reuses memory
INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def mix_by_writing(images: Tensor, plan: MixPlan, inplace: bool = False) -> Tensor:
    """The mixed images [B, C, H, W] of a plan, both on the CPU: in new memory, or `inplace`. No gradient passes.

    Raises:
        ValueError: in place, for images that share memory with each other.
    """
    if inplace:
        return mix_in_place(images, plan)
    blended = is_kind(plan.kind, Kind.BLEND).nonzero().squeeze(1) if Kind.BLEND in plan.kinds else None
    if blended is not None and len(blended) == len(images):
        return blend_all(images, torch.empty_like(images), plan)
    mixed = images.clone()
    if blended is not None and len(blended):
        mixed[blended] = blend(images[blended], images[plan.partner[blended]], plan.own_weight[blended])
    if Kind.BOX in plan.kinds:
        paste_all(images, mixed, plan)
    return mixed


def blend_all(images: Tensor, mixed: Tensor, plan: MixPlan) -> Tensor:
    """Every sample blended into `mixed`, which may be `images` itself."""
    own, result = in_memory_order(images), in_memory_order(mixed)
    others = own.index_select(0, plan.partner) if mixed is images else None
    weight = plan.own_weight.view(-1, 1, 1, 1)
    in_floats = own.dtype in (torch.float32, torch.float64)
    if in_floats:
        # One number is multiplied faster than a column of equal ones.
        column = weight[0, 0, 0, 0] if plan.one_draw else weight
        own_share, other_share = column.to(own.dtype), (1 - column).to(own.dtype)
        if others is not None:
            own.mul_(own_share).add_(others.mul_(other_share))
            return mixed
    step = max(1, PIECE // (4 * images[0].numel()))
    for start in range(0, len(images), step):
        piece = slice(start, start + step)
        other = own.index_select(0, plan.partner[piece]) if others is None else others[piece]
        if in_floats:  # as `blend` does it, without memory for the products
            shares = (own_share, other_share) if plan.one_draw else (own_share[piece], other_share[piece])
            torch.mul(own[piece], shares[0], out=result[piece]).add_(other.mul_(shares[1]))
        else:
            result[piece] = blend(own[piece], other, weight[piece])
    return mixed


def in_memory_order(images: Tensor) -> Tensor:
    """[B, H, W, C] for channels_last, which index_select would give up."""
    return images.permute(0, 2, 3, 1) if images.is_contiguous(memory_format=torch.channels_last) else images


def paste_all(images: Tensor, mixed: Tensor, plan: MixPlan) -> None:
    """Write the box of each sample's partner into `mixed`; into `images` itself only as `one_gather` allows."""
    if one_gather(images, plan):
        paste_at_once(images, mixed, plan)
        return
    source, target = pixels(images), pixels(mixed)
    torch.autograd.graph.increment_version(mixed)  # NumPy writes behind autograd's back
    for i, (j, (top, bottom, left, right)) in enumerate(zip(plan.partner.tolist(), plan.box.tolist(), strict=True)):
        target[i, top:bottom, left:right] = source[j, top:bottom, left:right]


def one_gather(images: Tensor, plan: MixPlan) -> bool:
    """Whether all samples share one box and are small enough for one gather of all boxes."""
    return plan.one_draw and images[0].nbytes < LARGE


def paste_at_once(images: Tensor, mixed: Tensor, plan: MixPlan) -> None:
    top, bottom, left, right = plan.box[0].tolist()
    source, target = in_memory_order(images), in_memory_order(mixed)
    rows, columns = 2, 3
    if source is not images:
        rows, columns = 1, 2
    source, target = (x.narrow(rows, top, bottom - top) for x in (source, target))
    target = target.narrow(columns, left, right - left)
    if images.element_size() == 1:  # whole rows are few bytes more, and gathered faster
        target.copy_(source.index_select(0, plan.partner).narrow(columns, left, right - left))
    else:
        target.copy_(source.narrow(columns, left, right - left).index_select(0, plan.partner))


def pixels(images: Tensor) -> Any:
    """A view [B, H, W, C] of the images' bits to read and write by slices: a NumPy array, or a tensor without NumPy."""
    view = images.detach().view(INTEGERS[images.element_size()]).permute(0, 2, 3, 1)
    try:
        return view.numpy()
    except RuntimeError:  # what torch says where NumPy is not installed
        return view


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


def mix_in_place(images: Tensor, plan: MixPlan) -> Tensor:
    """Mix `images` into themselves, and return them."""
    if any(stride == 0 and size > 1 for stride, size in zip(images.stride(), images.shape, strict=True)):
        raise ValueError("images that share memory (expand) cannot be mixed in place: use images.contiguous()")
    if Kind.BLEND not in plan.kinds and one_gather(images, plan):
        paste_at_once(images, images, plan)
        return images
    partner = plan.partner.tolist()
    few_bytes = images.nbytes <= REUSED and (Kind.BLEND in plan.kinds or images[0].nbytes < LARGE)
    if few_bytes or len(set(partner)) < len(partner):  # no cycles where two samples read from one
        return mix_with_copy(images, plan)
    if Kind.BLEND in plan.kinds:
        rewrite(images, plan, partner)
    else:
        paste_in_place(images, plan.box, partner)
    return images


def mix_with_copy(images: Tensor, plan: MixPlan) -> Tensor:
    """In place by way of a copy of all that is read."""
    if Kind.BLEND not in plan.kinds:
        paste_all(images.clone(), images, plan)
        return images
    if Kind.BOX not in plan.kinds and (plan.one_draw or bool(is_kind(plan.kind, Kind.BLEND).all())):
        return blend_all(images, images, plan)
    return images.copy_(mix_by_writing(images, plan))


def paste_in_place(images: Tensor, box: Tensor, partner: list[int]) -> None:
    """Paste into one sample after the other."""
    view = pixels(images)
    torch.autograd.graph.increment_version(images)
    boxes, areas = box.tolist(), box_area(box).tolist()
    for cycle in cycles(partner):
        if len(cycle) == 2 and areas[cycle[0]] < areas[cycle[1]]:
            cycle.reverse()  # keeps the smaller of the two boxes
        last = cycle[-1]
        kept = cut(view[cycle[0]], boxes[last])
        for i in cycle[:-1]:
            top, bottom, left, right = boxes[i]
            view[i, top:bottom, left:right] = view[partner[i], top:bottom, left:right]
        top, bottom, left, right = boxes[last]
        view[last, top:bottom, left:right] = kept


def rewrite(images: Tensor, plan: MixPlan, partner: list[int]) -> None:
    """Blend or paste one sample after the other."""
    blended, boxes, weights = is_kind(plan.kind, Kind.BLEND).tolist(), plan.box.tolist(), plan.own_weight.tolist()
    view = pixels(images)
    torch.autograd.graph.increment_version(images)
    work = images.dtype if images.dtype == torch.float64 else torch.float32
    each = images.unbind(0)
    scratch = torch.empty_like(each[0], dtype=work), torch.empty_like(each[0], dtype=work)
    for cycle in cycles(partner):
        first, last = cycle[0], cycle[-1]
        kept = cut(view[first], boxes[last])
        if blended[last]:
            kept = share_of(each[first], 1 - weights[last], scratch[1])
        for i in cycle:
            j, (top, bottom, left, right) = partner[i], boxes[i]
            if blended[i]:
                other = kept if i == last else share_of(each[j], 1 - weights[i], scratch[0])
                add_own(each[i], weights[i], other)
            else:
                view[i, top:bottom, left:right] = kept if i == last else view[j, top:bottom, left:right]


def share_of(image: Tensor, weight: float, out: Tensor) -> Tensor:
    """An image [C, H, W] times a weight, into float32 or float64 of the same shape."""
    return torch.mul(image if image.dtype == torch.float64 else image.float(), weight, out=out)


def add_own(image: Tensor, weight: float, other: Tensor) -> None:
    """Blend an image [C, H, W] with the share of another, in the order and rounding of `blend`."""
    if image.dtype == other.dtype:
        image.mul_(weight).add_(other)
        return
    mixed = image.float().mul_(weight).add_(other)
    image.copy_(mixed if image.is_floating_point() else mixed.round_())


def cut(image: Any, box: list[int]) -> Any:
    """A copy of the part of an image [H, W, C] inside a box."""
    top, bottom, left, right = box
    part = image[top:bottom, left:right]
    return part.clone() if isinstance(part, Tensor) else part.copy("K")
