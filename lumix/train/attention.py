"""Attention of the class token, read from timm's vision transformers as they are, fused kernels included."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from timm.layers import Attention
from torch import Tensor, nn


def class_attention(model: nn.Module, images: Tensor, block: int = -1) -> Tensor:
    """Softmax attention from the class token to the patch tokens in one block.

    Args:
        model: a timm vision transformer with a class token; its mode and weights stay as they are.
        images: [B, C, H, W], normalised as the model expects.
        block: index of the block; -1 is the last.

    Returns:
        [B, heads, patches] float32 or wider, patches row by row. The keys of class, distillation and register tokens
        are dropped after the softmax, so rows sum to less than 1.

    Raises:
        ValueError: for a model without class token or ordinary attention, or without that block.
    """
    with recorded_attention(model, block) as recorded:
        model(images)
    return recorded[-1]


@contextmanager
def recorded_attention(model: nn.Module, block: int = -1) -> Iterator[list[Tensor]]:
    """A list that every forward pass of `model` within the block appends its `class_attention` to, without gradient."""
    attention, prefix = _attention_of(model, block)
    recorded: list[Tensor] = []

    def record(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        with torch.no_grad():
            recorded.append(_recompute(attention, arguments[0])[..., prefix:])

    handle = attention.register_forward_pre_hook(record)
    try:
        yield recorded
    finally:
        handle.remove()


def check_class_attention(model: nn.Module, block: int = -1) -> None:
    """Raise ValueError, naming the model, where its class attention cannot be read."""
    _attention_of(model, block)


def _attention_of(model: nn.Module, block: int) -> tuple[Attention, int]:
    """The attention layer of a block, and how many tokens stand before the patches."""
    name = type(model).__name__
    if getattr(model, "cls_token", None) is None:
        raise ValueError(f"{name} has no class token whose attention could be read: use a ViT or DeiT of timm")
    blocks = list(getattr(model, "blocks", []))
    if not -len(blocks) <= block < len(blocks):
        raise ValueError(f"{name} has {len(blocks)} blocks, hence no block {block}")
    attention = getattr(blocks[block], "attn", None)
    if not isinstance(attention, Attention):
        kind = type(attention).__name__
        raise ValueError(f"block {block} of {name} attends by {kind}, not by timm's Attention: use a ViT or DeiT")
    return attention, int(getattr(model, "num_prefix_tokens", 1))


def _recompute(attention: Attention, tokens: Tensor) -> Tensor:
    """Attention [B, heads, N] of token 0 over all tokens [B, N, D]; fused kernels do not return it."""
    batch, count, _ = tokens.shape
    width = attention.attn_dim
    # q and k of the layer's one projection: the values, a third of it, are not needed.
    weight, bias = attention.qkv.weight[: 2 * width], attention.qkv.bias
    projected = nn.functional.linear(tokens, weight, None if bias is None else bias[: 2 * width])
    query, key = projected.view(batch, count, 2, attention.num_heads, attention.head_dim).permute(2, 0, 3, 1, 4)
    query, key = attention.q_norm(query[:, :, :1]), attention.k_norm(key)
    scores = (query * attention.scale) @ key.transpose(-2, -1)
    return scores.squeeze(2).to(torch.promote_types(scores.dtype, torch.float32)).softmax(dim=-1)
