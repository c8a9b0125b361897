"""AutoMix and SAMix (Liu et al. 2022, Li et al. 2021): a module around a network that learns to mix for it.

In a plain loop:

    learner = lumix.AutoMix(network)  # any classifier of timm that has forward_intermediates
    optimizer = torch.optim.SGD(learner.parameters(), lr=0.1)
    for step, (images, labels) in enumerate(loader):
        loss = learner(learner.prepare(images, labels, generator)).loss
        loss.backward(); optimizer.step(); optimizer.zero_grad()
        learner.after_update(step / total)

What is left of it, `learner.network`, is the network that was given.

Shape legend: B images or pairs, D channels and h, w sides of features, N = h w places.
"""

import copy
import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lumix.batch import Kind, MixedBatch, rows_of
from lumix.functional import follow
from lumix.inputs import Checked, Positive, Share, check_batch, check_part, check_shape, checked, logits_of
from lumix.losses import MixLoss
from lumix.mixers.paste import blend, mixed_batch
from lumix.random import draw_beta, draw_partners, draw_uniform

# ------------------------------------------------------------------------------------------------- equations


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
    miss = (own_mask.mean() - own_weight.mean()).abs() - margin
    loss = miss.clamp(min=0)
    return loss - variance * own_mask.var(correction=0) if variance else loss


def residual_embedding(own_weight: Tensor, curvature: float = 0.25) -> Tensor:
    """SAMix, residual embedding: g(lambda) = (4/3 lambda^3 - 2 lambda^2 + (k + 1) lambda) / (k + 1/3) on small data.

    Monotonous and flat around 1/2, with g(1 - lambda) = 1 - g(lambda); k is the `curvature`.
    """
    scale = curvature + 1
    cubic = 4 / 3 * own_weight**3 - 2 * own_weight**2 + scale * own_weight
    return cubic / (scale - 2 / 3)


def momentum_at(progress: float, begin: float, end: float, warm: float = 0.1) -> float:
    """AutoMix, momentum: `begin` for the first `warm` of the training, then to `end` by a cosine."""
    return cosine(begin, end, (progress - warm) / (1 - warm))


def cosine(begin: float, end: float, progress: float) -> float:
    """From `begin` to `end` by half a cosine while `progress` goes from 0 to 1; constant outside."""
    progress = min(max(progress, 0.0), 1.0)
    return end + (begin - end) * (1 + math.cos(math.pi * progress)) / 2


# ------------------------------------------------------------------------------------------------- the mask generator


