"""MixTask: one network that trains on mixed images, on timm's ClassificationTask."""

from contextlib import ExitStack
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from timm.task import ClassificationTask
from timm.utils.model import unwrap_model
from torch import Tensor, nn

from lumix.batch import MixedBatch, rows_of
from lumix.losses import MixLoss
from lumix.mixers.base import Mixer, PlannedMixer
from lumix.mixers.manifold import hidden_mixing
from training.attention import check_class_attention, recorded_attention
from training.mixed_accuracy import mix_with_next
from training.optim import parameter_groups
from training.task import StepResult, Streams


class DrawnBatch(NamedTuple):
    """A mixed batch of B with the label rule's draws for it: [B], or None for a rule that draws nothing."""

    batch: MixedBatch
    draws: Tensor | None

    @property
    def size(self) -> int:
        return self.batch.size

    def rows(self, index: slice) -> "DrawnBatch":
        return rows_of(self, index)


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
        mixer: Mixer,
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
        return DrawnBatch(batch, self.criterion.draw(batch, streams("rule")))

    def step(self, part: DrawnBatch) -> StepResult:
        batch = part.batch
        network, attends = unwrap_model(self.trainable_module), self.criterion.rule.needs_attention
        with hidden_mixing(network, batch), ExitStack() as stack:
            seen = stack.enter_context(recorded_attention(network)) if attends else []
            logits = self.trainable_module(batch.images)
        loss, parts, record = losses_of(self.criterion, part, logits, seen[-1].mean(dim=1) if attends else None)
        return StepResult(loss.mean(), parts, record)

    def parameter_groups(self) -> list[dict[str, Any]]:
        return parameter_groups(unwrap_model(self.trainable_module))

    def after_update(self, step: int) -> None:
        self.update_ema(step)

    def reported_model(self) -> nn.Module:
        return unwrap_model(self.get_eval_model(ema=self.ema_reported))

    def mix_test(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> MixedBatch:
        if not isinstance(self.mixer, PlannedMixer):
            raise ValueError(f"{type(self.mixer).__name__} takes no partners that are given: leave Run.count_mixed off")
        mixer = replace(self.mixer, mode="elem", pairing="permutation", inplace=False)
        return mix_with_next(mixer, images, labels, generator)

    def checkpoint(self) -> dict[str, Any]:
        return {**self.get_checkpoint_state(), **self.get_checkpoint_state(ema=True)}

    def restore(self, saved: dict[str, Any]) -> None:
        self.load_checkpoint_state(saved["state_dict"])
        if self.has_ema():
            self.load_checkpoint_state(saved["state_dict_ema"], ema=True)


def losses_of(
    criterion: MixLoss, drawn: DrawnBatch, logits: Tensor, attention: Tensor | None
) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """Loss [B], its parts by name and what the log tells of a mixed batch, for logits [B, C], attention [B, patches].

    Sample by sample: batches of one kind give the same together. Lambda is the partner's weight, as in the paper.
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
