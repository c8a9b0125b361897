"""Self-Tuning as one module: the query network, its slow copy that makes keys, and the queues of keys.

In a plain loop, over `Views` of two views of labelled images and two of unlabelled ones, queries and keys:

    learner = SelfTuning(network)  # any classifier of timm
    optimizer = torch.optim.SGD(learner.parameters(), lr=0.001, momentum=0.9, nesterov=True)
    for step, (views, labels) in enumerate(loader):
        batch = learner.prepare(views, labels)
        learner(batch).loss.backward(); optimizer.step(); optimizer.zero_grad()
        learner.after_update(batch, (step + 1) / total)

With a mixer it is the variant of Decoupled Mixup. What is left of it, `learner.network`, is the network that was given.
"""

import copy
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from lumix.batch import MixedBatch, rows_of
from lumix.functional import at_least_float32
from lumix.inputs import Count, Positive, Share, check_batch, check_part, check_shape, checked
from lumix.losses import MixLoss
from lumix.mixers.base import Mixer
from lumix.semi.self_tuning import TEMPERATURE, ClassQueues, follow, group_contrast
from lumix.semi.views import Views

Pair = tuple[Tensor, Tensor]


class Mixture(NamedTuple):
    """A mixed batch of B with the label rule's draws for it: [B], or None for a rule that draws nothing."""

    batch: MixedBatch
    draws: Tensor | None

    def rows(self, index: slice) -> "Mixture":
        return rows_of(self, index)


class ContrastBatch(NamedTuple):
    """A batch of B after all draws, whose parts are `rows`.

    Attributes:
        images, unlabelled: [B, C, H, W] queries.
        labels, pseudo_labels: [B] int64 of both; the latter are what the query network says, as constants.
        keys, unlabelled_keys: [B, F] of length 1, float32, of the slow copy.
        mixed: labelled images with one another; None where nothing is mixed.
        mixed_unlabelled: each labelled image with the unlabelled one of its row, whose label is the pseudo-label.
    """

    images: Tensor
    labels: Tensor
    keys: Tensor
    unlabelled: Tensor
    pseudo_labels: Tensor
    unlabelled_keys: Tensor
    mixed: Mixture | None = None
    mixed_unlabelled: Mixture | None = None

    @property
    def size(self) -> int:
        return len(self.labels)

    def rows(self, index: slice) -> "ContrastBatch":
        return rows_of(self, index)


@dataclass(frozen=True)
class ContrastLosses:
    """One forward pass: `loss` is the scalar with gradient, `parts` its terms [B] by name, weighed, without.

    `own_weight` [B] are the label weights that labelled images mixed with one another had, None without them.
    """

    loss: Tensor
    parts: dict[str, Tensor]
    own_weight: Tensor | None


