"""Two images into one: what to do with a batch (partners, weights, boxes) and the pixels that it makes, on any device.

Shape legend: B samples; D draws, where mode "batch" makes one draw for the batch, "pair" one for each two partners,
"elem" one for each sample. Weights belong to the own label; they are float64 until applied.
"""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lumix.batch import Hidden, Kind, MixedBatch, box_area, inside_box, is_kind
from lumix.random import draw_beta, moved, wide

PLANNED = frozenset({Kind.NONE, Kind.BLEND, Kind.BOX})  # the kinds that a plan may have


@dataclass(frozen=True)
class MixPlan:
    """What to do with a batch of B images: own_weight [B] float64, partner [B] int64, kind [B] uint8, box [B, 4] int64.

    Attributes:
        box: rectangles (top, bottom, left, right), pasted where the kind is BOX.
        known: that very `kind`, and the kinds that may occur in it; for another `kind` it counts for nothing.
        hidden: name of the module whose output is mixed instead of the images, or None.
    """

    own_weight: Tensor
    partner: Tensor
    kind: Tensor
    box: Tensor
    known: tuple[Tensor, frozenset[Kind]] | None = None
    hidden: str | None = None

    @property
    def kinds(self) -> frozenset[Kind]:
        """The kinds that may occur, without a look at tensors."""
        return self.known[1] if self.known is not None and self.known[0] is self.kind else PLANNED

    def to(self, device: torch.device) -> "MixPlan":
        names = ("own_weight", "partner", "kind", "box")
        parts: dict[str, Any] = {name: moved(getattr(self, name), device) for name in names}
        if self.known is None or self.known[0] is not self.kind:  # the box that was drawn may still be there
            parts["box"] = torch.where(is_kind(parts["kind"], Kind.BOX).unsqueeze(1), parts["box"], 0)
        return replace(self, **parts, known=(parts["kind"], self.kinds))


class Draws(NamedTuple):
    """D draws before samples take them: own_weight [D] float64, kind [D] uint8, box [D, 4] int64."""

    own_weight: Tensor
    kind: Tensor
    box: Tensor


def unmixed_plan(size: int, device: torch.device) -> MixPlan:
    """The plan that leaves `size` images as they are."""
    kind = torch.zeros(size, dtype=torch.uint8, device=device)
    box = torch.zeros((size, 4), dtype=torch.int64, device=device)
    weight = torch.ones(size, dtype=wide(device), device=device)
    return MixPlan(weight, torch.arange(size, device=device), kind, box, (kind, frozenset({Kind.NONE})))


def draw_blends(alpha: float, count: int, generator: torch.Generator) -> Draws:
    """D = `count` blends with weights from Beta(alpha, alpha)."""
    weight = draw_beta(alpha, count, generator)
    kind = torch.full((count,), int(Kind.BLEND), dtype=torch.uint8, device=generator.device)
    return Draws(weight, kind, torch.zeros((count, 4), dtype=torch.int64, device=generator.device))


def boxes_drawn(own_weight: Tensor, box: Tensor) -> Draws:
    """D pasted boxes [D, 4] with own weights [D]."""
    return Draws(own_weight, torch.full((len(box),), int(Kind.BOX), dtype=torch.uint8, device=box.device), box)


def assign(draws: Draws, mixes: Tensor, partner: Tensor, group: Tensor, kinds: frozenset[Kind]) -> MixPlan:
    """The plan in which sample i takes draw group[i]; unmixed where `mixes` [D] is false or nothing changes."""
    mixes = mixes & ((draws.own_weight != 1) | (box_area(draws.box) > 0))
    weight = torch.where(mixes, draws.own_weight, 1.0)
    kind = torch.where(mixes, draws.kind, int(Kind.NONE)).to(torch.uint8)
    box = torch.where(mixes.unsqueeze(1), draws.box, 0)
    # What was drawn once can be looked at on the CPU, and then only its own kind has to be made.
    if len(mixes) == 1 and kind.device.type == "cpu":
        kinds = frozenset({Kind(int(kind))})
    weight, kind, box = (values.index_select(0, group) for values in (weight, kind, box))
    return MixPlan(weight, partner, kind, box, (kind, kinds | {Kind.NONE}))


