"""AutoMix and SAMix (Liu et al. 2022, Li et al. 2021): a module around a network that learns to mix for it.

In a plain loop:

    learner = lumix.AutoMix(network)  # any classifier of timm that has forward_intermediates
    optimizer = torch.optim.SGD(learner.parameters(), lr=0.1)
    for step, (images, labels) in enumerate(loader):
        loss = learner(learner.prepare(images, labels, generator)).loss
        loss.backward(); optimizer.step(); optimizer.zero_grad()
        learner.after_update((step + 1) / total)

What is left of it, `learner.network`, is the network that was given; in eval mode `learner(images)` gives its logits.

Shape legend: B images or pairs, D channels and h, w sides of features, N = h w places.
"""

import copy
import math
import re
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lumix.batch import Kind, MixedBatch, rows_of
from lumix.functional import at_least_float32, follow
from lumix.inputs import MIX_LOSS, Checked, Positive, Share, check_batch, check_part, check_shape, checked, logits_of
from lumix.losses import MixLoss, mean_factor
from lumix.mixers.paste import blend, mixed_batch
from lumix.random import draw_beta, draw_partners, draw_uniform, moved


def cross_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """AutoMix, attention: P v [B, 1, h, w] with P = softmax(q . k / sqrt(D)), in float32 also under autocast.

    Each place of the query [B, D, h, w] looks at all places of the key [B, D, h, w] with their values [B, 1, h, w].
    """
    with torch.autocast(query.device.type, enabled=False):
        # One head of D channels: [B, 1, N, D], values [B, 1, N, 1].
        q, k, v = (x.flatten(2).transpose(1, 2).unsqueeze(1).float() for x in (query, key, value))
        attended = F.scaled_dot_product_attention(q, k, v)
    return attended.squeeze(1).transpose(1, 2).reshape(value.shape)


def mask_loss(own_mask: Tensor, own_weight: Tensor, variance: float = 0.0, margin: float = 0.1) -> Tensor:
    """AutoMix, mask loss: max(|mean(s) - lambda| - margin, 0). SAMix, mask loss: that less 2 Var(s). A scalar.

    s is `own_mask` [B, 1, H, W], mean and variance are over all pixels of the batch; lambda is `own_weight` [B], for
    which the mask is to make room. SAMix's `variance`, 2, pushes masks away from the constant one.
    """
    loss = ((own_mask.mean() - own_weight.mean()).abs() - margin).clamp(min=0)
    return loss - variance * own_mask.var(correction=0) if variance else loss


def residual_embedding(own_weight: Tensor, curvature: float = 0.25) -> Tensor:
    """SAMix, residual embedding: g(lambda) = (4/3 lambda^3 - 2 lambda^2 + (k + 1) lambda) / (k + 1/3) on small data."""
    scale = curvature + 1
    cubic = 4 / 3 * own_weight**3 - 2 * own_weight**2 + scale * own_weight
    return cubic / (scale - 2 / 3)


def momentum_at(progress: float, begin: float, end: float, warm: float = 0.1) -> float:
    """AutoMix, momentum: `begin` for the first `warm` of the training, then the cosine to `end`.

    As published the cosine counts from the start of the training, so that the momentum jumps where it sets in.
    """
    return begin if progress < warm else cosine(begin, end, progress)


def cosine(begin: float, end: float, progress: float) -> float:
    """From `begin` to `end` by half a cosine while `progress` goes from 0 to 1; constant outside."""
    progress = min(max(progress, 0.0), 1.0)
    return end + (begin - end) * (1 + math.cos(math.pi * progress)) / 2


class MixBlock(nn.Module):
    """Base of both: features [B, D, h, w] of own and partner image and the own weight [B] to the own mask."""

    upsampling: ClassVar[dict[str, Any]]

    def _init(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)  # masks begin near 1/2 everywhere
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def logits(self, own: Tensor, partner: Tensor, own_weight: Tensor) -> Tensor:
        """Logits [B, 1, h, w] of the partner's share at each place, for own weights [B, 1, 1, 1]."""
        raise NotImplementedError

    def forward(self, own: Tensor, partner: Tensor, own_weight: Tensor, size: tuple[int, int]) -> Tensor:
        """AutoMix, mask: s = 1 - sigmoid(upsampled logits), share of the own image [B, 1, *size] in (0, 1), float32."""
        logits = self.logits(own, partner, own_weight.to(own.dtype).view(-1, 1, 1, 1))
        return torch.sigmoid(-F.interpolate(logits.float(), size, **self.upsampling))


