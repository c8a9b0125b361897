"""The base of the mixers that look at images: one decision to mix, one set of partners, one kind of region a batch."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from lumix.batch import Kind, MixedBatch
from lumix.mixers.plan import (
    PAIRINGS,
    apply_plan,
    check_batch,
    check_choice,
    check_probability,
    draw_partners,
    draw_uniform,
    unmixed_plan,
)


@dataclass(frozen=True)
class WholeBatchMixer:
    """Base of the mixers that mix all of a batch in one way, or none of it.

    Attributes:
        pairing: "permutation" (any batch size) or timm's "flip" of the batch (even batches).
        prob: probability that a batch is mixed at all.
    """

    pairing: str = field(default="permutation", kw_only=True)
    prob: float = field(default=1.0, kw_only=True)
    kind: ClassVar[Kind]  # of every mixed sample

    def __post_init__(self) -> None:
        check_choice("pairing", self.pairing, PAIRINGS)
        check_probability("prob", self.prob)

    @property
    def kinds(self) -> frozenset[Kind]:
        """The kinds of mix that this mixer makes."""
        return frozenset({self.kind})

    def check(self, images: Tensor, labels: Tensor) -> None:
        """Raise ValueError, with the offending value and the remedy, for a batch that cannot be mixed."""
        check_batch(images, labels)

    def apply(
        self, images: Tensor, labels: Tensor, partner: Tensor, generator: torch.Generator, model: Any
    ) -> MixedBatch:
        """The mixed batch for given partners [B] int64 on the images' device."""
        raise NotImplementedError

    def __call__(self, images: Tensor, labels: Tensor, generator: torch.Generator, model: Any = None) -> MixedBatch:
        """Mix images [B, C, H, W] with labels [B] int64; both stay as they are. `model` as the method needs it.

        Raises:
            ValueError: for a bad batch, flip pairing of an odd one, or what the method cannot work with.
        """
        self.check(images, labels)
        partner, _, _ = draw_partners(len(images), "batch", self.pairing, generator)
        if float(draw_uniform(1, generator)) >= self.prob:
            return apply_plan(images, labels, unmixed_plan(len(images), images.device))
        return self.apply(images, labels, partner.to(images.device), generator, model)

    def record(self, images: Tensor, labels: Tensor, partner: Tensor, own_weight: Tensor, **region: Any) -> MixedBatch:
        """The record of mixed images with own weights [B] and their `mask` or `box`."""
        return MixedBatch(
            images=images,
            labels=labels,
            partner_labels=labels[partner],
            own_weight=own_weight.to(images.device, torch.float32),
            partner=partner,
            kind=torch.full((len(images),), int(self.kind), dtype=torch.uint8, device=images.device),
            **region,
        )
