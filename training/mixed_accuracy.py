"""Accuracy on mixed test images while a run trains (Decoupled Mixup, Figure A1), which `Run.count_mixed` asks for."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lumix.automix import AutoMix
from lumix.batch import MixedBatch
from lumix.mixers.base import PlannedMixer, evaluating
from lumix.mixers.paste import apply_plan
from lumix.random import draw_beta, moved
from training.process import Process
from training.rng import step_generator

NAMES = ("top1_mixed", "top2_mixed")


def next_ones(size: int) -> Tensor:
    """The partner [B] of each of `size` images: the next one."""
    return torch.arange(size).roll(-1)


def mix_as_in_training(task: Any, images: Tensor, labels: Tensor, generator: torch.Generator) -> MixedBatch:
    """Test images in new memory, each mixed with the next one as in training, with a label weight of its own."""
    learner = getattr(task, "learner", None)
    if isinstance(learner, AutoMix):
        weight = moved(draw_beta(learner.options.alpha, len(images), generator).float(), images.device)
        with evaluating(learner):
            return learner.mix(images, labels, moved(next_ones(len(images)), images.device), weight)
    if type(task.mixer).draw is not PlannedMixer.draw:
        found = f"{type(task.mixer).__name__} takes no partners that are given, or mixes inside the network"
        raise ValueError(f"{found}: leave Run.count_mixed off")
    mixer = replace(task.mixer, mode="elem", pairing="permutation", inplace=False)
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


class MixedAccuracy:
    """Counts over the mixed batches of a test set; pairs of equal classes, which top-2 cannot hit, are left out."""

    def __init__(self, task: Any, process: Process) -> None:
        self.task, self.process = task, process
        self.counts = torch.zeros(3, dtype=torch.int64, device=process.device)

    def mix(self, place: int, images: Tensor, labels: Tensor) -> Tensor:
        """The images of batch number `place` mixed: the same pairs and draws at every epoch and for every seed."""
        generator = step_generator(0, self.process.rank, place, "test")
        self.batch = mix_as_in_training(self.task, images, labels, generator)
        return self.batch.images

    def add(self, logits: Tensor) -> None:
        """Count in logits [B, C] of what `mix` gave last."""
        batch = self.batch
        differ = batch.labels != batch.partner_labels
        hits = mixed_hits(logits, batch.labels, batch.partner_labels)
        self.counts += torch.stack([*((hit & differ).sum() for hit in hits), differ.sum()])

    def percent(self) -> dict[str, float]:
        """Both `NAMES` over all processes; a call of all of them."""
        *hits, pairs = self.process.sum(self.counts).tolist()
        return {name: 100 * hit / pairs for name, hit in zip(NAMES, hits, strict=True)}
