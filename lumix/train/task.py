"""Task: everything that trains, and what one step of it is; MixTask trains one network on mixed images."""

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from timm.task import ClassificationTask
from timm.utils.model import unwrap_model
from torch import Tensor, nn

from lumix import mixers
from lumix.batch import MixedBatch
from lumix.loss import MixLoss
from lumix.mixers.apply import apply_plan
from lumix.mixers.plan import unmixed_plan
from lumix.rules import LUMixRule
from lumix.train.attention import check_class_attention, recorded_attention
from lumix.train.optim import parameter_groups

Streams = Callable[[str], torch.Generator]  # the generator of a name ("mix", "rule", ...) at this step of this process


class Batch(Protocol):
    """What a task made of an update's images; parts of it are slices."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice) -> Any: ...


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

    def prepare(self, images: Tensor, labels: Tensor, streams: Streams) -> Batch:
        """All random draws of an update, for its whole batch; may overwrite the images [B, C, H, W]."""
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


class NoMix:
    """The mixer that leaves every sample as it is."""

    def __call__(self, images: Tensor, labels: Tensor, generator: torch.Generator, model: Any = None) -> MixedBatch:
        return apply_plan(images, labels, unmixed_plan(len(images), images.device))


@dataclass(frozen=True)
class DrawnBatch:
    """A mixed batch of B with the label rule's draws for it: [B], or None for a rule that draws nothing."""

    batch: MixedBatch
    draws: Tensor | None

    def __len__(self) -> int:
        return len(self.batch)

    def __getitem__(self, rows: slice) -> "DrawnBatch":
        return DrawnBatch(self.batch[rows], None if self.draws is None else self.draws[rows])


class MixTask(ClassificationTask):
    """Mix on the device, forward, weigh the labels, loss. Keyword arguments only: timm's signatures still move.

    Args:
        channels_last: memory format of the network and of the images.
        ema_decay: of a moving average of the weights; 0 keeps none.
        ema_reported: whether the average is evaluated and exported instead of the raw weights.

    Raises:
        ValueError: naming the model, where the label rule asks for attention that it does not have.
    """

    criterion: MixLoss

    def __init__(
        self,
        *,
        model: nn.Module,
        mixer: mixers.Mixer,
        loss: MixLoss,
        device: torch.device,
        channels_last: bool = False,
        ema_decay: float = 0.0,
        ema_reported: bool = False,
    ) -> None:
        if loss.rule.needs_attention:
            check_class_attention(model)
        self.memory_format = torch.channels_last if channels_last else torch.preserve_format
        super().__init__(model=model.to(memory_format=self.memory_format), criterion=loss, device=device, verbose=False)
        self.mixer, self.ema_reported = mixer, ema_reported
        if ema_decay:
            self.setup_ema(decay=ema_decay)

    def prepare(self, images: Tensor, labels: Tensor, streams: Streams) -> DrawnBatch:
        """Mix images [B, C, H, W] with labels [B] by the stream "mix", and draw the rule's part by the stream "rule".

        The images are given up: a mixer may work in place.
        """
        images, network = images.to(memory_format=self.memory_format), unwrap_model(self.trainable_module)
        batch = self.mixer(images, labels, streams("mix"), network)
        return DrawnBatch(batch, _draw(self.criterion, batch, streams("rule")))

    def step(self, part: DrawnBatch) -> StepResult:
        batch = part.batch
        network, attends = unwrap_model(self.trainable_module), self.criterion.rule.needs_attention
        with mixers.hidden_mixing(network, batch), ExitStack() as stack:
            seen = stack.enter_context(recorded_attention(network)) if attends else []
            logits = self.trainable_module(batch.images)
        attention = seen[-1].mean(dim=1) if attends else None
        weight = _weights(self.criterion, logits, batch, part.draws, attention)
        loss, parts = _per_sample(self.criterion, logits, batch, weight)
        weight, perturbed = weight.detach(), self.criterion.rule.perturbs(batch)
        record = {  # lambda is the partner's weight, the paper's
            "loss": loss.detach(),
            "lam_0": 1 - batch.own_weight,
            "lam": 1 - weight,
            "perturbation": torch.where(perturbed, (weight - batch.own_weight).abs(), torch.nan),
            "share_cut": batch.is_cut(),
        }
        return StepResult(loss.mean(), parts, record)

    def parameter_groups(self) -> list[dict[str, Any]]:
        return parameter_groups(unwrap_model(self.trainable_module))

    def after_update(self, step: int) -> None:
        self.update_ema(step)

    def reported_model(self) -> nn.Module:
        return unwrap_model(self.get_eval_model(ema=self.ema_reported))

    def checkpoint(self) -> dict[str, Any]:
        return {**self.get_checkpoint_state(), **self.get_checkpoint_state(ema=True)}

    def restore(self, saved: dict[str, Any]) -> None:
        self.load_checkpoint_state(saved["state_dict"])
        if self.has_ema():
            self.load_checkpoint_state(saved["state_dict_ema"], ema=True)


# The contract of the new loss, until lumix.loss has it: loss.draw, loss.weights and loss.per_sample.


def _draw(loss: MixLoss, batch: MixedBatch, generator: torch.Generator) -> Tensor | None:
    if not isinstance(loss.rule, LUMixRule):
        return None
    return loss.rule.law.draw(len(batch), generator).to(batch.labels.device, non_blocking=True)


def _weights(
    loss: MixLoss, logits: Tensor, batch: MixedBatch, draws: Tensor | None, attention: Tensor | None
) -> Tensor:
    if isinstance(loss.rule, LUMixRule) and draws is not None:
        return loss.rule.weigh(logits, batch, draws, attention)
    return loss.weights(logits, batch, None, attention)


def _per_sample(
    loss: MixLoss, logits: Tensor, batch: MixedBatch, own_weight: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    return loss.per_sample(logits, batch, own_weight), {}
