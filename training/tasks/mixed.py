"""Task, everything that trains as the loop knows it, and MixTask: one network that trains on mixed images."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from timm.task import ClassificationTask
from timm.utils.model import unwrap_model
from torch import Tensor, nn
from torch.nn import functional

from lumix.automix import logits_by, second_head
from lumix.batch import DrawnBatch, MixedBatch, rows_of
from lumix.integrations.attention import check_class_attention, recorded_attention
from lumix.losses import MixLoss
from lumix.mixers.base import Mixer
from lumix.mixers.manifold import hidden_mixing
from training.build import Setup, build_loss, build_mixer, frozen_network
from training.optim import parameter_groups

Streams = Callable[[str], torch.Generator]  # the generator of a name ("mix", "rule", ...) at this step of this process


@dataclass(frozen=True)
class StepResult:
    """One forward pass over B samples. The record has the same names at every step; "loss" is among them."""

    loss: Tensor  # scalar with gradient, the mean over the samples
    parts: dict[str, Tensor]  # name of each term of the loss -> its value for each sample [B], without gradient
    record: dict[str, Tensor]  # name -> what the log tells the mean of, [B] without gradient; NaN where there is none

    def statistics(self) -> dict[str, Tensor]:
        """The record, with the terms of the loss where there are several."""
        return {**self.record, **(self.parts if len(self.parts) > 1 else {})}


class Task(ClassificationTask):
    """Everything that trains, as the loop knows it: all networks of a training and their losses.

    What has a gradient lies within the module that DDP wraps. timm's task does the rest: modes, moving averages, DDP,
    evaluators. A task says how it prepares a batch and what the loss of a part of it is.
    """

    def __init__(self, model: nn.Module, loss: Any, device: torch.device, channels_last: bool = False) -> None:
        self.memory_format = torch.channels_last if channels_last else torch.preserve_format
        super().__init__(model=model.to(memory_format=self.memory_format), criterion=loss, device=device, verbose=False)
        self.ema_reported = False

    @property
    def network(self) -> Any:
        """What trains, without DDP."""
        return unwrap_model(self.trainable_module)

    def prepare(self, images: Any, labels: Tensor, streams: Streams) -> Any:
        """A batch after all random draws of an update: with its `size` B, and its parts by `rows(slice)`.

        They are [B, C, H, W], or `lumix.semi.Views` for a task that is registered with views. They may be
        overwritten.
        """
        raise NotImplementedError

    def step(self, part: Any) -> StepResult:
        """The loss of a prepared batch or of a part of it; draws nothing from `streams`."""
        raise NotImplementedError

    def parameter_groups(self) -> list[dict[str, Any]]:
        """What the optimizer updates; groups without "weight_decay" take the run's."""
        return parameter_groups(self.network)

    def after_update(self, step: int) -> None:
        """Called after update `step`, from 0: moving averages."""
        self.update_ema(step)

    def reported_model(self) -> nn.Module:
        """The network whose accuracy counts, without DDP: processes may have different numbers of test batches."""
        return unwrap_model(self.get_eval_model(ema=self.ema_reported))

    def checkpoint(self) -> dict[str, Any]:
        """State of all networks, the same however many processes train."""
        return {**self.get_checkpoint_state(), **self.get_checkpoint_state(ema=True)}

    def restore(self, saved: dict[str, Any]) -> None:
        """Take up what `checkpoint` gave."""
        self.load_checkpoint_state(saved["state_dict"])
        if self.has_ema():
            self.load_checkpoint_state(saved["state_dict_ema"], ema=True)


