"""Row 4: memory that a loss takes above the logits, at the peak of its forward and backward pass.

Every allocation is counted, nothing is sampled: there is nothing to repeat.
"""

from collections.abc import Iterator

import torch

from benchmarks.loss import PRINTED, SIZE, Task, check_equal, lumix_loss, steps
from benchmarks.measure import Setting, Spread
from benchmarks.rows import Case, Goal
from evaluation.throughput import peak_memory

NAME = "loss memory"
TITLE = "Memory of the loss above the logits"
PEERS = "as for the loss"


def cases(setting: Setting) -> Iterator[Case]:
    for classes in (1000, 100):
        check_equal(classes, setting.device, lumix_loss())
        task = Task.make(classes, setting.device)
        array = SIZE * classes * task.logits.element_size()
        peaks = {}
        for name, work in steps(task, setting.device).items():
            work()
            task.logits.grad = None  # or it would be released in the middle of the next run
            peaks[name] = Spread.of([peak_memory(work, torch.device(setting.device)) / array])
        target = 1.1 if classes == 1000 else 1.3  # one array; draws and weights [B] come on top
        goals = [
            Goal(f"arrays of {SIZE} x {classes} above the logits", peaks["lumix"], target, at_most=True, unit=""),
            Goal(f"times as many in {PRINTED}", Spread.of([peaks[PRINTED].median / peaks["lumix"].median])),
        ]
        yield Case(f"logits {SIZE} x {classes}, float32", "arrays", peaks, goals)
