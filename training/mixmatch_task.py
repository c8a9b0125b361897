"""MixMatch as a task of the engine."""

from dataclasses import dataclass
from typing import Any

import torch
from timm.utils.model import unwrap_model
from torch import Tensor
from torch.nn import functional as F

from lumix.semi.pseudo_labels import guess_labels, mix_targets, soft_cross_entropy, squared_error
from lumix.semi.views import Views
from training.build import Setup
from training.semi_task import SemiTask, check_plain
from training.task import StepResult, Streams


@dataclass(frozen=True)
class GuessedBatch:
    """N mixed images [N, C, H, W], targets [N, classes], factors [N] of their losses, and which are labelled [N]."""

    images: Tensor
    targets: Tensor
    factors: Tensor
    is_labelled: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: slice) -> "GuessedBatch":
        return GuessedBatch(self.images[rows], self.targets[rows], self.factors[rows], self.is_labelled[rows])


class MixMatchTask(SemiTask):
    """Guessed labels of unlabelled images, all images mixed with one another (Berthelot et al. 2019).

    Cross entropy for labelled images, squared error of the probabilities for all views of unlabelled ones.

    It neither mixes by other means nor has another loss than cross entropy.
    """

    def __init__(self, options: Any, setup: Setup) -> None:
        check_plain(setup.run)
        super().__init__(options, setup)
        self.temperature, self.alpha = options.temperature, options.alpha

    def prepare(self, images: Views, labels: Tensor, streams: Streams) -> GuessedBatch:  # type: ignore[override]
        """Guesses by the network in training, then all draws by the stream "mix"."""
        network = unwrap_model(self.trainable_module)
        with torch.no_grad():
            logits = [network(view.to(memory_format=self.memory_format)) for view in images.unlabelled]
        guesses = guess_labels(logits, self.temperature)
        known = F.one_hot(labels, guesses.shape[-1]).to(guesses.dtype)
        mixed, targets = mix_targets(
            torch.cat([*images.labelled, *images.unlabelled]),
            torch.cat([known, *[guesses] * len(images.unlabelled)]),
            self.alpha,
            streams("mix"),
        )
        own, guess = self.factors(len(labels), len(mixed) - len(labels))
        is_labelled = torch.arange(len(mixed), device=labels.device) < len(labels)
        return GuessedBatch(mixed, targets, torch.where(is_labelled, own, guess), is_labelled)

    def step(self, part: GuessedBatch) -> StepResult:  # type: ignore[override]
        logits = self.trainable_module(part.images.to(memory_format=self.memory_format))
        both = {
            "cross_entropy": soft_cross_entropy(logits, part.targets),
            "squared_error": squared_error(logits, part.targets),
        }
        loss = part.factors * torch.where(part.is_labelled, both["cross_entropy"], both["squared_error"])
        counts = {"cross_entropy": part.is_labelled, "squared_error": ~part.is_labelled}
        parts = {name: torch.where(counts[name], value.detach(), torch.nan) for name, value in both.items()}
        return StepResult(loss.mean(), parts, {"loss": loss.detach()})
