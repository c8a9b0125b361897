"""FixMatch (Sohn et al. 2020) and MixMatch (Berthelot et al. 2019) as equations; Self-Tuning (Wang et al. 2021).

Self-Tuning is one module, used as `lumix.AutoMix`, but that `after_update` takes the batch too: the query network, its
slow copy that makes keys, and the queues of keys. With a mixer it is the variant of Decoupled Mixup.

Shape legend: B images, C classes, D places of a queue, F features of a projection. Whatever serves as a label is a
constant: no gradient passes through it. Logits may be of half precision; all results are float32 or wider.
"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from lumix.automix import Learner, Losses, checked_loss, logits_by, second_head
from lumix.batch import DrawnBatch, MixedBatch, rows_of
from lumix.functional import at_least_float32, follow, log_softmax
from lumix.inputs import Checked, Count, Positive, Share, check_batch, check_part, check_shape, checked, shown
from lumix.losses import MixLoss
from lumix.mixers.base import MIXER, Mixer
from lumix.random import device_of, draw_beta, moved

TEMPERATURE = 0.07  # of Self-Tuning's contrast
Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Views:
    """Normalised views, labelled [B, C, H, W] and unlabelled [ratio B, C, H, W]; row i of every view is one image."""

    labelled: tuple[Tensor, ...]
    unlabelled: tuple[Tensor, ...]

    def each(self, function: Callable[[Tensor], Tensor]) -> "Views":
        """The result of `function` in place of every view."""
        return Views(tuple(map(function, self.labelled)), tuple(map(function, self.unlabelled)))


def pseudo_labels(logits: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """FixMatch, equation 4: the likeliest class [B] int64 of logits [B, C], trusted [B] bool from the threshold on."""
    checked("threshold", threshold, Share)
    probability, label = log_softmax(logits.detach()).exp().max(dim=-1)
    return label, probability >= threshold


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """MixMatch, equation 3: before its mean, cross entropy [B] of logits with targets [B, C]."""
    return -(_dense(targets, logits) * log_softmax(logits)).sum(dim=-1)


def squared_error(logits: Tensor, targets: Tensor) -> Tensor:
    """MixMatch, equation 4: before its mean over images, mean squared error [B] of the probabilities, over classes."""
    return F.mse_loss(log_softmax(logits).exp(), _dense(targets, logits), reduction="none").mean(dim=-1)


def _dense(targets: Tensor, logits: Tensor) -> Tensor:
    """The targets in float32 or wider; class indices would be spread over the classes in silence."""
    if targets.shape != logits.shape:
        raise ValueError(f"targets must be {list(logits.shape)}, not {list(targets.shape)}: use F.one_hot(labels, C)")
    return at_least_float32(targets)


def guess_labels(views: Sequence[Tensor], temperature: float) -> Tensor:
    """MixMatch, equation 6: the mean [B, C] of what logits [B, C] of several views say, sharpened."""
    if isinstance(views, Tensor) or not views:
        raise ValueError(f"views must be a list of logits [B, C], one for each view, not {shown(views)}")
    mean = torch.stack([log_softmax(logits.detach()).exp() for logits in views]).mean(dim=0)
    return sharpen(mean, temperature)


def sharpen(probabilities: Tensor, temperature: float) -> Tensor:
    """MixMatch, equation 7: probabilities [B, C] to the power 1 / temperature, scaled to sum to 1."""
    checked("temperature", temperature, Positive)
    return (probabilities.log() / temperature).softmax(dim=-1)


def mix_targets(images: Tensor, targets: Tensor, alpha: float, generator: Generator) -> Pair:
    """MixMatch, equations 8 to 11: images [B, ...] and targets [B, C], each mixed with another by its own ratio.

    Ratios are max(lambda, 1 - lambda) for lambda ~ Beta(alpha, alpha), so a mixed image is nearer to its own image than
    to its partner, which a random permutation gives. Images are floating, as normalised ones are; whole targets, as of
    `F.one_hot`, become float32.
    """
    checked("alpha", alpha, Positive)
    if not isinstance(images, Tensor) or not isinstance(targets, Tensor):
        raise ValueError(f"images and targets must be tensors, not {shown(images)} and {shown(targets)}")
    if not images.is_floating_point() or targets.ndim != 2 or len(targets) != len(images):
        found = f"not {images.dtype} and {list(targets.shape)}: give class indices as F.one_hot(labels, classes)"
        raise ValueError(f"images must be floating and targets [B, C] with B = {len(images)}, {found}")
    targets = at_least_float32(targets)
    partner = moved(torch.randperm(len(images), generator=generator, device=device_of(generator)), images.device)
    drawn = draw_beta(alpha, len(images), generator)
    drawn = moved(torch.maximum(drawn, 1 - drawn), images.device)

    def mixed(values: Tensor) -> Tensor:
        ratio = drawn.to(values.dtype).view(-1, *[1] * (values.ndim - 1))
        return ratio * values + (1 - ratio) * values[partner]

    return mixed(images), mixed(targets)


def group_contrast(
    queries: Tensor, own_keys: Tensor, labels: Tensor, queue: Tensor, filled: Tensor, temperature: float = TEMPERATURE
) -> Tensor:
    """Self-Tuning, equations 4 and 5: pseudo-group contrast [B], KL(uniform over the positives || softmax of q k / t).

    Positives of a query [B, F] are the key [B, F] of its own other view and the queued keys of its (pseudo-)class [B];
    the keys of all other classes are negatives. Places of the queue [C, D, F] that no key has taken yet, where `filled`
    [C, D] is false, do not occur. All keys are constants, and all vectors of length 1.
    """
    checked("temperature", temperature, Positive)
    with torch.autocast(queries.device.type, enabled=False):
        queries, own_keys, queue = (at_least_float32(x) for x in (queries, own_keys.detach(), queue.detach()))
        own = (queries * own_keys).sum(dim=1) / temperature
        queued = queries @ queue.flatten(0, 1).t() / temperature
        known = queued.masked_fill(~filled.flatten(), -torch.inf)
        normaliser = torch.logsumexp(torch.cat([own.unsqueeze(1), known], dim=1), dim=1)
        group = queued.view(len(queries), *filled.shape)[torch.arange(len(labels), device=labels.device), labels]
        count = 1 + filled[labels].sum(dim=1)
        positive = (own + group.masked_fill(~filled[labels], 0).sum(dim=1)) / count
        return normaliser - positive - count.log()


class ClassQueues(nn.Module):
    """The last `places` keys of each class, first in, first out, as buffers."""

    keys: Tensor  # [C, D, F] float32 or wider
    taken: Tensor  # [C] int64, how many keys ever came in

    def __init__(self, classes: int, places: int, features: int) -> None:
        super().__init__()
        self.register_buffer("keys", torch.zeros(classes, places, features))
        self.register_buffer("taken", torch.zeros(classes, dtype=torch.int64))

    @property
    def filled(self) -> Tensor:
        """[C, D] bool, which places hold a key."""
        return torch.arange(self.keys.shape[1], device=self.taken.device) < self.taken.unsqueeze(1)

    @torch.no_grad()
    def enqueue(self, keys: Tensor, labels: Tensor) -> None:
        """Let keys [B, F] with labels [B] in, in their order; of more than D of one class the last D stay."""
        places, number = self.keys.shape[1], torch.arange(len(labels), device=labels.device)
        before = (labels.unsqueeze(1) == labels).tril(-1).sum(dim=1)  # of the same class in this batch
        place = (self.taken[labels] + before) % places
        address = labels * places + place
        # Deterministic on every device: where several keys go to one place each writes what the last of them writes.
        last = torch.where(address.unsqueeze(1) == address, number, -1).amax(dim=1)
        self.keys[labels, place] = keys.to(self.keys.dtype)[last]
        self.taken.index_add_(0, labels, torch.ones_like(labels))


class ContrastBatch(NamedTuple):
    """A batch of B after all draws; `rows` are some of its samples.

    Attributes:
        images, unlabelled: [B, C, H, W] queries; labels, pseudo_labels [B] int64 and keys [B, F] float32 are of both.
        mixed: labelled images with one another; None where nothing is mixed.
        mixed_unlabelled: each labelled image with the unlabelled one of its row, whose label is the pseudo-label.
    """

    images: Tensor
    labels: Tensor
    keys: Tensor
    unlabelled: Tensor
    pseudo_labels: Tensor
    unlabelled_keys: Tensor
    mixed: DrawnBatch | None = None
    mixed_unlabelled: DrawnBatch | None = None

    @property
    def size(self) -> int:
        return len(self.labels)

    def rows(self, index: slice) -> "ContrastBatch":
        return rows_of(self, index)


@dataclass(frozen=True)
class SelfTuningOptions(Checked):
    """Options of Self-Tuning: `places` are the keys that are kept of each class, `momentum` is of the slow copy.

    `features` are those of the projection, a linear layer on the features that the classifier sees.
    """

    places: Count = 32
    features: Count = 1024
    momentum: Share = 0.999


class SelfTuning(Learner):
    """Cross entropy of labelled images and pseudo-group contrast of labelled and unlabelled ones (Wang et al. 2021).

    Keys are of a slow copy of network and projector; labelled and unlabelled images share the queues. A mixer adds the
    mixed `loss` of labelled images with one another and, with a weight that rises from 0 to 1 by half a cosine over
    the training, of labelled with unlabelled ones: of the two orders the one that shows more of the labelled image.
    Mixed images have a head of their own, which begins as a copy.

    Args:
        network: a classifier of timm, with forward_features, forward_head and head_hidden_size; trained, not copied.
        mixer, pair_mixer: None is Self-Tuning itself; the latter is the same with flip pairing, for the pairs of both.
        loss: of mixed images; its label rule may not ask for attention.
        options: those of `SelfTuningOptions`, by name.
    """

    BATCH = ContrastBatch
    SLOW = ("slow_network", "slow_projector")
    progress: Tensor

    def __init__(
        self,
        network: nn.Module,
        mixer: Mixer | None = None,
        pair_mixer: Mixer | None = None,
        loss: MixLoss | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self.options = SelfTuningOptions(**options)
        check_part("network", network, ("forward_features", "forward_head", "get_classifier"), "a classifier of timm")
        if (mixer is None) != (pair_mixer is None):
            raise ValueError("mixer and pair_mixer are one method in two pairings: give both or neither")
        for each in () if mixer is None else (mixer, pair_mixer):
            check_part("mixer", each, MIXER, "a mixer as CutMix()")
        self.loss = checked_loss(loss, "Self-Tuning records no attention")
        self.mixer, self.pair_mixer = mixer, pair_mixer
        self.network = network
        heads = second_head(network)
        if mixer is not None:
            self.heads, self.mixed_head = heads
        inner: Any = network
        first, features = next(network.parameters()), self.options.features
        self.projector = nn.Linear(inner.head_hidden_size, features).to(first.device, first.dtype)
        self.slow_network = copy.deepcopy(network).requires_grad_(False)
        self.slow_projector = copy.deepcopy(self.projector).requires_grad_(False)
        wide = torch.promote_types(first.dtype, torch.float32)
        self.queues = ClassQueues(inner.num_classes, self.options.places, features).to(first.device, wide)
        self.register_buffer("progress", torch.zeros((), dtype=torch.float32, device=first.device))

    @torch.no_grad()
    def prepare(
        self, views: Views, labels: Tensor, generator: Generator | None = None, rule_generator: Generator | None = None
    ) -> ContrastBatch:
        """Keys, pseudo-labels and all draws for `views`, (queries, keys) of B images of either kind, with labels [B].

        Pseudo-labels are of the queries and with the statistics of their batch, as published. The label rule draws from
        its own generator or the mixer's.
        """
        (query, key), (unlabelled_query, unlabelled_key) = _pairs(views)
        labels = check_batch(query, labels)
        classes = len(self.queues.taken)
        if labels.device.type == "cpu" and bool(((labels < 0) | (labels >= classes)).any()):
            raise ValueError(f"labels must be in 0 .. {classes - 1}, not {shown(labels)}: others are unlabelled views")
        pseudo = _pooled_and_logits(self.network, unlabelled_query)[1].argmax(dim=1)
        pooled, unlabelled_pooled = (_pooled_and_logits(self.slow_network, x)[0] for x in (key, unlabelled_key))
        keys, unlabelled_keys = (_unit(self.slow_projector(x)) for x in (pooled, unlabelled_pooled))
        queries = query, labels, keys, unlabelled_query, pseudo, unlabelled_keys
        if self.mixer is None or self.pair_mixer is None:
            return ContrastBatch(*queries)
        if generator is None:
            raise ValueError("a mixer draws: give the generator that it draws from")
        pairs = self._with_unlabelled((query, unlabelled_query), (labels, pseudo), self.pair_mixer, generator)
        mixed = self.mixer(query.clone(), labels, generator, self.network)  # it may work in place
        draws = rule_generator or generator
        return ContrastBatch(*queries, *(DrawnBatch(batch, self.loss.draw(batch, draws)) for batch in (mixed, pairs)))

    def _with_unlabelled(self, images: Pair, labels: Pair, mixer: Mixer, generator: Generator) -> MixedBatch:
        """Row i of B is labelled image i with unlabelled image i, in the order that shows more of the former."""
        both, their_labels = (torch.cat([first, second.flip(0)]) for first, second in (images, labels))
        batch = mixer(both, their_labels, generator, self.network)  # the flip of the flipped half pairs i with i
        size = len(labels[0])
        first = torch.arange(size, device=both.device)
        second = 2 * size - 1 - first
        labelled_first = batch.own_weight[first] >= 1 - batch.own_weight[second]
        return batch.rows(torch.where(labelled_first, first, second))

    def losses(self, batch: ContrastBatch) -> Losses:
        """The losses of a prepared batch or of its rows; all that has a gradient is in here."""
        pooled, logits = _pooled_and_logits(self.network, batch.images)
        losses = {"cross_entropy": F.cross_entropy(at_least_float32(logits), batch.labels, reduction="none")}
        other, _ = _pooled_and_logits(self.network, batch.unlabelled)
        for name, features, keys, labels in (
            ("contrast", pooled, batch.keys, batch.labels),
            ("contrast_unlabelled", other, batch.unlabelled_keys, batch.pseudo_labels),
        ):
            queries = _unit(self.projector(features))
            losses[name] = group_contrast(queries, keys, labels, self.queues.keys, self.queues.filled)
        weight = None
        if batch.mixed is not None and batch.mixed_unlabelled is not None:
            losses["mixed"], weight = self._mixed(batch.mixed)
            ramp = (1 - torch.cos(math.pi * self.progress)) / 2
            losses["mixed_unlabelled"] = ramp * self._mixed(batch.mixed_unlabelled)[0]
        loss = torch.stack(list(losses.values())).sum(dim=0).mean()
        return Losses(loss, {name: value.detach() for name, value in losses.items()}, weight)

    def _mixed(self, mixture: DrawnBatch) -> Pair:
        """Mixed loss [B] and the label weights [B] in it, without gradient."""
        logits = logits_by(self.network, self.heads, self.mixed_head, mixture.batch.images)
        weight = self.loss.weights(logits, mixture.batch, mixture.draws)
        return self.loss.per_sample(logits, mixture.batch, weight)[0], weight.detach()

    @torch.no_grad()
    def after_update(self, batch: ContrastBatch, progress: float) -> None:
        """Let the slow copy follow, and the whole batch's keys into the queues, labelled ones first.

        Under torch.distributed those of all processes, so that all have the same queues. `progress` is from 0 to 1.
        """
        checked("progress", progress, Share)
        self.progress.fill_(progress)
        follow(self.slow_network, self.network, self.options.momentum)
        follow(self.slow_projector, self.projector, self.options.momentum)
        keys = torch.cat([batch.keys, batch.unlabelled_keys])
        labels = torch.cat([batch.labels, batch.pseudo_labels])
        self.queues.enqueue(_of_all(keys), _of_all(labels))


def _pairs(views: Views) -> tuple[Pair, Pair]:
    """Queries and keys of labelled and of unlabelled images; ValueError for others than two views of one shape."""
    if not isinstance(views, Views):
        raise ValueError(f"views must be lumix.semi.Views(labelled, unlabelled), not a {type(views).__name__}")
    (labelled, unlabelled), found = (views.labelled, views.unlabelled), (*views.labelled, *views.unlabelled)
    if (len(labelled), len(unlabelled)) != (2, 2):
        counts = f"{len(labelled)} and {len(unlabelled)}"
        raise ValueError(f"Self-Tuning needs two views of either kind of images, queries and keys, not {counts}")
    check_shape(found[0].shape, "Self-Tuning", (4,))
    shapes = [list(view.shape) for view in found]
    if any(shape != shapes[0] for shape in shapes):
        raise ValueError(f"views must have one shape, not {shapes}: take as many unlabelled images as labelled ones")
    return (found[0], found[1]), (found[2], found[3])


def _of_all(values: Tensor) -> Tensor:
    """The rows of all processes, by rank; each has as many."""
    if not (dist.is_available() and dist.is_initialized()):
        return values
    found = [torch.empty_like(values) for _ in range(dist.get_world_size())]
    dist.all_gather(found, values.contiguous())
    return torch.cat(found)


def _pooled_and_logits(network: Any, images: Tensor) -> Pair:
    """What a classifier of timm gives to its last layer [B, P], and its logits [B, C]."""
    features = network.forward_features(images)
    return network.forward_head(features, pre_logits=True), network.forward_head(features)


def _unit(features: Tensor) -> Tensor:
    """Rows [B, F] of length 1, in float32 or wider."""
    return F.normalize(at_least_float32(features), dim=1)
