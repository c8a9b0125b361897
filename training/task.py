"""Task: everything that trains, as the loop knows it; each way of training is a file of its own, as `mix_task`."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lumix.batch import MixedBatch

Streams = Callable[[str], torch.Generator]  # the generator of a name ("mix", "rule", ...) at this step of this process


@dataclass(frozen=True)
class StepResult:
    """One forward pass over B samples.

    Attributes:
        loss: scalar with gradient, the mean over the samples.
        parts: name of each term of the loss -> its value for each sample [B], without gradient.
        record: name -> what the log tells the mean of, [B] without gradient; NaN where a sample has no such value. The
            same names at every step; "loss" is among them.
    """

    loss: Tensor
    parts: dict[str, Tensor]
    record: dict[str, Tensor]

    def statistics(self) -> dict[str, Tensor]:
        """The record, with the terms of the loss where there are several."""
        return {**self.record, **(self.parts if len(self.parts) > 1 else {})}


class Task(Protocol):
    """All networks of a training and their losses. What has a gradient lies within the module that DDP wraps."""

    def prepare(self, images: Any, labels: Tensor, streams: Streams) -> Any:
        """A batch after all random draws of an update, with its `size` B, and its parts by `rows(slice)`.

        The images are [B, C, H, W], or `lumix.semi.Views` for a task that is registered with views. They may be
        overwritten.
        """
        ...

    def step(self, part: Any) -> StepResult:
        """The loss of a prepared batch or of a part of it; draws nothing from `streams`."""
        ...

    def parameter_groups(self) -> list[dict[str, Any]]:
        """What the optimizer updates; groups without "weight_decay" take the run's."""
        ...

    def after_update(self, step: int) -> None:
        """Called after update `step`, from 0: moving averages."""
        ...

    def reported_model(self) -> nn.Module:
        """The network whose accuracy counts, without DDP: processes may have different numbers of test batches."""
        ...

    def mix_test(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> MixedBatch:
        """Test images, each mixed with the next one as in training, with a label weight of its own; new memory."""
        ...

    def checkpoint(self) -> dict[str, Any]:
        """State of all networks, the same however many processes train."""
        ...

    def restore(self, saved: dict[str, Any]) -> None:
        """Take up what `checkpoint` gave."""
        ...

    # As in timm's TrainingTask.
    def train(self, mode: bool = True) -> Any: ...

    def prepare_distributed(self, device_ids: list[Any] | None = None) -> Any: ...

    def no_sync(self) -> AbstractContextManager[Any]: ...

    def get_clip_parameters(self) -> Any: ...

    def create_evaluator(self) -> Any: ...
