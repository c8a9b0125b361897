"""Checks of arguments: each raises ValueError in one sentence with the offending value and the remedy."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def check_batch(images: Tensor, labels: Tensor, drawn: int | None = None) -> None:
    """Refuse a batch that cannot be mixed, or one whose size is not that for which the draws were made, `drawn`."""
    if images.ndim != 4:
        raise ValueError(f"images must be [B, C, H, W], not of shape {list(images.shape)}")
    if labels.dtype != torch.int64:
        raise ValueError(f"labels must be class indices of dtype int64, not {labels.dtype}: use labels.long()")
    if labels.shape != images.shape[:1]:
        raise ValueError(f"labels must be [B] with B = {len(images)} images, not of shape {list(labels.shape)}")
    if len(images) == 0:
        raise ValueError("the batch is empty: a mixer needs at least one image")
    if drawn is not None and drawn != len(images):
        raise ValueError(f"the draws are for {drawn} images, the batch has {len(images)}: draw with images.shape")


def check_choice(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")


def check_probability(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must lie between 0 and 1, not {value!r}")


def check_positive(name: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"{name} must be above 0, not {value!r}")


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
