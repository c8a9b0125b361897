"""The equations of FixMatch (Sohn et al. 2020) and MixMatch (Berthelot et al. 2019), numbered as in the papers.

Shape legend: B images, C classes. Whatever serves as a label is a constant: no gradient passes through it. Logits may
be of half precision; all results are float32 or wider.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from lumix.functional import at_least_float32, log_softmax
from lumix.inputs import Positive, checked
from lumix.random import draw_beta


def pseudo_labels(logits: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Equation 4 of FixMatch: the most probable class [B] int64 of logits [B, C], and whether it is trusted [B] bool.

    A label is trusted where its probability is at least the threshold.
    """
    probability, label = log_softmax(logits.detach()).exp().max(dim=-1)
    return label, probability >= threshold


def sharpen(probabilities: Tensor, temperature: float) -> Tensor:
    """Equation 7 of MixMatch: probabilities [B, C] to the power 1 / temperature, scaled to sum to 1.

    Raises:
        ValueError: for a temperature that is not above 0.
    """
    checked("temperature", temperature, Positive)
    return (probabilities.log() / temperature).softmax(dim=-1)


def guess_labels(views: Sequence[Tensor], temperature: float) -> Tensor:
    """Equations 6 and 7 of MixMatch: the sharpened mean [B, C] of what logits [B, C] of several views say."""
    mean = torch.stack([log_softmax(logits.detach()).exp() for logits in views]).mean(dim=0)
    return sharpen(mean, temperature)


def mix_targets(images: Tensor, targets: Tensor, alpha: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Equations 8 to 11 of MixMatch: images [B, ...] and targets [B, C], each mixed with another by its own ratio.

    Ratios are max(lambda, 1 - lambda) for lambda ~ Beta(alpha, alpha), so a mixed image is nearer to its own image than
    to its partner, which a random permutation gives.

    Args:
        generator: on the CPU.
    """
    size = len(images)
    partner = torch.randperm(size, generator=generator).to(images.device)
    ratio = draw_beta(alpha, size, generator)
    ratio = torch.maximum(ratio, 1 - ratio).to(images.device)
    return _blend(images, partner, ratio), _blend(targets, partner, ratio)


def _blend(values: Tensor, partner: Tensor, ratio: Tensor) -> Tensor:
    ratio = ratio.to(values.dtype).view(-1, *[1] * (values.ndim - 1))
    return ratio * values + (1 - ratio) * values[partner]


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Equation 3 of MixMatch before its mean: cross entropy [B] of logits with targets [B, C]."""
    return -(targets * log_softmax(logits)).sum(dim=-1)


def squared_error(logits: Tensor, targets: Tensor) -> Tensor:
    """Equation 4 of MixMatch before its mean over images: mean squared error [B] of the probabilities, over classes."""
    return F.mse_loss(log_softmax(logits).exp(), at_least_float32(targets), reduction="none").mean(dim=-1)
