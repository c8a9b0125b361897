"""Attention of the class token, read from timm's vision transformers as they are, fused kernels included."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from timm.layers import Attention, PatchDropout
from torch import Tensor, nn

from lumix.mixers.base import hooks_run, unwrapped


def class_attention(model: nn.Module, images: Tensor) -> Tensor:
    """Softmax attention [B, heads, patches] from the class token to the patch tokens in the last block.

    It is float32 or wider. Patches come row by row; the keys of class, distillation and register tokens are dropped
    after the softmax, so rows sum to less than 1. The model, a timm vision transformer with a class token, keeps mode
    and weights; its images [B, C, H, W] are normalised as it expects.
    """
    with recorded_attention(model) as recorded:
        model(images)
    return recorded[-1]


@contextmanager
def recorded_attention(model: nn.Module) -> Iterator[list[Tensor]]:
    """A list that every forward pass of `model` within appends its `class_attention` to, without gradient.

    The model may be wrapped (torch.compile, DDP, moving averages) or hold the transformer beside other things; compiled
    code rests meanwhile.
    """
    attention, prefix = check_class_attention(model)
    recorded: list[Tensor] = []
    dropping = [part for part in model.modules() if isinstance(part, PatchDropout)]

    def record(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        if module is not attention:  # of a copy made meanwhile, which keeps its hooks for ever
            return
        if any(part.training for part in dropping):
            raise ValueError("patch_drop hides patches, so attention has no place there: set patch_drop_rate=0")
        with torch.no_grad():
            recorded.append(_recompute(attention, arguments[0])[..., prefix:])

    with hooks_run(model):
        handle = attention.register_forward_pre_hook(record)
        try:
            yield recorded
        finally:
            handle.remove()
    if not recorded:
        raise RuntimeError("no attention was recorded: no forward pass reached the last block of the model given")


def check_class_attention(model: nn.Module) -> tuple[Attention, int]:
    """The last attention layer, and how many tokens stand before the patches."""
    name = type(unwrapped(model)).__name__
    # What a module holds itself: torch.compile's wrapper answers for the network that it wraps.
    holds = [part for part in model.modules() if part._parameters.get("cls_token") is not None]
    found: list[Any] = [part for part in holds if part._modules.get("blocks")]
    if not found:
        raise ValueError(f"{name} has no class token whose attention could be read: use a ViT or DeiT of timm")
    if len(found) > 1:
        raise ValueError(f"{name} holds {len(found)} networks with a class token: give the one whose attention counts")
    attention = getattr(found[0].blocks[-1], "attn", None)
    if not isinstance(attention, Attention):
        kind = type(attention).__name__
        raise ValueError(f"the last block of {name} attends by {kind}, not by timm's Attention: use a ViT or DeiT")
    return attention, int(getattr(found[0], "num_prefix_tokens", 1))


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