class MixBlock(nn.Module):
    """Base of both: features [B, D, h, w] of own and partner image and the own weight [B] to the own mask.

    With `large` it has the published form for large data sets.
    """

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
    """One convolution for query and key; on large data the label weights are one more channel."""

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

    def __init__(self, channels: int, large: bool = False) -> None:
        super().__init__()
        self.large = large
        width = max(channels // 2, 1)
        self.query, self.key = (nn.Conv2d(2 * channels, width, 1) for _ in range(2))
        self.value = nn.Sequential(
            nn.Conv2d(channels, width, 1), nn.BatchNorm2d(width), nn.ELU(), nn.Conv2d(width, 1, 1, bias=False)
        )
        self._init()

    def logits(self, own: Tensor, partner: Tensor, own_weight: Tensor) -> Tensor:
        scale = own_weight if self.large else residual_embedding(own_weight)
        own, partner = own * (1 + scale), partner * (2 - scale)
        both = torch.cat([own, partner], dim=1)
        return cross_attention(self.query(both), self.key(both), self.value(partner))


# ------------------------------------------------------------------------------------------------- the learner


class LearnersBatch(NamedTuple):
    """A batch of B after all draws; `rows` are some of its samples.

    Attributes:
        mixed: what the network learns from: images mixed by masks that carry no gradient.
        clean: the images and labels as they came, with the partner and own weight of a second draw, that of the
            mask generator.
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
class Losses:
    """One forward pass: the scalar `loss`, its `parts` by name ([B], weighed, no gradient), the labels' weights [B]."""

    loss: Tensor
    parts: dict[str, Tensor]
    own_weight: Tensor | None


@dataclass(frozen=True)
class AutoMixOptions(Checked):
    """Options of AutoMix and SAMix.

    Attributes:
        alpha: of the Beta(alpha, alpha) that label weights are drawn from, one for a batch.
        stage: which of the network's features the masks are made of, from 0 as forward_intermediates counts. None is
            the last but one of a pyramid and the middle block of a plain transformer, as published.
        large: the form of the block for large data sets.
        momentum: of the slow copy at the end; it begins with `MOMENTUM` and leaves it by a cosine after 10 % of the
            training.
        mask_decays: whether the weight of the mask loss, `MASK`, falls to 0 by a cosine over the training.
        share: probability that the generator learns from a batch, below 1 falling to 0 by a cosine; 1 is always.
    """

    alpha: Positive = 2.0
    stage: int | None = None
    large: bool = False
    momentum: Share = 0.999999
    mask_decays: bool = False
    share: Share = 1.0


class AutoMix(nn.Module):
    """Trains a network on images mixed by a generator that learns with it (Liu et al. 2022, AutoMix).

    A step draws twice: one mixture teaches the network, with the mask as a constant, the other the mask generator,
    through the slow copy of the network, whose weights are constants. The losses, each of weight 1 but for the mask's:
    cross entropy of clean images (by a head of their own), the mixed `loss` of the network, mixed cross entropy of the
    slow copy, and 0.1 times the mask loss. One forward pass of the slow copy serves both draws.

    Args:
        network: a classifier of timm, with forward_intermediates and feature_info; it is trained, not copied.
        loss: of the network's mixed images; None is mixed cross entropy. A label rule may not ask for attention.
        options: those of `AutoMixOptions`, by name.
    """

    BLOCK: ClassVar[type[MixBlock]] = AutoMixBlock
    VARIANCE: ClassVar[float] = 0.0
    MOMENTUM: ClassVar[float] = 0.999
    MASK: ClassVar[float] = 0.1
    PLAIN: ClassVar[float] = 0.08  # below it, of either image, the mask is constant: plain Mixup
    progress: Tensor

    def __init__(self, network: nn.Module, loss: MixLoss | None = None, **options: Any) -> None:
        super().__init__()
        self.options = AutoMixOptions(**options)
        wanted = ("forward_intermediates", "forward_features", "forward_head", "get_classifier")
        check_part("network", network, wanted, "a classifier of timm with forward_intermediates, as resnet18")
        info: Any = network.feature_info
        self.stage = default_stage(info) if self.options.stage is None else self.options.stage
        if not 0 <= self.stage < len(info):
            raise ValueError(
                f"stage must name one of the {len(info)} feature maps of the network, from 0, not {self.stage!r}"
            )
        self.loss = loss if loss is not None else MixLoss()
        if self.loss.rule.needs_attention:
            raise ValueError(f"masks that are learned have no attention for {self.loss.rule}: use another label rule")
        self.network = network
        self.clean_head = _second_head(network.get_classifier())  # type: ignore[operator]
        self.slow = copy.deepcopy(network).requires_grad_(False)
        self.block = self.BLOCK(int(info[self.stage]["num_chs"]), self.options.large)
        self._copy_loss = MixLoss()
        self.register_buffer("progress", torch.zeros(()))

    @torch.no_grad()
    def prepare(
        self,
        images: Tensor,
        labels: Tensor,
        generator: torch.Generator,
        rule_generator: torch.Generator | None = None,
    ) -> LearnersBatch:
        """All draws for images [B, C, H, W] and labels [B], the label rule's by its own generator or the same."""
        labels = check_batch(images, labels)
        check_shape(images.shape, "a learner", (4,))
        features = self._features(images)
        weight, partner = self._draw(len(images), generator, images.device)
        mixed = self.mix(images, labels, partner, weight, features)
        weight, partner = self._draw(len(images), generator, images.device)
        share = self.options.share
        return LearnersBatch(
            mixed,
            mixed_batch(images, labels, partner, weight, Kind.MASK),
            images[partner],
            features,
            features[partner],
            self.loss.draw(mixed, rule_generator or generator),
            share == 1 or bool(draw_uniform(1, generator) < cosine(share, 0, float(self.progress))),
        )

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
        return weight.to(device), partner.to(device)

    def _features(self, images: Tensor) -> Tensor:
        """[B, D, h, w] of the slow copy at `stage`; layers behind it are not computed."""
        (features,) = self.slow.forward_intermediates(  # type: ignore[operator]
            images, indices=[self.stage], norm=False, stop_early=True, output_fmt="NCHW", intermediates_only=True
        )
        return torch.as_tensor(features)

    def forward(self, batch: LearnersBatch) -> Losses:
        """AutoMix, loss: CE(clean) + MCE(network) + MCE(slow copy) + 0.1 mask loss, of a batch or its rows."""
        logits = logits_of(self.network(batch.mixed.images))
        weight = self.loss.weights(logits, batch.mixed, batch.draws)
        mixed, parts = self.loss.per_sample(logits, batch.mixed, weight)
        clean = F.cross_entropy(self._clean_logits(batch.clean.images).float(), batch.clean.labels, reduction="none")
        learned, mask = self._block_losses(batch)
        loss = (clean + mixed + learned).mean() + mask
        parts |= {"clean": clean.detach(), "copy": learned.detach(), "mask": mask.detach().expand(batch.size)}
        return Losses(loss, parts, weight.detach())

    def _clean_logits(self, images: Tensor) -> Tensor:
        """[B, classes] by the head of clean images."""
        features = self.network.forward_features(images)  # type: ignore[operator]
        return torch.as_tensor(self.clean_head(self.network.forward_head(features, pre_logits=True)))  # type: ignore[operator]

    def _block_losses(self, batch: LearnersBatch) -> tuple[Tensor, Tensor]:
        """What the mask generator learns from: the slow copy's mixed cross entropy [B], and the weighed mask loss."""
        clean = batch.clean
        if not batch.trains:  # its parameters stay in the graph: DistributedDataParallel waits for each
            none = 0 * torch.stack([parameter.sum() for parameter in self.block.parameters()]).sum()
            return none.expand(batch.size), none.detach()
        mask = self.block(batch.features, batch.partner_features, clean.own_weight, clean.images.shape[-2:])
        logits = logits_of(self.slow(blend(clean.images, batch.partner_images, mask)))
        learned, _ = self._copy_loss.per_sample(logits, clean, clean.own_weight)
        factor = cosine(self.MASK, 0, float(self.progress)) if self.options.mask_decays else self.MASK
        return learned, factor * mask_loss(mask, clean.own_weight, self.VARIANCE)

    def after_update(self, progress: float) -> None:
        """Let the slow copy follow the network; `progress` is the share of the training that is done, 0 to 1."""
        checked("progress", progress, Share)
        self.progress.fill_(progress)
        follow(self.slow, self.network, momentum_at(progress, self.MOMENTUM, self.options.momentum))


class SAMix(AutoMix):
    """The successor of AutoMix (Li et al. 2021), with its own block, and a mask loss that pays for contrast."""

    BLOCK = SAMixBlock
    VARIANCE = 2.0


def default_stage(info: Any) -> int:
    """The published choice: stage 3 of 4, block 6 of 12."""
    plain = len({stage["reduction"] for stage in info}) == 1
    return max(len(info) // 2 - 1, 0) if plain else len(info) - 2


def _second_head(classifier: nn.Module) -> nn.Linear:
    """A linear head that begins as the network's own, which in some networks is a convolution of 1x1."""
    weight: Any = classifier.weight
    head = nn.utils.skip_init(nn.Linear, weight.shape[1], weight.shape[0], device=weight.device, dtype=weight.dtype)
    state = {name: value.flatten(1) if value.ndim > 1 else value for name, value in classifier.state_dict().items()}
    head.load_state_dict(state)
    return head
