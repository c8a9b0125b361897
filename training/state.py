"""State: all that an update of a run changes, hence all that a checkpoint holds."""

from dataclasses import dataclass, field
from typing import Any

from training.config import Run
from training.statistics import Statistics
from training.task import Task
from training.update import Updater


@dataclass
class State:
    """A run with one seed under way.

    Attributes:
        statistics: of the epoch so far.
        update: updates done, over all epochs.
        metrics: lines of metrics.jsonl, one for each epoch done.
        train_seconds, epoch_seconds: spent on training, in the epochs done and in this one.
    """

    run: Run
    seed: int
    task: Task
    updater: Updater
    statistics: Statistics
    update: int = 0
    metrics: list[dict[str, Any]] = field(default_factory=list)
    train_seconds: float = 0.0
    epoch_seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """What `save_checkpoint` takes; a call of all processes."""
        return {
            "key": self.run.key,
            "seed": self.seed,
            "update": self.update,
            **self.task.checkpoint(),
            "optimizer": self.updater.optimizer.state_dict(),
            "scaler": self.updater.scaler.state_dict(),
            "statistics": self.statistics.state(),
            "metrics": self.metrics,
            "train_seconds": self.train_seconds,
            "epoch_seconds": self.epoch_seconds,
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Go on from what `to_dict` gave."""
        self.task.restore(saved)
        self.updater.optimizer.load_state_dict(saved["optimizer"])
        self.updater.scaler.load_state_dict(saved["scaler"])
        self.statistics.load(saved["statistics"])
        self.update, self.metrics = saved["update"], saved["metrics"]
        self.train_seconds, self.epoch_seconds = saved["train_seconds"], saved["epoch_seconds"]

    def close_epoch(self, line: dict[str, Any]) -> None:
        """Add an epoch's line, and begin statistics and clock anew."""
        self.metrics.append(line)
        self.train_seconds += self.epoch_seconds
        self.epoch_seconds = 0.0
        self.statistics.reset(self.statistics.names)
