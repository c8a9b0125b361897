"""A plan applied to images: on devices by selecting whole tensors, on the CPU by writing what changes."""

import torch
from torch import Tensor

from lumix.batch import Kind, MixedBatch, inside_box, is_kind
from lumix.checks import check_batch
from lumix.mixers.cpu_mixing import mix_by_writing
from lumix.mixers.pixels import blend
from lumix.mixers.plan import MixPlan


def mix_images(images: Tensor, plan: MixPlan, inplace: bool = False) -> Tensor:
    """The mixed images of a plan on the same device, in new memory of the same dtype and layout, or `inplace`."""
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
    if Kind.MIXUP in plan.kinds:
        mixed = blend(images, other, torch.where(is_kind(plan.kind, Kind.MIXUP), plan.own_weight, 1.0))
    if Kind.CUTMIX in plan.kinds:
        mixed = torch.where(inside_box(plan.box, *images.shape[-2:]), other, mixed)
    return mixed.clone() if mixed is images else mixed


def apply_plan(images: Tensor, labels: Tensor, plan: MixPlan, inplace: bool = False) -> MixedBatch:
    """The MixedBatch of B images and labels under a plan of B samples; the caller's stay as they are, unless `inplace`.

    In place the images are those of the caller, mixed.
    """
    check_batch(images, labels)
    if len(plan.partner) != len(images):
        raise ValueError(f"the plan is for {len(plan.partner)} images, the batch has {len(images)}")
    plan = plan.to(images.device)
    return MixedBatch(
        images=mix_images(images, plan, inplace),
        labels=labels,
        partner_labels=labels.index_select(0, plan.partner),
        own_weight=plan.own_weight.to(torch.float32),
        partner=plan.partner,
        kind=plan.kind,
        box=plan.box if Kind.CUTMIX in plan.kinds else None,
    )
