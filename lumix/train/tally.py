"""Statistics of an epoch, summed on the device without waiting for it; lambda is the partner's weight, the paper's."""

from typing import Any

import torch
from torch import Tensor

from lumix.batch import MixedBatch

SIZE = 7  # entries of a tally: samples, and sums over them


def tally(batch: MixedBatch, loss: Tensor, own_weight: Tensor, perturbed: Tensor) -> Tensor:
    """Sums [7] float64 over a batch of B: `loss` is its mean, own_weight [B] the rule's, perturbed [B] bool."""
    change = (own_weight - batch.own_weight).abs() * perturbed
    sums = (
        loss.new_tensor(len(batch)),
        loss * len(batch),
        (1 - batch.own_weight).sum(),
        (1 - own_weight).sum(),
        change.sum(),
        perturbed.sum(),
        batch.is_cut().sum(),
    )
    return torch.stack([value.double() for value in sums])


def summary(sums: Tensor) -> dict[str, Any]:
    """A tally's means, as metrics.jsonl names them; the perturbation is None where nothing was perturbed."""
    samples, loss, lam_0, lam, change, perturbed, cut = sums.tolist()
    return {
        "loss": loss / samples,
        "lam_0": lam_0 / samples,
        "lam": lam / samples,
        "perturbation": change / perturbed if perturbed else None,
        "share_cut": cut / samples,
    }