class SelfTuning(nn.Module):
    """Cross entropy of labelled images and pseudo-group contrast of labelled and unlabelled ones (Wang et al. 2021).

    Keys are of a slow copy of network and projector; labelled and unlabelled images share the queues. A mixer adds the
    mixed `loss` of labelled images with one another and, with a weight that rises from 0 to 1 by half a cosine over
    the training, of labelled with unlabelled ones: of the two orders the one that shows more of the labelled image.

    The public code fills the queues with random directions at first, where here places are empty; takes labelled keys
    in before the unlabelled contrast of the same update; and lets the slow copy follow twice an update, so that its
    momentum of 0.999 is 0.998 of an update.

    Args:
        network: a classifier of timm, with forward_features, forward_head and head_hidden_size; trained, not copied.
        mixer: None is Self-Tuning itself.
        pair_mixer: the same with flip pairing, for labelled with unlabelled images.
        loss: of mixed images; its label rule may not ask for attention.
        places: keys that are kept of each class.
        features: of the projection, a linear layer on the features that the classifier sees.
        momentum: of the slow copy.
    """

    progress: Tensor

    def __init__(
        self,
        network: nn.Module,
        mixer: Mixer | None = None,
        pair_mixer: Mixer | None = None,
        loss: MixLoss | None = None,
        *,
        places: int = 32,
        features: int = 1024,
        temperature: float = TEMPERATURE,
        momentum: float = 0.999,
    ) -> None:
        super().__init__()
        checked("temperature", temperature, Positive)
        checked("features", features, Count)
        checked("momentum", momentum, Share)
        check_part("network", network, ("forward_features", "forward_head", "get_classifier"), "a classifier of timm")
        if (mixer is None) != (pair_mixer is None):
            raise ValueError("mixer and pair_mixer are one method in two pairings: give both or neither")
        self.loss = loss if loss is not None else MixLoss()
        if self.loss.rule.needs_attention:
            raise ValueError(f"Self-Tuning records no attention for {self.loss.rule}: use another label rule")
        self.mixer, self.pair_mixer = mixer, pair_mixer
        self.temperature, self.momentum = temperature, momentum
        self.network = network
        inner: Any = network
        device = next(network.parameters()).device
        self.projector = nn.Linear(inner.head_hidden_size, features).to(device)
        self.slow_network = copy.deepcopy(network).requires_grad_(False)
        self.slow_projector = copy.deepcopy(self.projector).requires_grad_(False)
        self.queues = ClassQueues(inner.num_classes, places, features).to(device)
        self.register_buffer("progress", torch.zeros((), device=device))

    # --------------------------------------------------------------------------------------------- draws

    @torch.no_grad()
    def prepare(
        self,
        views: Views,
        labels: Tensor,
        generator: torch.Generator | None = None,
        rule_generator: torch.Generator | None = None,
    ) -> ContrastBatch:
        """Keys, pseudo-labels and all draws for `views`, (queries, keys) of B images of either kind, with labels [B].

        Pseudo-labels are of the queries and with the statistics of their batch, as published.

        Args:
            generator, rule_generator: of the mixer's and of the label rule's draws; the latter None is the former.

        Raises:
            ValueError: for what is no batch of images and labels, another number of views, or unlike numbers of
                labelled and unlabelled images.
        """
        (query, key), (unlabelled_query, unlabelled_key) = _pairs(views)
        labels = check_batch(query, labels)
        pseudo_labels = self._logits(unlabelled_query)[1].argmax(dim=1)
        keys, unlabelled_keys = self._keys(key), self._keys(unlabelled_key)
        queries = query, labels, keys, unlabelled_query, pseudo_labels, unlabelled_keys
        if self.mixer is None or self.pair_mixer is None:
            return ContrastBatch(*queries)
        if generator is None:
            raise ValueError("a mixer draws: give the generator that it draws from")
        both, all_labels = (query, unlabelled_query), (labels, pseudo_labels)
        pairs = self._with_unlabelled(both, all_labels, self.pair_mixer, generator)
        mixed = self.mixer(query.clone(), labels, generator, self.network)  # it may work in place
        draws = rule_generator or generator
        return ContrastBatch(*queries, *(Mixture(batch, self.loss.draw(batch, draws)) for batch in (mixed, pairs)))

    def _with_unlabelled(self, images: Pair, labels: Pair, mixer: Mixer, generator: torch.Generator) -> MixedBatch:
        """Row i of B is labelled image i with unlabelled image i, in the order that shows more of the former."""
        both, their_labels = (torch.cat([first, second.flip(0)]) for first, second in (images, labels))
        batch = mixer(both, their_labels, generator, self.network)  # the flip of the flipped half pairs i with i
        size = len(labels[0])
        first = torch.arange(size, device=both.device)
        second = 2 * size - 1 - first
        labelled_first = batch.own_weight[first] >= 1 - batch.own_weight[second]
        return batch.rows(torch.where(labelled_first, first, second))

    def _keys(self, images: Tensor) -> Tensor:
        pooled, _ = _pooled_and_logits(self.slow_network, images)
        return _unit(self.slow_projector(pooled))

    def _logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return _pooled_and_logits(self.network, images)

    # --------------------------------------------------------------------------------------------- losses

    def forward(self, batch: ContrastBatch) -> ContrastLosses:
        """The losses of a prepared batch or of a part of it; all that has a gradient is in here."""
        pooled, logits = self._logits(batch.images)
        losses = {
            "cross_entropy": F.cross_entropy(at_least_float32(logits), batch.labels, reduction="none"),
            "contrast": self._contrast(pooled, batch.keys, batch.labels),
        }
        pooled, _ = self._logits(batch.unlabelled)
        losses["contrast_unlabelled"] = self._contrast(pooled, batch.unlabelled_keys, batch.pseudo_labels)
        weight = None
        if batch.mixed is not None and batch.mixed_unlabelled is not None:
            losses["mixed"], weight = self._mixed(batch.mixed)
            losses["mixed_unlabelled"] = self._ramp() * self._mixed(batch.mixed_unlabelled)[0]
        loss = torch.stack(list(losses.values())).sum(dim=0).mean()
        return ContrastLosses(loss, {name: value.detach() for name, value in losses.items()}, weight)

    def _contrast(self, pooled: Tensor, keys: Tensor, labels: Tensor) -> Tensor:
        queries = _unit(self.projector(pooled))
        return group_contrast(queries, keys, labels, self.queues.keys, self.queues.filled, self.temperature)

    def _mixed(self, mixture: Mixture) -> tuple[Tensor, Tensor]:
        """Mixed loss [B] and the label weights [B] in it, without gradient."""
        _, logits = self._logits(mixture.batch.images)
        weight = self.loss.weights(logits, mixture.batch, mixture.draws)
        return self.loss.per_sample(logits, mixture.batch, weight)[0], weight.detach()

    def _ramp(self) -> Tensor:
        """Half a cosine from 0 to 1 over the training, a scalar."""
        return (1 - torch.cos(math.pi * self.progress)) / 2

    # --------------------------------------------------------------------------------------------- after an update

    @torch.no_grad()
    def after_update(self, batch: ContrastBatch, progress: float) -> None:
        """Let the slow copy follow, and the whole batch's keys into the queues, labelled ones first.

        Under torch.distributed those of all processes, so that all have the same queues. `progress` is the share of
        the training that is done, 0 to 1. Statistics of batch normalisation are the copy's own.
        """
        checked("progress", progress, Share)
        self.progress.fill_(progress)
        follow(self.slow_network, self.network, self.momentum)
        follow(self.slow_projector, self.projector, self.momentum)
        keys = torch.cat([batch.keys, batch.unlabelled_keys])
        labels = torch.cat([batch.labels, batch.pseudo_labels])
        self.queues.enqueue(_of_all(keys), _of_all(labels))


