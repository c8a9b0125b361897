"""Tasks with unlabelled images: FixMatch and Pseudo-Label, with the mixed loss of a run that mixes, and MixMatch."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from lumix.batch import DrawnBatch, rows_of
from lumix.functional import at_least_float32
from lumix.losses import CrossEntropy
from lumix.registry import describe
from lumix.semi import guess_labels, mix_targets, pseudo_labels, soft_cross_entropy, squared_error
from training.build import Setup
from training.config import Loss, Mix, Run
from training.tasks.mixed import MixTask, StepResult, Streams, losses_of

PLAIN = Loss(terms=(CrossEntropy(),))


class SemiTask(MixTask):
    """One network; its batches are `Views` with the labels of the labelled ones."""

    def __init__(self, options: Any, setup: Setup) -> None:
        super().__init__(options, setup)
        if self.criterion.rule.needs_attention:
            raise ValueError(f"nothing records attention for {self.criterion.rule} here: use another label rule")
        self.updates, self.weight, self.ramp = setup.updates, options.weight, options.ramp
        self.done = 0  # updates

    def factors(self, labelled: int, unlabelled: int) -> tuple[float, float]:
        """Factors of the losses of labelled and of unlabelled images in the mean over a batch of so many of both.

        That mean is then the mean over the labelled images and, as high as it has risen, `weight` times that over the
        unlabelled ones.
        """
        total = labelled + unlabelled
        risen = min(self.done / (self.ramp * self.updates), 1.0) if self.ramp else 1.0
        return total / labelled, self.weight * risen * total / unlabelled

    def after_update(self, step: int) -> None:
        super().after_update(step)
        self.done = step + 1

    def checkpoint(self) -> dict[str, Any]:
        return {**super().checkpoint(), "done": self.done}

    def restore(self, saved: dict[str, Any]) -> None:
        super().restore(saved)
        self.done = saved["done"]


def check_plain(run: Run) -> None:
    """Raise ValueError for mixing or a loss that the task of the run would pass over."""
    if run.mix != Mix() or run.loss != PLAIN:
        raise ValueError(
            f"{describe(run.task)} has losses of its own here, and the run has {run.mix} and {run.loss}: leave out "
            f"Run.mix, and set Run.loss to cross entropy without smoothing"
        )


@dataclass(frozen=True)
class TrustedBatch:
    """A batch of N after all draws, of which M images have a label, their own or a pseudo-label that is trusted."""

    known: Tensor  # the M images [M, C, H, W], labelled ones first
    labels: Tensor  # [M]
    factors: Tensor  # [M], by which their losses count
    trusted: Tensor  # [M], NaN for a labelled image and 1 for an unlabelled one
    rest: Tensor  # [N - M, C, H, W], all others: without loss, but in the statistics of batch normalisation
    mixed: DrawnBatch | None  # the M images mixed with one another, or None where nothing is mixed

    @property
    def size(self) -> int:
        return len(self.known) + len(self.rest)

    def rows(self, index: slice) -> "TrustedBatch":
        known = len(self.known)
        start, stop, _ = index.indices(self.size)
        first = slice(min(start, known), min(stop, known))
        second = slice(max(start - known, 0), max(stop - known, 0))
        return TrustedBatch(
            self.known[first],
            self.labels[first],
            self.factors[first],
            self.trusted[first],
            self.rest[second],
            None if self.mixed is None else self.mixed.rows(first),
        )


class FixMatchTask(SemiTask):
    """Weak views give pseudo-labels, strong views learn those that are trusted (Sohn et al. 2020).

    Where the run mixes, a term is added: the images that have a label, weak views of labelled images and strong views
    with a trusted pseudo-label, are mixed with one another and learnt under the run's mixed loss as well. There an
    image counts as it does unmixed, and a mixed one as its own image. Their number may be odd, so they are not paired
    by flipping.

    Parts of a batch hold images of different kinds, so batch normalisation wants the batch whole: no microbatches.
    """

    def __init__(self, options: Any, setup: Setup) -> None:
        mix = setup.run.mix
        if mix.choices and mix.pairing == "flip":
            raise ValueError("the trusted images of a batch may be odd in number: set Mix.pairing to 'permutation'")
        if not mix.choices:
            check_plain(setup.run)
        super().__init__(options, setup)
        self.threshold, self.ratio, self.mixes = options.threshold, options.ratio, bool(mix.choices)

    def prepare(self, images: Any, labels: Tensor, streams: Streams) -> Any:
        """Pseudo-labels by the network in training, then the draws by the streams "mix" and "rule".

        With one view of unlabelled images it is both the weak and the strong one.
        """
        (labelled,), weak, strong = images.labelled, images.unlabelled[0], images.unlabelled[-1]
        if len(weak) != self.ratio * len(labels):
            raise ValueError(f"{len(labels)} labelled images go with {self.ratio} times as many, not {len(weak)}")
        with torch.no_grad():
            guessed, trusts = pseudo_labels(self.network(weak.to(memory_format=self.memory_format)), self.threshold)
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
        batch = self.mixer(images, labels, streams("mix"), self.network)
        if batch.hidden is not None:
            raise ValueError(f"images are mixed here, and {type(self.mixer).__name__} mixes inside the network")
        return DrawnBatch(batch, self.criterion.draw(batch, streams("rule")))

    def step(self, part: Any) -> StepResult:
        images = [part.known, part.rest] + ([] if part.mixed is None else [part.mixed.batch.images])
        logits = self.trainable_module(torch.cat(images).to(memory_format=self.memory_format))
        loss = F.cross_entropy(at_least_float32(logits[: len(part.labels)]), part.labels, reduction="none")
        parts: dict[str, Tensor] = {"cross_entropy": loss.detach()}
        record: dict[str, Tensor] = {}
        if part.mixed is not None:
            mixed, _, record = losses_of(self.criterion, part.mixed, logits[part.size :], None)
            loss, parts["mixed"] = loss + mixed, mixed.detach()
        loss = part.factors * loss
        rest = len(part.rest)
        return StepResult(
            loss.sum() / part.size,
            {name: _padded(value, rest, torch.nan) for name, value in parts.items()},
            {name: _padded(value, rest, torch.nan) for name, value in record.items()}
            | {"loss": _padded(loss.detach(), rest, 0.0), "trusted": _padded(part.trusted, rest, 0.0)},
        )


def _padded(values: Tensor, count: int, value: float) -> Tensor:
    """Values [M] padded to [M + count] by another value, as float32."""
    return torch.cat([values.float(), values.new_full((count,), value, dtype=torch.float32)])


class GuessedBatch(NamedTuple):
    """N mixed images [N, C, H, W], targets [N, classes], factors [N] of their losses, and which are labelled [N]."""

    images: Tensor
    targets: Tensor
    factors: Tensor
    is_labelled: Tensor

    @property
    def size(self) -> int:
        return len(self.images)

    def rows(self, index: slice) -> "GuessedBatch":
        return rows_of(self, index)


class MixMatchTask(SemiTask):
    """Guessed labels of unlabelled images, all images mixed with one another (Berthelot et al. 2019).

    Cross entropy for labelled images, squared error of the probabilities for all views of unlabelled ones; no other
    loss.
    """

    def __init__(self, options: Any, setup: Setup) -> None:
        check_plain(setup.run)
        super().__init__(options, setup)
        self.temperature, self.alpha = options.temperature, options.alpha

    def prepare(self, images: Any, labels: Tensor, streams: Streams) -> Any:
        """Guesses by the network in training, then all draws by the stream "mix"."""
        with torch.no_grad():
            logits = [self.network(view.to(memory_format=self.memory_format)) for view in images.unlabelled]
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

    def step(self, part: Any) -> StepResult:
        logits = self.trainable_module(part.images.to(memory_format=self.memory_format))
        both = {
            "cross_entropy": soft_cross_entropy(logits, part.targets),
            "squared_error": squared_error(logits, part.targets),
        }
        loss = part.factors * torch.where(part.is_labelled, both["cross_entropy"], both["squared_error"])
        counts = {"cross_entropy": part.is_labelled, "squared_error": ~part.is_labelled}
        parts = {name: torch.where(counts[name], value.detach(), torch.nan) for name, value in both.items()}
        return StepResult(loss.mean(), parts, {"loss": loss.detach()})
