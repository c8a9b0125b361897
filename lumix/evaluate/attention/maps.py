"""Class attention of the last block as a map of patches."""

import torch
from numpy import float64
from numpy.typing import NDArray
from torch import Tensor, nn

from lumix.train.attention import class_attention


def token_side(tokens: int) -> int:
    """Side of a square grid of tokens.

    Raises:
        ValueError: where there is none.
    """
    side = round(tokens**0.5)
    if side * side != tokens:
        raise ValueError(f"{tokens} patches are no square grid")
    return side


@torch.inference_mode()
def attention_grid(model: nn.Module, images: Tensor) -> NDArray[float64]:
    """Attention of the class token in the last block, [B, heads, R, C], patches where they are in the image."""
    attention = class_attention(model, images)
    side = token_side(attention.shape[-1])
    return attention.double().cpu().unflatten(-1, (side, side)).numpy()