def _pairs(views: Views) -> tuple[Pair, Pair]:
    """Queries and keys of labelled and of unlabelled images; ValueError for others than two views of one shape."""
    found = (*views.labelled, *views.unlabelled)
    if (len(views.labelled), len(views.unlabelled)) != (2, 2):
        raise ValueError(
            f"Self-Tuning needs two views of labelled and two of unlabelled images, queries and keys, not "
            f"{len(views.labelled)} and {len(views.unlabelled)}"
        )
    check_shape(found[0].shape, "Self-Tuning", (4,))
    shapes = [list(view.shape) for view in found]
    if any(shape != shapes[0] for shape in shapes):
        raise ValueError(
            f"all four views must have the shape {shapes[0]} of the first, not {shapes[1:]}: take as many unlabelled "
            "images as labelled ones"
        )
    return (found[0], found[1]), (found[2], found[3])


def _of_all(values: Tensor) -> Tensor:
    """The rows of all processes, by rank; each has as many."""
    if not (dist.is_available() and dist.is_initialized()):
        return values
    found = [torch.empty_like(values) for _ in range(dist.get_world_size())]
    dist.all_gather(found, values.contiguous())
    return torch.cat(found)


def _pooled_and_logits(network: Any, images: Tensor) -> tuple[Tensor, Tensor]:
    """What a classifier of timm gives to its last layer [B, P], and its logits [B, C]."""
    features = network.forward_features(images)
    return network.forward_head(features, pre_logits=True), network.forward_head(features)


def _unit(features: Tensor) -> Tensor:
    """Rows [B, F] of length 1, in float32 or wider."""
    return F.normalize(at_least_float32(features), dim=1)