def box_around(own_weight: Tensor, centre: Tensor, height: int, width: int, rule: str = "legacy") -> Tensor:
    """Boxes [D, 4] (top, bottom, left, right) of area share 1 - own_weight [D] around `centre` [D, 2], clipped.

    `centre` holds int64 rows and columns. Of a signal, which is one pixel high or wide, a part of that length is cut.
    Two rules for boxes of odd side are in use: "legacy", in papers before mid-2026, runs from centre - side // 2 to
    centre + side // 2 and so loses a pixel; "full" (timm from 1.0.31) keeps it.
    """
    signal = min(height, width) == 1 < max(height, width)
    share = 1 - own_weight if signal else torch.sqrt(1 - own_weight)
    edges, odd = [], int(rule == "full")
    for middle, length in zip(centre.unbind(1), (height, width), strict=True):
        if signal and length == 1:
            edges += [torch.zeros_like(middle), torch.ones_like(middle)]
            continue
        side = (length * share).long()
        for edge in (middle - (side >> 1), middle + ((side + odd) >> 1)):
            edges.append(edge.clamp(0, length))
    return torch.stack(edges, dim=1)


def visible_share(box: Tensor, height: int, width: int) -> Tensor:
    """Share [D] float64 of the own image that boxes [D, 4] leave visible."""
    return 1 - box_area(box).to(wide(box.device)) / (height * width)


