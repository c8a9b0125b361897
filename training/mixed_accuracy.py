"""Accuracy on mixed test images while a run trains (Decoupled Mixup, Figure A1)."""

from dataclasses import replace

import torch
from torch import Tensor

from lumix.batch import MixedBatch
from lumix.mixers.base import PlannedMixer
from lumix.mixers.paste import apply_plan
from training.process import Process

NAMES = ("top1_mixed", "top2_mixed")


def next_ones(size: int) -> Tensor:
    """The partner [B] of each of `size` images: the next one."""
    return torch.arange(size).roll(-1)


def mix_with_next(mixer: PlannedMixer, images: Tensor, labels: Tensor, generator: torch.Generator) -> MixedBatch:
    """Images [B, C, H, W] mixed with the next ones by what the mixer draws; new memory where it is not in place."""
    plan = mixer.draw(images.shape, generator)
    return apply_plan(images, labels, replace(plan, partner=next_ones(len(images))))


def mixed_hits(logits: Tensor, labels: Tensor, partner_labels: Tensor) -> tuple[Tensor, Tensor]:
    """For each sample, whether the largest logit is of one of its two classes, and whether the two largest are both.

    A pair of equal classes cannot have both. Of equal logits the lower class counts as larger.
    Logits [B, C], C at least 2, and labels [B] twice -> bool [B] twice.
    """
    if logits.shape[1] < 2:
        raise ValueError(f"top-2 accuracy needs at least 2 classes, not {logits.shape[1]}")
    if not bool(logits.isfinite().all()):
        raise ValueError("the model's scores are not all finite numbers: its weights are damaged")
    top = logits.argsort(dim=1, descending=True, stable=True)[:, :2]
    pair = torch.stack((labels, partner_labels), dim=1)
    first = (top[:, :1] == pair).any(dim=1)
    return first, (top.sort(dim=1).values == pair.sort(dim=1).values).all(dim=1)


class MixedCounter:
    """Counts over the mixed batches of a test set; pairs of equal classes, which top-2 cannot hit, are left out."""

    def __init__(self, device: torch.device) -> None:
        self.counts = torch.zeros(3, dtype=torch.int64, device=device)

    def update(self, logits: Tensor, batch: MixedBatch) -> None:
        """Count in logits [B, C] of the images of a batch."""
        differ = batch.labels != batch.partner_labels
        hits = mixed_hits(logits, batch.labels, batch.partner_labels)
        self.counts += torch.stack([*((hit & differ).sum() for hit in hits), differ.sum()])

    def percent(self, process: Process) -> dict[str, float]:
        """Both `NAMES` over all processes; a call of all of them."""
        *hits, pairs = process.sum(self.counts).tolist()
        return {name: 100 * hit / pairs for name, hit in zip(NAMES, hits, strict=True)}
