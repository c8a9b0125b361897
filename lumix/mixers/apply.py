"""A plan applied to images: on devices by selecting whole tensors, on the CPU by writing what changes."""

from typing import Any

import torch
from torch import Tensor

from lumix.batch import Hidden, Kind, MixedBatch, inside_box, is_kind
from lumix.mixers.cpu_mixing import mix_by_writing
from lumix.mixers.pixels import blend
from lumix.mixers.plan import MixPlan


def mix_images(images: Tensor, plan: MixPlan, inplace: bool = False) -> Tensor:
    """The mixed images of a plan on the same device, in new memory of the same dtype and layout, or `inplace`.

    Videos are mixed as images that have the channels of all frames, signals as images of one row.
    """
    if images.ndim == 5:
        frames = images.flatten(1, 2)  # a view of contiguous videos
        mixed = mix_images(frames, plan, inplace).unflatten(1, images.shape[1:3])
        if inplace:
            return images if frames._is_view() else images.copy_(mixed)
        last = images.is_contiguous(memory_format=torch.channels_last_3d) and not images.is_contiguous()
        return mixed.contiguous(memory_format=torch.channels_last_3d) if last else mixed
    if images.ndim == 3:
        mixed = mix_images(images.unsqueeze(2), plan, inplace)
        return images if inplace else mixed.squeeze(2)
    if plan.kinds <= {Kind.NONE}:
        return images if inplace else images.clone()
    if images.device.type == "cpu" and not (images.requires_grad and torch.is_grad_enabled()):
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


def record(
    images: Tensor, labels: Tensor, partner: Tensor, own_weight: Tensor, kind: Tensor | Kind, **others: Any
) -> MixedBatch:
    """The MixedBatch of mixed images, all of one `kind` or of kinds [B] uint8; `others` are further fields of it.

    `labels` [B] int64 and `partner` [B] int64 are on the images' device, `own_weight` [B] of any float dtype.
    """
    if isinstance(kind, Kind):
        kind = torch.full((len(images),), int(kind), dtype=torch.uint8, device=images.device)
    weight = own_weight.to(images.device, torch.float32)
    return MixedBatch(images, labels, labels.index_select(0, partner), weight, partner, kind, **others)


def apply_plan(images: Tensor, labels: Tensor, plan: MixPlan, inplace: bool = False) -> MixedBatch:
    """The MixedBatch of B images and labels under a plan of B samples; the caller's stay as they are, unless `inplace`.

    Images and labels are as `lumix.inputs.check_batch` wants and returns them. In place the images are those of the
    caller, mixed. Where a hidden output is to be mixed they are the caller's, as they were.
    """
    plan = plan.to(images.device)
    mixed = mix_images(images, plan, inplace) if plan.hidden is None else images
    box = plan.box if Kind.BOX in plan.kinds else None
    hidden = None if plan.hidden is None else Hidden(plan.hidden)
    return record(mixed, labels, plan.partner, plan.own_weight, plan.kind, box=box, hidden=hidden)
