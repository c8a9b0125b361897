"""Label weights read from the attention of the class token."""

import math

from torch import Tensor

from lumix import functional
from lumix.batch import MixedBatch


def attended_weight(batch: MixedBatch, attention: Tensor | None) -> Tensor:
    """Own weights [B] by where the class token looks: lambda_1 of Chen et al. (2022), seen from the own label.

    A patch belongs to the image that shows at its first pixel, so a box smaller than a patch may get no attention.

    Args:
        attention: [B, P] on the patches, row by row; square patches that tile the image. Taken as a constant.

    Raises:
        ValueError: without attention, for one of another shape, or where the record no longer knows its cut.
    """
    if attention is None:
        raise ValueError("this label rule reads the class token's attention: pass it as attention= [B, patches]")
    if batch.images.ndim != 4:
        raise ValueError(f"attention is read for images [B, C, H, W], not for {list(batch.images.shape)}: use AreaRule")
    height, width = batch.images.shape[-2:]
    patch = math.isqrt(height * width // attention.shape[-1]) if attention.ndim == 2 and attention.shape[-1] else 0
    if not patch or height % patch or width % patch or (height // patch) * (width // patch) != attention.shape[-1]:
        raise ValueError(
            f"attention must be [B, patches] with square patches that tile {height} x {width} pixels, not of shape "
            f"{list(attention.shape)}: average over heads and leave out the class token"
        )
    return functional.attention_weight(attention.detach(), batch.own_mask(patch).flatten(1))