class MixTask(Task):
    """Mix on the device, forward, weigh the labels, loss."""

    criterion: MixLoss

    def __init__(self, options: Any, setup: Setup) -> None:
        run = setup.run
        loss = build_loss(run.loss)
        if loss.rule.needs_attention:
            check_class_attention(setup.network)
        super().__init__(setup.network, loss, setup.device, run.channels_last)
        self.mixer: Mixer = build_mixer(run.mix, setup.mean, setup.std, frozen_network(setup))
        self.ema_reported = run.optim.ema_reported
        if run.optim.ema_decay:
            self.setup_ema(decay=run.optim.ema_decay)

    def prepare(self, images: Any, labels: Tensor, streams: Streams) -> Any:
        """Images mixed by the stream "mix", possibly in place, and the rule's part drawn by the stream "rule"."""
        images = images.to(memory_format=self.memory_format)
        batch = self.mixer(images, labels, streams("mix"), self.network)
        return DrawnBatch(batch, self.criterion.draw(batch, streams("rule")))

    def step(self, part: Any) -> StepResult:
        batch, network, attends = part.batch, self.network, self.criterion.rule.needs_attention
        with hidden_mixing(network, batch), ExitStack() as stack:
            seen = stack.enter_context(recorded_attention(network)) if attends else []
            logits = self.trainable_module(batch.images)
        loss, parts, record = losses_of(self.criterion, part, logits, seen[-1].mean(dim=1) if attends else None)
        return StepResult(loss.mean(), parts, record)


class TwoHeads(nn.Module):
    """A classifier of timm and a second head, which begins as its own, for clean images: two batches, two logits."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        self.heads, self.clean_head = second_head(network)

    def forward(self, mixed: Tensor, clean: Tensor) -> tuple[Tensor, Tensor]:
        return self.network(mixed), logits_by(self.network, self.heads, self.clean_head, clean)


class CleanBatch(NamedTuple):
    """A batch of B: mixed with draws, the clean images [B, C, H, W] and their labels [B]."""

    drawn: DrawnBatch
    clean: Tensor
    labels: Tensor

    @property
    def size(self) -> int:
        return self.drawn.size

    def rows(self, index: slice) -> "CleanBatch":
        return rows_of(self, index)


class CleanTask(MixTask):
    """The mixed loss, and the cross entropy of the clean images by a head of their own, as AutoMix adds it."""

    def __init__(self, options: Any, setup: Setup) -> None:
        super().__init__(options, replace(setup, network=TwoHeads(setup.network)))

    def prepare(self, images: Any, labels: Tensor, streams: Streams) -> Any:
        """As of `MixTask`, with the images as they came."""
        return CleanBatch(super().prepare(images.clone(), labels, streams), images, labels)

    def step(self, part: Any) -> StepResult:
        logits, of_clean = self.trainable_module(part.drawn.batch.images, part.clean)
        loss, parts, record = losses_of(self.criterion, part.drawn, logits, None)
        clean = functional.cross_entropy(of_clean.float(), part.labels, reduction="none")
        total = loss + clean
        return StepResult(total.mean(), {**parts, "clean": clean.detach()}, {**record, "loss": total.detach()})

    def reported_model(self) -> nn.Module:
        both: Any = super().reported_model()
        network: nn.Module = both.network
        return network


def losses_of(
    criterion: MixLoss, drawn: DrawnBatch, logits: Tensor, attention: Tensor | None
) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """Loss [B], its parts by name and what the log tells of a mixed batch, for logits [B, C], attention [B, patches].

    Sample by sample: batches of one kind give the same together.
    """
    batch = drawn.batch
    weight = criterion.weights(logits, batch, drawn.draws, attention)
    loss, parts = criterion.per_sample(logits, batch, weight)
    return loss, parts, record_of(batch, criterion, loss.detach(), weight.detach())


def record_of(batch: MixedBatch, criterion: MixLoss, loss: Tensor, own_weight: Tensor) -> dict[str, Tensor]:
    """What the log tells of a mixed batch with loss and own weights [B]; lambda is the partner's, as in the paper."""
    perturbed = criterion.rule.perturbs(batch)
    return {
        "loss": loss,
        "lam_0": 1 - batch.own_weight,
        "lam": 1 - own_weight,
        "perturbation": torch.where(perturbed, (own_weight - batch.own_weight).abs(), torch.nan),
        "share_cut": batch.is_cut(),
    }
