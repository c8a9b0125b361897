"""AutoMix and SAMix as one module: the network, its slow copy, and the MixBlock that learns to mix for it.

In a plain loop:

    learner = lumix.AutoMix(network)  # any classifier of timm that has forward_intermediates
    optimizer = torch.optim.SGD(learner.parameters(), lr=0.1)
    for step, (images, labels) in enumerate(loader):
        loss = learner(learner.prepare(images, labels, generator)).loss
        loss.backward(); optimizer.step(); optimizer.zero_grad()
        learner.after_update(step / total)

What is left of it, `learner.network`, is the network that was given.
"""

import copy
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lumix.automix.block import AutoMixBlock, MixBlock, SAMixBlock
from lumix.automix.losses import cosine, mask_loss, momentum_at
from lumix.batch import Kind, MixedBatch, rows_of
from lumix.inputs import Positive, Share, check_batch, check_part, check_shape, checked, logits_of
from lumix.losses import MixLoss
from lumix.mixers.paste import blend
from lumix.mixers.paste import mixed_batch as record
from lumix.random import draw_beta, draw_partners, draw_uniform


class LearnersBatch(NamedTuple):
    """A batch of B after all draws, whose parts are `rows`.

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
    """One forward pass: the scalar `loss`, its `parts` by name ([B], no gradient), and the label weight [B] used."""

    loss: Tensor
    parts: dict[str, Tensor]
    own_weight: Tensor


class AutoMix(nn.Module):
    """Trains a network on images mixed by a generator that learns with it (Liu et al. 2022, AutoMix).

    A step draws twice: one mixture teaches the network, with the mask as a constant, the other the mask generator,
    through the slow copy of the network, whose weights are constants. The losses, each of weight 1 but for the mask's:
    cross entropy of clean images (by a head of their own), the mixed `loss` of the network, mixed cross entropy of the
    slow copy, and 0.1 times the mask loss. One forward pass of the slow copy serves both draws.

    Args:
        network: a classifier of timm, with forward_intermediates and feature_info; it is trained, not copied.
        loss: of the network's mixed images; None is mixed cross entropy. A label rule may not ask for attention.
        alpha: of the Beta(alpha, alpha) that label weights are drawn from, one for a batch.
        stage: which of the network's features the masks are made of, from 0 as forward_intermediates counts. None is
            the last but one of a pyramid and the middle block of a plain transformer, as published.
        large: the form for large data sets (see `lumix.automix.block`).
        momentum: of the slow copy at the end; it begins with `MOMENTUM` and leaves it by a cosine after 10 % of the
            training.
        mask_decays: whether the weight of the mask loss, `MASK`, falls to 0 by a cosine over the training.
        share: probability that the generator learns from a batch, below 1 falling to 0 by a cosine; 1 is always.
    """

    BLOCK: ClassVar[type[MixBlock]] = AutoMixBlock
    VARIANCE: ClassVar[float] = 0.0
    MOMENTUM: ClassVar[float] = 0.999
    MASK: ClassVar[float] = 0.1
    PLAIN: ClassVar[float] = 0.08  # below it, of either image, the mask is constant: plain Mixup
    progress: Tensor

    def __init__(
        self,
        network: nn.Module,
        loss: MixLoss | None = None,
        *,
        alpha: float = 2.0,
        stage: int | None = None,
        large: bool = False,
        momentum: float = 0.999999,
        mask_decays: bool = False,
        share: float = 1.0,
    ) -> None:
        super().__init__()
        checked("alpha", alpha, Positive)
        checked("momentum", momentum, Share)
        checked("share", share, Share)
        wanted = ("forward_intermediates", "forward_features", "forward_head", "get_classifier")
        check_part("network", network, wanted, "a classifier of timm with forward_intermediates, as resnet18")
        info: Any = network.feature_info
        self.stage = _default_stage(info) if stage is None else stage
        if not isinstance(self.stage, int) or not 0 <= self.stage < len(info):
            raise ValueError(
                f"stage must name one of the {len(info)} feature maps of the network, from 0, not {stage!r}"
            )
        self.loss = loss if loss is not None else MixLoss()
        if self.loss.rule.needs_attention:
            raise ValueError(f"masks that are learned have no attention for {self.loss.rule}: use another label rule")
        self.alpha, self.share, self.momentum, self.mask_decays = alpha, share, momentum, mask_decays
        self.network = network
        self.clean_head = _second_head(network.get_classifier())  # type: ignore[operator]
        self.slow = copy.deepcopy(network).requires_grad_(False)
        self.block = self.BLOCK(int(info[self.stage]["num_chs"]), large)
        self._copy_loss = MixLoss()
        self.register_buffer("progress", torch.zeros(()))

    # --------------------------------------------------------------------------------------------- draws

    @torch.no_grad()
    def prepare(
        self,
        images: Tensor,
        labels: Tensor,
        generator: torch.Generator,
        rule_generator: torch.Generator | None = None,
    ) -> LearnersBatch:
        """All draws for images [B, C, H, W] and labels [B], and the mixed images of the network.

        Args:
            rule_generator: of the label rule's draws; None is `generator`.

        Raises:
            ValueError: for what is no batch of images and labels.
        """
        labels = check_batch(images, labels)
        check_shape(images.shape, "a learner", (4,))
        features = self._features(images)
        weight, partner = self._draw(len(images), generator, images.device)
        mixed = self.mix(images, labels, partner, weight, features)
        weight, partner = self._draw(len(images), generator, images.device)
        return LearnersBatch(
            mixed,
            record(images, labels, partner, weight, Kind.MASK),
            images[partner],
            features,
            features[partner],
            self.loss.draw(mixed, rule_generator or generator),
            self.share == 1 or bool(draw_uniform(1, generator) < cosine(self.share, 0, float(self.progress))),
        )

    @torch.no_grad()
    def mix(
        self, images: Tensor, labels: Tensor, partner: Tensor, own_weight: Tensor, features: Tensor | None = None
    ) -> MixedBatch:
        """Images [B, C, H, W] mixed with their partners [B] for label weights [B]: by masks, or plainly at the edges.

        Args:
            features: of the images, where the slow copy has seen them already.
        """
        features = self._features(images) if features is None else features
        mask = self.block(features, features[partner], own_weight, images.shape[-2:])
        plain = torch.minimum(own_weight, 1 - own_weight) <= self.PLAIN
        mask = torch.where(plain.view(-1, 1, 1, 1), own_weight.view(-1, 1, 1, 1), mask)
        kind = torch.where(plain, int(Kind.BLEND), int(Kind.MASK)).to(torch.uint8)
        return record(blend(images, images[partner], mask), labels, partner, own_weight, kind, mask=mask)

    def _draw(self, size: int, generator: torch.Generator, device: torch.device) -> tuple[Tensor, Tensor]:
        """One own weight for the batch, [B] float32, and the partners [B]."""
        partner, group, count = draw_partners(size, "batch", "permutation", generator)
        weight = draw_beta(self.alpha, count, generator).float()[group]
        return weight.to(device), partner.to(device)

    def _features(self, images: Tensor) -> Tensor:
        """[B, D, h, w] of the slow copy at `stage`; layers behind it are not computed."""
        (features,) = self.slow.forward_intermediates(  # type: ignore[operator]
            images, indices=[self.stage], norm=False, stop_early=True, output_fmt="NCHW", intermediates_only=True
        )
        return torch.as_tensor(features)

    # --------------------------------------------------------------------------------------------- losses

    def forward(self, batch: LearnersBatch) -> Losses:
        """The losses of a prepared batch or of a part of it; all that has a gradient is in here."""
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
        factor = cosine(self.MASK, 0, float(self.progress)) if self.mask_decays else self.MASK
        return learned, factor * mask_loss(mask, clean.own_weight, self.VARIANCE)

    # --------------------------------------------------------------------------------------------- after an update

    @torch.no_grad()
    def after_update(self, progress: float) -> None:
        """Let the slow copy follow the network; `progress` is the share of the training that is done, 0 to 1.

        Parameters follow. Statistics of batch normalisation are the copy's own, as it stays in training mode.
        """
        checked("progress", progress, Share)
        self.progress.fill_(progress)
        share = 1 - momentum_at(progress, self.MOMENTUM, self.momentum)
        torch._foreach_lerp_(list(self.slow.parameters()), list(self.network.parameters()), share)


def _default_stage(info: Any) -> int:
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


class SAMix(AutoMix):
    """The successor of AutoMix (Li et al. 2021), with its own block, and a mask loss that pays for contrast."""

    BLOCK = SAMixBlock
    VARIANCE = 2.0
