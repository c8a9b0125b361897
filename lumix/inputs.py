"""Images and labels as mixers take them: which layouts and dtypes, and labels brought to int64 [B].

Nothing here looks at the values of a tensor, which would wait for its device.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lumix.checks import shown

LAYOUTS = {3: "signals [B, C, L]", 4: "images [B, C, H, W]", 5: "videos [B, C, T, H, W]"}
INTEGERS = {torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}
PIXELS = {torch.float32, torch.float64, torch.float16, torch.bfloat16} | INTEGERS
INDICES = {torch.uint16, torch.uint32, torch.uint64} | INTEGERS  # torch can convert the former, and do little else
IGNORED = -100  # the label that torch's cross entropy passes over


def check_shape(shape: Any, taker: str = "a mixer", ndims: tuple[int, ...] = tuple(LAYOUTS)) -> None:
    """Refuse a shape whose number of dimensions is not among `ndims`, or without pixels; `taker` is who asks."""
    if not isinstance(shape, tuple | list):
        raise ValueError(f"{taker} draws for a shape (B, C, H, W), not for {shown(shape)}: use images.shape")
    if len(shape) not in ndims:
        takes = " or ".join(LAYOUTS[count] for count in ndims)
        remedy = "" if len(ndims) > 1 or len(shape) not in LAYOUTS else ": Mixup and CutMix take signals and videos too"
        raise ValueError(f"{taker} mixes {takes}, not a batch of shape {list(shape)}{remedy}")
    if shape[0] == 0:
        raise ValueError("the batch is empty: a mixer needs at least one image")
    if 0 in shape:
        raise ValueError(f"the images are empty: a mixer needs at least one pixel, not shape {list(shape)}")


def check_batch(images: Any, labels: Any, drawn: int | None = None) -> Tensor:
    """The labels of a batch that can be mixed, as int64 [B]; the caller's stay as they are.

    Args:
        images: [B, C, H, W], or signals and videos, of float16 to float64, bfloat16 or integers from uint8 to int64.
        labels: [B] or [B, 1] class indices of any integer dtype, on the images' device.
        drawn: the number of images for which draws were made; None where there are none yet.

    Raises:
        ValueError: for anything else.
    """
    if not isinstance(images, Tensor):
        remedy = "torch.stack(images)" if isinstance(images, list | tuple) else "torch.as_tensor(images)"
        raise ValueError(f"images must be a tensor [B, C, H, W], not {type(images).__name__}: use {remedy}")
    check_shape(images.shape)
    if images.dtype not in PIXELS or images.layout != torch.strided:
        what = images.dtype if images.layout == torch.strided else images.layout
        raise ValueError(
            f"images must be dense, of float16, bfloat16, float32, float64 or of integers (uint8, int8 to int64), "
            f"not {what}, which mixing would falsify: convert them"
        )
    indices = class_indices(labels, len(images))
    if indices.device != images.device:
        raise ValueError(f"labels are on {indices.device} and images on {images.device}: move the labels there")
    if drawn is not None and drawn != len(images):
        raise ValueError(f"the draws are for {drawn} images, the batch has {len(images)}: draw with images.shape")
    return indices


def class_indices(labels: Any, size: int) -> Tensor:
    """Labels [B] or [B, 1] of an integer dtype as int64 [B]; int64 [B] are returned themselves."""
    if not isinstance(labels, Tensor):
        raise ValueError(
            f"labels must be a tensor of class indices, not {type(labels).__name__}: use torch.as_tensor(labels)"
        )
    found, single = list(labels.shape), labels.shape in ((size,), (size, 1))
    if single and labels.dtype in INDICES:
        labels = labels.to(torch.int64)
        return labels.squeeze(1) if labels.ndim == 2 else labels
    if single and labels.dtype == torch.bool:
        raise ValueError(f"labels must be class indices, not {labels.dtype}: use labels.to(torch.int64)")
    if not single and (labels.ndim != 2 or len(labels) != size):
        raise ValueError(f"labels must be [B] with B = {size} images, not of shape {found}: give each image one class")
    dense = "labels.view(-1, 1)" if single else "labels"
    simple = "whole numbers become labels.to(torch.int64)" if single else "one-hot labels become labels.argmax(1)"
    raise ValueError(
        f"labels must be class indices [B] of an integer dtype, not {labels.dtype} of shape {found}: {simple}; for "
        f"multi-hot or soft targets give the mixer torch.full(({size},), {IGNORED}) as labels and mix them with "
        f"batch.mix_targets({dense})"
    )


def sides(shape: tuple[int, ...]) -> tuple[int, int]:
    """Height and width of what is cut in images or videos of a shape; a signal of length L is 1 high and L wide."""
    return (1, shape[2]) if len(shape) == 3 else (shape[-2], shape[-1])


def logits_of(output: Any) -> Tensor:
    """The logits in what a network returned: a tensor, or an object or mapping with `logits`, as of transformers."""
    found = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", output)
    if isinstance(output, tuple | list) and len(output) == 1:
        found = output[0]
    if isinstance(found, Tensor):
        return found
    what = f"a {type(output).__name__}" + (f" of {len(output)}" if isinstance(output, tuple | list) else "")
    raise ValueError(
        f"the network returned {what}, not logits [B, C]: pass the tensor itself, as output[0]; a distilled DeiT of "
        "timm returns one (of two heads) after model.set_distilled_training(False)"
    )