class AutoMixBlock(MixBlock):
    """One convolution for query and key; with `large` the label weights are one more channel."""

    upsampling: ClassVar[dict[str, Any]] = {"mode": "nearest"}

    def __init__(self, channels: int, large: bool = False) -> None:
        super().__init__()
        self.large = large
        self.match = nn.Conv2d(channels + large, max(channels // 2, 1), 1)
        self.value = nn.Conv2d(channels + large, 1, 1)
        self._init()

    def logits(self, own: Tensor, partner: Tensor, own_weight: Tensor) -> Tensor:
        if self.large:
            weights = own_weight.expand_as(own[:, :1])
            own, partner = torch.cat([own, weights], dim=1), torch.cat([partner, 1 - weights], dim=1)
        return cross_attention(self.match(own), self.match(partner), self.value(partner))


class SAMixBlock(MixBlock):
    """Query and key see both images, which are scaled by the label weights first; deeper values; smooth masks."""

    upsampling: ClassVar[dict[str, Any]] = {"mode": "bilinear", "align_corners": False}

    def __init__(self, channels: int, large: bool = False, curvature: float = 0.25, dropout: float = 0.0) -> None:
        super().__init__()
        self.large, self.curvature = large, curvature
        width = max(channels // 2, 1)
        self.query, self.key = (nn.Conv2d(2 * channels, width, 1) for _ in range(2))
        first, last = nn.Conv2d(channels, width, 1), nn.Conv2d(width, 1, 1, bias=False)
        self.value = nn.Sequential(first, nn.BatchNorm2d(width), nn.ELU(), last, nn.Dropout(dropout))
        self._init()

    def logits(self, own: Tensor, partner: Tensor, own_weight: Tensor) -> Tensor:
        scale = own_weight if self.large else residual_embedding(own_weight, self.curvature)
        own, partner = own * (1 + scale), partner * (2 - scale)
        both = torch.cat([own, partner], dim=1)
        return cross_attention(self.query(both), self.key(both), self.value(partner))


@dataclass(frozen=True)
class Losses:
    """One forward pass: the scalar `loss`, its `parts` by name ([B], weighed, no gradient), the labels' weights [B]."""

    loss: Tensor
    parts: dict[str, Tensor]
    own_weight: Tensor | None

    def backward(self) -> None:
        self.loss.backward()


class Learner(nn.Module):
    """A module around a network of timm; optimizers ask it what they ask the network. Its slow copies are constants."""

    BATCH: ClassVar[type]
    SLOW: ClassVar[tuple[str, ...]] = ("slow",)
    network: Any

    def forward(self, batch: Any, *others: Any) -> Any:
        """`losses` of what `prepare` returned; in eval mode the network's logits [B, C] of images [B, C, H, W]."""
        if isinstance(batch, self.BATCH) and not others:
            self._hold()
            return self.losses(batch)
        if isinstance(batch, Tensor) and not others and not self.training:
            return logits_of(self.network(batch))
        name, given = type(self).__name__, ", ".join(type(part).__name__ for part in (batch, *others))
        raise ValueError(
            f"{name} learns from what its prepare() returns, not from ({given}): call learner(learner.prepare(...)); "
            f"after learner.eval() it takes images alone, and learner.network is the network"
        )

    def losses(self, batch: Any) -> Losses:
        """All losses of a prepared batch, or of its rows."""
        raise NotImplementedError

    def requires_grad_(self, requires_grad: bool = True) -> "Learner":
        super().requires_grad_(requires_grad)
        self._hold()
        return self

    def _hold(self) -> None:
        for name in self.SLOW:
            getattr(self, name).requires_grad_(False)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.network.set_grad_checkpointing(enable)

    def no_weight_decay(self) -> set[str]:
        """The names that the network keeps from weight decay, as they are here."""
        return {f"network.{name}" for name in getattr(self.network, "no_weight_decay", set)()}

    def group_matcher(self, coarse: bool = False) -> Any:
        """The network's patterns of names by layer, or its function of names, for the names here."""
        matcher = self.network.group_matcher(coarse=coarse)
        if callable(matcher):
            return lambda name: matcher(name.removeprefix("network.")) if name.startswith("network.") else math.inf

        def here(pattern: str) -> str:
            return r"network\.(?:" + re.sub(r"(?<!\[)\^", "", pattern) + ")"  # which anchors it

        found = {}
        for layer, patterns in matcher.items():
            several = isinstance(patterns, tuple | list)
            found[layer] = [(here(p), suffix) for p, suffix in patterns] if several else patterns and here(patterns)
        return found


def second_head(network: Any) -> tuple[list[str], nn.ModuleList]:
    """The names of the network's classifier, or classifiers, and copies of them for `logits_by`."""
    found = network.get_classifier()
    heads = [*found] if isinstance(found, tuple | list) else [found]
    names = [name for head in heads for name, module in network.named_modules() if module is head]
    if not any(True for head in heads for _ in head.parameters()):
        raise ValueError(f"{type(network).__name__} has no classifier: give it num_classes of 2 or more")
    return names, nn.ModuleList(map(copy.deepcopy, heads))


def logits_by(network: nn.Module, names: list[str], heads: nn.ModuleList, images: Tensor) -> Tensor:
    """Logits [B, C] of the network with other heads in place of its own, whatever their shape."""
    others = {
        f"{name}.{key}": value
        for name, head in zip(names, heads, strict=True)
        for key, value in (*head.named_parameters(), *head.named_buffers())
    }
    return logits_of(torch.func.functional_call(network, others, (images,)))


class LearnersBatch(NamedTuple):
    """A batch of B after all draws; `rows` are some of its samples.

    Attributes:
        mixed: what the network learns from: images mixed by masks that carry no gradient.
        clean: the images and labels as they came, with partner and own weight of the mask generator's, a second, draw.
        partner_images: [B, C, H, W] of the second draw.
        features, partner_features: [B, D, h, w] of the slow copy, of clean images and their partners of that draw.
        draws: what the label rule drew for `mixed`, [B] or None.
        trains: whether the mask generator learns from this batch.
    """

    mixed: MixedBatch
    clean: MixedBatch
    partner_images: Tensor
    features: Tensor
    partner_features: Tensor
    draws: Tensor | None
    trains: bool

    @property
    def size(self) -> int:
        return self.clean.size

    def rows(self, index: slice) -> "LearnersBatch":
        return rows_of(self, index)


@dataclass(frozen=True)
class AutoMixOptions(Checked):
    """Options of AutoMix.

    Attributes:
        alpha: of the Beta(alpha, alpha) that label weights are drawn from, one for a batch.
        stage: which of the network's features the masks are made of, from 0 as forward_intermediates counts. None is
            the last but one of a pyramid and the middle block of a plain transformer, as published.
        large: whether the block sees the label weight as a channel; that of SAMix scales by it as it is.
        momentum: of the slow copy at the end; it begins with `MOMENTUM`.
        warm: share of the training over which it keeps that (0.1 for ResNets, 0.25 for transformers and ConvNeXt).
        mask_decays: whether the weight of the mask loss, `MASK`, falls to 0 by a cosine over the training.
        share: probability that the generator learns from a batch's classification; from the mask loss it always does.
    """

    alpha: Positive = 2.0
    stage: int | None = None
    large: bool = False
    momentum: Share = 0.999999
    mask_decays: bool = False
    share: Share = 1.0
    warm: Share = 0.1


@dataclass(frozen=True)
class SAMixOptions(AutoMixOptions):
    """Options of SAMix: those of AutoMix, the `curvature` k of g(lambda), and the dropout of the value map."""

    curvature: Positive = 0.25
    dropout: Share = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.large:
            self.refuse("large", "curvature")


class AutoMix(Learner):
    """Trains a network on images mixed by a generator that learns with it (Liu et al. 2022, AutoMix).

    A step draws twice: one mixture teaches the network, with the mask as a constant, the other the mask generator,
    through the slow copy of the network, whose weights are constants. The losses, each of weight 1 but for the mask's:
    cross entropy of clean images (by a head of their own), the mixed `loss` of the network, mixed cross entropy of the
    slow copy, and 0.1 times the mask loss. One forward pass of the slow copy serves both draws. Images whose label is
    the loss's `ignore_index` add to no loss, and each mean is that of the others.

    Args:
        network: a classifier of timm, with forward_intermediates and feature_info; it is trained, not copied.
        loss: of the network's mixed images; None is mixed cross entropy. A label rule may not ask for attention.
        options: those of `AutoMixOptions`, by name.
    """

    BATCH = LearnersBatch
    OPTIONS: ClassVar[type[AutoMixOptions]] = AutoMixOptions
    VARIANCE: ClassVar[float] = 0.0
    MOMENTUM: ClassVar[float] = 0.999
    MASK: ClassVar[float] = 0.1
    PLAIN: ClassVar[float] = 0.08  # below it, of either image, the mask is constant: plain Mixup
    progress: Tensor

    def __init__(self, network: nn.Module, loss: MixLoss | None = None, **options: Any) -> None:
        super().__init__()
        self.options: Any = self.OPTIONS(**options)
        wanted = ("forward_intermediates", "get_classifier")
        check_part("network", network, wanted, "a classifier of timm with forward_intermediates, as resnet18")
        info: Any = getattr(network, "feature_info", None)
        if not info:
            raise ValueError(f"{type(network).__name__} has no feature_info, which says its stages: use one of timm")
        plain = len({stage["reduction"] for stage in info}) == 1
        published = max(len(info) // 2 - 1, 0) if plain else len(info) - 2  # block 6 of 12, stage 3 of 4
        self.stage = published if self.options.stage is None else self.options.stage
        if not 0 <= self.stage < len(info):
            raise ValueError(f"stage is one of the {len(info)} feature maps of the network, from 0, not {self.stage}")
        self.loss = checked_loss(loss, "masks that are learned have no attention")
        self.network = network
        self.heads, self.clean_head = second_head(network)
        self.slow = copy.deepcopy(network).requires_grad_(False)
        first = next(network.parameters())
        self.block = self.new_block(int(info[self.stage]["num_chs"])).to(first.device, first.dtype)
        self._copy_loss = MixLoss(ignore_index=self.loss.ignore_index)
        self.register_buffer("progress", torch.zeros((), dtype=torch.float32, device=first.device))

    def new_block(self, channels: int) -> MixBlock:
        """The untrained mask generator, for features of so many channels."""
        return AutoMixBlock(channels, self.options.large)

    @torch.no_grad()
    def prepare(
        self, images: Tensor, labels: Tensor, generator: torch.Generator, rule_generator: torch.Generator | None = None
    ) -> LearnersBatch:
        """All draws for images [B, C, H, W] and labels [B], the label rule's by its own generator or the same."""
        labels = check_batch(images, labels)
        check_shape(images.shape, "a learner", (4,))
        if not images.is_floating_point():
            raise ValueError(f"a learner needs the normalised images that the network takes, not {images.dtype}")
        features = self._features(images)
        weight, partner = self._draw(len(images), generator, images.device)
        mixed = self.mix(images, labels, partner, weight, features)
        weight, partner = self._draw(len(images), generator, images.device)
        clean = mixed_batch(images, labels, partner, weight, Kind.MASK)
        draws, share = self.loss.draw(mixed, rule_generator or generator), self.options.share
        trains = share == 1 or bool(draw_uniform(1, generator) < share)
        return LearnersBatch(mixed, clean, images[partner], features, features[partner], draws, trains)

    @torch.no_grad()
    def mix(
        self, images: Tensor, labels: Tensor, partner: Tensor, own_weight: Tensor, features: Tensor | None = None
    ) -> MixedBatch:
        """Images [B, C, H, W] mixed with partners [B] for label weights [B]: by masks, or plainly at the edges."""
        features = self._features(images) if features is None else features
        mask = self.block(features, features[partner], own_weight, images.shape[-2:])
        plain = torch.minimum(own_weight, 1 - own_weight) <= self.PLAIN
        mask = torch.where(plain.view(-1, 1, 1, 1), own_weight.view(-1, 1, 1, 1), mask)
        kind = torch.where(plain, int(Kind.BLEND), int(Kind.MASK)).to(torch.uint8)
        return mixed_batch(blend(images, images[partner], mask), labels, partner, own_weight, kind, mask=mask)

    def _draw(self, size: int, generator: torch.Generator, device: torch.device) -> tuple[Tensor, Tensor]:
        """One own weight for the batch, [B] float32, and the partners [B]."""
        partner, group, count = draw_partners(size, "batch", "permutation", generator)
        weight = draw_beta(self.options.alpha, count, generator).float()[group]
        return moved(weight, device), moved(partner, device)

    def _features(self, images: Tensor) -> Tensor:
        """[B, D, h, w] of the slow copy at `stage`; layers behind it are not computed."""
        (features,) = self.slow.forward_intermediates(  # type: ignore[operator]
            images, indices=[self.stage], norm=False, stop_early=True, output_fmt="NCHW", intermediates_only=True
        )
        return torch.as_tensor(features)

    def losses(self, batch: LearnersBatch) -> Losses:
        """AutoMix, loss: CE(clean) + MCE(network) + MCE(slow copy) + 0.1 mask loss, of a batch or its rows."""
        clean = batch.clean
        logits = logits_of(self.network(batch.mixed.images))
        weight = self.loss.weights(logits, batch.mixed, batch.draws)
        mixed, parts = self.loss.per_sample(logits, batch.mixed, weight)
        factor = mean_factor(self.loss.counts(batch.mixed))
        parts = {name: factor * part for name, part in parts.items()}
        ignored = self.loss.ignore_index
        logits = logits_by(self.network, self.heads, self.clean_head, clean.images)
        own = F.cross_entropy(at_least_float32(logits), clean.labels, reduction="none", ignore_index=ignored)
        own = mean_factor(clean.labels != ignored) * own
        learned, mask = self._block_losses(batch)
        loss = (own + factor * mixed + learned).mean() + mask
        parts |= {"clean": own.detach(), "copy": learned.detach(), "mask": mask.detach().expand(batch.size)}
        return Losses(loss, parts, weight.detach())

    def _block_losses(self, batch: LearnersBatch) -> tuple[Tensor, Tensor]:
        """What the mask generator learns from: the slow copy's mixed cross entropy [B], and the weighed mask loss."""
        clean = batch.clean
        mask = self.block(batch.features, batch.partner_features, clean.own_weight, clean.images.shape[-2:])
        weight = cosine(self.MASK, 0, float(self.progress)) if self.options.mask_decays else self.MASK
        shape = weight * mask_loss(mask, clean.own_weight, self.VARIANCE)
        if not batch.trains:
            return torch.zeros_like(clean.own_weight), shape
        logits = logits_of(self.slow(blend(clean.images, batch.partner_images, mask)))
        learned, _ = self._copy_loss.per_sample(logits, clean, clean.own_weight)
        return mean_factor(self._copy_loss.counts(clean)) * learned, shape

    def after_update(self, progress: float) -> None:
        """Let the slow copy follow the network; `progress` is the share of the training that is done, 0 to 1."""
        checked("progress", progress, Share)
        self.progress.fill_(progress)
        follow(self.slow, self.network, momentum_at(progress, self.MOMENTUM, self.options.momentum, self.options.warm))


class SAMix(AutoMix):
    """The successor of AutoMix (Li et al. 2021), with its own block, and a mask loss that pays for contrast."""

    OPTIONS = SAMixOptions
    VARIANCE = 2.0

    def new_block(self, channels: int) -> MixBlock:
        return SAMixBlock(channels, self.options.large, self.options.curvature, self.options.dropout)


def checked_loss(loss: Any, lacks: str) -> MixLoss:
    """The loss of mixed images, None as plain mixed cross entropy; ValueError where it needs what the learner lacks."""
    found = MixLoss() if loss is None else loss
    check_part("loss", found, MIX_LOSS, "a MixLoss, as MixLoss(LUMixRule())")
    if found.rule.needs_attention:
        raise ValueError(f"{lacks} for {found.rule}: use another label rule")
    return found
