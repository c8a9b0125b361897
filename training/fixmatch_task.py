"""FixMatch and Pseudo-Label as tasks of the engine, with the mixing and the mixed loss of the run (Decoupled Mixup)."""

from dataclasses import dataclass
from typing import Any

import torch
from timm.utils.model import unwrap_model
from torch import Tensor
from torch.nn import functional as F

from lumix.functional import at_least_float32
from lumix.semi.pseudo_labels import pseudo_labels
from lumix.semi.views import Views
from training.build import Setup
from training.mix_task import DrawnBatch, losses_of
from training.semi_task import SemiTask, check_plain
from training.task import StepResult, Streams


@dataclass(frozen=True)
class TrustedBatch:
    """A batch of N after all draws, of which M images have a label, their own or a pseudo-label that is trusted.

    Attributes:
        known, labels: the M images [M, C, H, W], labelled ones first, and their labels [M].
        factors: [M], by which their losses count.
        trusted: [M], NaN for a labelled image and 1 for an unlabelled one.
        rest: [N - M, C, H, W], all others: they have no loss, but a place in the statistics of batch normalisation.
        mixed: the M images mixed with one another, or None where nothing is mixed.
    """

    known: Tensor
    labels: Tensor
    factors: Tensor
    trusted: Tensor
    rest: Tensor
    mixed: DrawnBatch | None

    def __len__(self) -> int:
        return len(self.known) + len(self.rest)

    def __getitem__(self, rows: slice) -> "TrustedBatch":
        known = len(self.known)
        start, stop, _ = rows.indices(len(self))
        first = slice(min(start, known), min(stop, known))
        second = slice(max(start - known, 0), max(stop - known, 0))
        return TrustedBatch(
            self.known[first],
            self.labels[first],
            self.factors[first],
            self.trusted[first],
            self.rest[second],
            None if self.mixed is None else self.mixed[first],
        )


class FixMatchTask(SemiTask):
    """Weak views give pseudo-labels, strong views learn those that are trusted (Sohn et al. 2020).

    Where the run mixes, a term is added: the images that have a label, weak views of labelled images and strong views
    with a trusted pseudo-label, are mixed with one another and learnt under the run's mixed loss as well. There an
    image counts as it does unmixed, and a mixed one as its own image.

    Parts of a batch hold images of different kinds, so batch normalisation wants the batch whole: no microbatches.

    The number of images that are mixed may be odd, so they are not paired by flipping.
    """

    def __init__(self, options: Any, setup: Setup) -> None:
        mix = setup.run.mix
        if mix.choices and mix.pairing == "flip":
            raise ValueError("the trusted images of a batch may be odd in number: set Mix.pairing to 'permutation'")
        if not mix.choices:
            check_plain(setup.run)
        super().__init__(options, setup)
        self.threshold, self.ratio, self.mixes = options.threshold, options.ratio, bool(mix.choices)

    def prepare(self, images: Views, labels: Tensor, streams: Streams) -> TrustedBatch:  # type: ignore[override]
        """Pseudo-labels by the network in training, then the draws by the streams "mix" and "rule".

        With one view of unlabelled images it is both the weak and the strong one.

        Raises:
            ValueError: for another number of unlabelled images, or mixing inside the network.
        """
        (labelled,), weak, strong = images.labelled, images.unlabelled[0], images.unlabelled[-1]
        if len(weak) != self.ratio * len(labels):
            raise ValueError(f"{len(labels)} labelled images go with {self.ratio} times as many, not {len(weak)}")
        network = unwrap_model(self.trainable_module)
        with torch.no_grad():
            guessed, trusts = pseudo_labels(network(weak.to(memory_format=self.memory_format)), self.threshold)
        chosen, others = trusts.nonzero()[:, 0], (~trusts).nonzero()[:, 0]
        known, known_labels = torch.cat([labelled, strong[chosen]]), torch.cat([labels, guessed[chosen]])
        own, guess = self.factors(len(labels), len(weak))
        is_own = torch.arange(len(known), device=labels.device) < len(labels)
        return TrustedBatch(
            known,
            known_labels,
            torch.where(is_own, own, guess),
            torch.where(is_own, torch.nan, 1.0),
            strong[others],
            self._mix(known, known_labels, streams) if self.mixes else None,
        )

    def _mix(self, images: Tensor, labels: Tensor, streams: Streams) -> DrawnBatch:
        images = images.clone(memory_format=self.memory_format)  # a mixer may work in place
        batch = self.mixer(images, labels, streams("mix"), unwrap_model(self.trainable_module))
        if batch.hidden is not None:
            raise ValueError(f"images are mixed here, and {type(self.mixer).__name__} mixes inside the network")
        return DrawnBatch(batch, self.criterion.draw(batch, streams("rule")))

    def step(self, part: TrustedBatch) -> StepResult:  # type: ignore[override]
        images = [part.known, part.rest] + ([] if part.mixed is None else [part.mixed.batch.images])
        logits = self.trainable_module(torch.cat(images).to(memory_format=self.memory_format))
        loss = F.cross_entropy(at_least_float32(logits[: len(part.labels)]), part.labels, reduction="none")
        parts: dict[str, Tensor] = {"cross_entropy": loss.detach()}
        record: dict[str, Tensor] = {}
        if part.mixed is not None:
            mixed, _, record = losses_of(self.criterion, part.mixed, logits[len(part) :], None)
            loss, parts["mixed"] = loss + mixed, mixed.detach()
        loss = part.factors * loss
        rest = len(part.rest)
        return StepResult(
            loss.sum() / len(part),
            {name: _longer(value, rest, torch.nan) for name, value in parts.items()},
            {name: _longer(value, rest, torch.nan) for name, value in record.items()}
            | {"loss": _longer(loss.detach(), rest, 0.0), "trusted": _longer(part.trusted, rest, 0.0)},
        )


def _longer(values: Tensor, count: int, value: float) -> Tensor:
    """Values [M], then so often another one, as float32."""
    return torch.cat([values.float(), values.new_full((count,), value, dtype=torch.float32)])
