"""Where a classifier looks: attention of its class token over the patches, and the strongest patches."""

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from lumix.integrations.attention import class_attention

Masks = NDArray[np.bool_]


def token_side(tokens: int) -> int:
    """Side of a square grid of tokens; ValueError where there is none."""
    side = round(tokens**0.5)
    if side * side != tokens:
        raise ValueError(f"{tokens} patches are no square grid")
    return side


@torch.inference_mode()
def attention_grid(model: nn.Module, images: Tensor) -> NDArray[np.float64]:
    """Attention of the class token in the last block, [B, heads, R, C], patches where they are in the image."""
    attention = class_attention(model, images)
    side = token_side(attention.shape[-1])
    return attention.double().cpu().unflatten(-1, (side, side)).numpy()


def foreground(attention: ArrayLike, mass: float) -> Masks:
    """The smallest set of strongest patches that holds `mass` of the attention, bool as `attention`'s shape.

    Attention is [..., patches], not negative, each row with a positive sum (it is divided by it). Mass is in [0, 1]:
    at 1 only patches without any attention are left out, at 0 all are.
    """
    values = np.asarray(attention, dtype=np.float64)
    if not 0 <= mass <= 1:
        raise ValueError(f"mass must be between 0 and 1, not {mass!r}")
    if not values.size or not np.isfinite(values).all() or (values < 0).any() or (values.sum(-1) <= 0).any():
        raise ValueError("attention must be finite, not negative, and positive somewhere in every row")
    order = np.argsort(values, axis=-1, kind="stable")
    ranked = np.take_along_axis(values, order, -1)
    # Sums to exactly 1 at the end, or rounding would cost the strongest patch at mass 0.
    share = ranked.cumsum(-1) / ranked.sum(-1, keepdims=True)
    share /= share[..., -1:]
    kept = np.empty(values.shape, dtype=np.bool_)
    np.put_along_axis(kept, order, share > 1 - mass, -1)
    return kept
