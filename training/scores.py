"""Scores: what one network reaches on the test images of its run."""

import math
from typing import Any

from torch import Tensor

from lumix.batch import MixedBatch
from training.config import Run
from training.mixed_accuracy import MixedCounter
from training.process import Process
from training.rng import step_generator
from training.run_directory import RunError
from training.task import Task


class Scores:
    """Loss, top-1 and top-5 on the clean test images, and with Run.count_mixed also on mixed ones, each counted once
    over all processes."""

    def __init__(self, run: Run, task: Task, process: Process) -> None:
        self.task, self.process, self.evaluator = task, process, task.create_evaluator()
        self.mixed = MixedCounter(process.device) if run.count_mixed else None

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Count in logits [B, C] of clean images with labels [B]."""
        self.evaluator.update(logits, labels)

    def mix(self, place: int, images: Tensor, labels: Tensor) -> MixedBatch:
        """Batch number `place` of the test set, mixed: the same pairs and draws at every epoch and for every seed."""
        return self.task.mix_test(images, labels, step_generator(0, self.process.rank, place, "test"))

    def add_mixed(self, logits: Tensor, batch: MixedBatch) -> None:
        """Count in logits [B, C] of what `mix` gave."""
        assert self.mixed is not None
        self.mixed.update(logits, batch)

    def values(self) -> dict[str, Any]:
        """By name; a call of all processes.

        Raises:
            RunError: where the loss is not finite.
        """
        scores = self.evaluator.compute(distributed=self.process.distributed)
        if not math.isfinite(scores["loss"]):
            raise RunError("the test loss is not finite: lower the learning rate")
        samples = int(self.process.sum(self.evaluator.counts)[0])
        found = {"top1": scores["top1"], "top5": scores["top5"], "eval_loss": scores["loss"], "test_samples": samples}
        return found | (self.mixed.percent(self.process) if self.mixed is not None else {})