def other_share(own_weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Weight of the other image, [B, 1, 1, 1] or of the shape given, in a dtype that holds the images' values."""
    work = wide(own_weight.device) if dtype in (torch.float64, torch.int32, torch.int64) else torch.float32
    weight = own_weight.view(-1, 1, 1, 1) if own_weight.ndim == 1 else own_weight
    return (1 - weight.to(torch.promote_types(weight.dtype, work))).to(work)  # exact in the wider of the two


def blend(own: Tensor, other: Tensor, own_weight: Tensor) -> Tensor:
    """own_weight * own + (1 - own_weight) * other for `own_weight` [B] or broadcastable to [B, C, H, W].

    Returned in the dtype of `own`, rounded for integers. Rounded once, so a unit in the last place from timm's sum.
    """
    return blend_by(own, other, other_share(own_weight, own.dtype))


def blend_by(own: Tensor, other: Tensor, share: Tensor, write: bool = False) -> Tensor:
    """`blend` for the `other_share`; with `write` into `own`."""
    if write and own.dtype == share.dtype:
        return own.lerp_(other, share)
    mixed = torch.lerp(own.to(share.dtype), other.to(share.dtype), share)
    mixed = (mixed if own.is_floating_point() else mixed.round_()).to(own.dtype)
    return own.copy_(mixed) if write else mixed


def mix_by_mask(images: Tensor, partner: Tensor, own: Tensor) -> Tensor:
    """Images [B, C, H, W] where `own`, bool [B or 1, 1, H, W], is true, and their partner's pixels elsewhere."""
    other = images[partner]
    # In place of the copy: touching fresh memory costs the CPU as much as the selection.
    return torch.where(own, images, other) if images.requires_grad else torch.where(own, images, other, out=other)


def mix_images(images: Tensor, plan: MixPlan, inplace: bool = False) -> Tensor:
    """The mixed images of a plan on the same device, in new memory of the same dtype and layout, or `inplace`."""
    if images.ndim != 4:
        planes = images.flatten(1, 2) if images.ndim == 5 else images.unsqueeze(2)  # a view of contiguous videos
        mixed = mix_images(planes, plan, inplace).reshape(images.shape)
        if inplace:
            return images if planes._is_view() else images.copy_(mixed)
        last = images.is_contiguous(memory_format=torch.channels_last_3d) if images.ndim == 5 else False
        return mixed.contiguous(memory_format=torch.channels_last_3d) if last and not images.is_contiguous() else mixed
    if plan.kinds <= {Kind.NONE}:
        return images if inplace else images.clone()
    traced = torch.compiler.is_compiling() or (images.requires_grad and torch.is_grad_enabled())
    if images.device.type == "cpu" and not traced:
        return mix_by_writing(images, plan, inplace)
    mixed = mix_by_selecting(images, plan)
    return images.copy_(mixed) if inplace else mixed


def mix_by_selecting(images: Tensor, plan: MixPlan) -> Tensor:
    """For devices: whole tensors, no question about their values, hence no synchronisation. Gradients pass."""
    other = images[plan.partner]  # unlike index_select it keeps channels_last
    mixed = images
    if Kind.BLEND in plan.kinds:
        mixed = blend(images, other, torch.where(is_kind(plan.kind, Kind.BLEND), plan.own_weight, 1.0))
    if Kind.BOX in plan.kinds:
        mixed = torch.where(inside_box(plan.box, *images.shape[-2:]), other, mixed)
    return mixed.clone() if mixed is images else mixed


def mixed_batch(
    images: Tensor, labels: Tensor, partner: Tensor, own_weight: Tensor, kind: Tensor | Kind, **others: Any
) -> MixedBatch:
    """The MixedBatch of mixed images, all of one `kind` or of kinds [B] uint8; `others` are further fields of it."""
    if isinstance(kind, Kind):
        kind = torch.full((len(images),), int(kind), dtype=torch.uint8, device=images.device)
    weight = moved(own_weight.float(), images.device)
    return MixedBatch(images, labels, labels.index_select(0, partner), weight, partner, kind, **others)


def apply_plan(images: Tensor, labels: Tensor, plan: MixPlan, inplace: bool = False) -> MixedBatch:
    """The MixedBatch of B images, which stay as they are unless `inplace`, and int64 labels, under a plan for B."""
    plan = plan.to(images.device)
    mixed = mix_images(images, plan, inplace) if plan.hidden is None else images
    box = plan.box if Kind.BOX in plan.kinds else None
    hidden = None if plan.hidden is None else Hidden(plan.hidden)
    return mixed_batch(mixed, labels, plan.partner, plan.own_weight, plan.kind, box=box, hidden=hidden)


# ------------------------------------------------------------------------------------------------- on the CPU
# Memory traffic, not arithmetic, is the cost, so only what changes is written, in place or into a copy of the images:
# many small blends in pieces that stay in the cache, all else sample by sample. Boxes are pasted through NumPy views
# where NumPy is installed (an assignment takes 1 microsecond there and 5 in torch). glibc gives blocks above 32 MB back
# to the kernel, so that copying large images takes several times as long as mixing them: in place there is no copy.

PIECE = 2**19  # bytes of images that are blended at a time
LARGE = 2**16  # bytes of an image from which on its pixels cost more than the Python statements about it
INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def mix_by_writing(images: Tensor, plan: MixPlan, inplace: bool = False) -> Tensor:
    """The mixed images [B, C, H, W] of a plan, both on the CPU: in new memory, or `inplace`. No gradient passes."""
    if inplace and any(not stride and size > 1 for stride, size in zip(images.stride(), images.shape, strict=True)):
        raise ValueError("images that share memory (expand) cannot be mixed in place: use images.contiguous()")
    partner, blended = plan.partner.tolist(), is_kind(plan.kind, Kind.BLEND)
    blends, large = Kind.BLEND in plan.kinds, images.nbytes >= LARGE * len(images)
    if inplace and large and len(set(partner)) == len(partner):  # else there are no cycles: two samples read from one
        return write_in_cycles(images, plan, partner)
    mixed = images if inplace else images.clone()
    if not blends and not large and bool((plan.box == plan.box[:1]).all()):
        top, bottom, left, right = plan.box[0].tolist()
        box = mixed[..., top:bottom, left:right]
        box.copy_(box[plan.partner])
        return mixed
    if blends and not large and bool(blended.all()):
        return blend_in_pieces(mixed, images, plan)
    source = images.clone() if inplace else images
    if blends:
        share = other_share(plan.own_weight, images.dtype)
        for i in blended.nonzero().flatten().tolist():
            blend_by(mixed[i], source[partner[i]], share[i], write=True)
    if Kind.BOX in plan.kinds:
        target, read = pixels(mixed), pixels(source)
        torch.autograd.graph.increment_version(mixed)  # NumPy writes behind autograd's back
        for i, (j, (top, bottom, left, right)) in enumerate(zip(partner, plan.box.tolist(), strict=True)):
            target[i, top:bottom, left:right] = read[j, top:bottom, left:right]
    return mixed


def blend_in_pieces(mixed: Tensor, images: Tensor, plan: MixPlan) -> Tensor:
    """Blend every sample into `mixed`, a copy of the images or themselves; a flipped batch from both ends at a time."""
    size, step = len(images), max(1, PIECE // images[0].nbytes)
    flipped = size % 2 == 0 and torch.equal(plan.partner, torch.arange(size - 1, -1, -1, device="cpu"))
    own, source = mixed, images.clone() if mixed is images and not flipped else images
    if mixed.is_contiguous(memory_format=torch.channels_last):  # which index_select would give up
        own, source = own.permute(0, 2, 3, 1), source.permute(0, 2, 3, 1)
    share, stop = other_share(plan.own_weight, images.dtype), size // 2 if flipped else size
    for start in range(0, stop, step):
        rows = slice(start, min(start + step, stop))
        ends = [rows, slice(size - rows.stop, size - rows.start)] if flipped else [rows]
        others = [source.index_select(0, plan.partner[end]) for end in ends]
        for end, other in zip(ends, others, strict=True):
            blend_by(own[end], other, share[end], write=True)
    return mixed


def pixels(images: Tensor) -> Any:
    """A view [B, H, W, C] of the images' bits to read and write by slices: a NumPy array, or a tensor without NumPy."""
    bits = images.detach().view(INTEGERS[images.element_size()]).permute(0, 2, 3, 1)
    try:
        return bits.numpy()
    except RuntimeError:  # what torch says where NumPy is not installed
        return bits


def write_in_cycles(images: Tensor, plan: MixPlan, partner: list[int]) -> Tensor:
    """Blend or paste in place, for partners that are a permutation.

    Each sample is written before the one that reads from it; of each cycle only what its last sample needs of its first
    is kept.
    """
    spare, areas, waiting = torch.empty_like(images[:1]), box_area(plan.box).tolist(), set(range(len(partner)))
    blended, share = is_kind(plan.kind, Kind.BLEND).tolist(), other_share(plan.own_weight, images.dtype)
    boxes, view = plan.box.tolist(), [*pixels(images), *pixels(spare)]
    each = [*images.unbind(0), spare[0]] if Kind.BLEND in plan.kinds else []
    torch.autograd.graph.increment_version(images)  # NumPy writes behind autograd's back

    def paste(i: int, j: int, drawn: int) -> None:
        top, bottom, left, right = boxes[drawn]
        view[i][top:bottom, left:right] = view[j][top:bottom, left:right]

    while waiting:
        cycle = [waiting.pop()]
        while partner[cycle[-1]] in waiting:
            cycle.append(partner[cycle[-1]])
            waiting.remove(cycle[-1])
        if len(cycle) == 2 and areas[cycle[0]] < areas[cycle[1]]:
            cycle.reverse()  # keeps the smaller of the two boxes
        if blended[cycle[-1]]:
            each[-1].copy_(each[cycle[0]])
        else:
            paste(-1, cycle[0], cycle[-1])
        for i, j in zip(cycle, [*cycle[1:], -1], strict=True):
            if blended[i]:
                blend_by(each[i], each[j], share[i], write=True)
            else:
                paste(i, j, i)
    return images


def permute_grid(images: Tensor, order: Tensor, rows: int, columns: int) -> Tensor:
    """Images [B, C, H, W] whose cell i, row by row, is old cell order[b, i], for an order [B, rows * columns]."""
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
