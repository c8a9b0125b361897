"""What AutoMix and SAMix add to their cross entropies: the loss of a mask's mean, and schedules over the training."""

import math

from torch import Tensor


def mask_loss(own_mask: Tensor, own_weight: Tensor, variance: float = 0.0, margin: float = 0.1) -> Tensor:
    """max(|mean of the masks - mean label weight| - margin, 0) - variance Var(masks), a scalar.

    Args:
        own_mask: [B, 1, H, W] share of the own image, one batch; mean and variance are over all its pixels.
        own_weight: [B] label weight of the own image, for which the mask is to make room.
        variance: 0 in AutoMix, 2 in SAMix, whose masks are pushed away from the constant one.
    """
    miss = (own_mask.mean() - own_weight.mean()).abs() - margin
    loss = miss.clamp(min=0)
    return loss - variance * own_mask.var(correction=0) if variance else loss


def cosine(begin: float, end: float, progress: float) -> float:
    """From `begin` to `end` by half a cosine while `progress` goes from 0 to 1; constant outside."""
    progress = min(max(progress, 0.0), 1.0)
    return end + (begin - end) * (1 + math.cos(math.pi * progress)) / 2


def momentum_at(progress: float, begin: float, end: float, warm: float = 0.1) -> float:
    """Momentum of the slow copy: `begin` for the first `warm` of the training, then to `end` by a cosine."""
    return cosine(begin, end, (progress - warm) / (1 - warm))
