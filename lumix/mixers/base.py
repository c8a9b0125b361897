"""What a mixer is, and the two bases: mixers whose plan is drawn without looking, and mixers of whole batches."""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from lumix.batch import Kind, MixedBatch
from lumix.checks import check_batch, check_choice, check_probability
from lumix.draws import MODES, PAIRINGS, draw_partners, draw_uniform
from lumix.mixers.apply import apply_plan
from lumix.mixers.plan import Draws, MixPlan, deal, unmixed_plan


class Mixer(Protocol):
    """Anything that mixes a batch; `model` is for methods that look at the images through a network."""

    def __call__(self, images: Tensor, labels: Tensor, generator: torch.Generator, model: Any = None) -> MixedBatch: ...


@dataclass(frozen=True)
class PlannedMixer:
    """Base of the mixers whose plan does not depend on the images.

    Attributes:
        mode: one draw for the "batch", for each "pair" of partners, or for each sample ("elem").
        pairing: "permutation" (any batch size) or timm's "flip" of the batch (even batches).
        prob: probability that a draw mixes at all.
        inplace: write into the caller's images, which saves the copy of a batch that nobody else needs.
    """

    mode: str = field(default="batch", kw_only=True)
    pairing: str = field(default="permutation", kw_only=True)
    prob: float = field(default=1.0, kw_only=True)
    inplace: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        check_choice("mode", self.mode, MODES)
        check_choice("pairing", self.pairing, PAIRINGS)
        check_probability("prob", self.prob)

    @property
    def kinds(self) -> frozenset[Kind]:
        """The kinds of mix that this mixer makes."""
        raise NotImplementedError

    def draw(self, count: int, height: int, width: int, generator: torch.Generator) -> Draws:
        """`count` independent draws for images of height x width, on the generator's device."""
        raise NotImplementedError

    def plan(self, size: int, height: int, width: int, generator: torch.Generator) -> MixPlan:
        """Draw a plan for `size` images of height x width, on the generator's device."""
        partner, group, count = draw_partners(size, self.mode, self.pairing, generator)
        draws = self.draw(count, height, width, generator)
        mixes = draw_uniform(count, generator) < self.prob
        return deal(draws, mixes, partner, group, self.kinds)

    def __call__(self, images: Tensor, labels: Tensor, generator: torch.Generator, model: Any = None) -> MixedBatch:
        """Mix images [B, C, H, W] of any dtype and layout with labels [B] int64; both stay as they are by default.

        Raises:
            ValueError: for an empty batch, labels that are no int64 indices, or flip pairing of an odd batch.
        """
        check_batch(images, labels)
        plan = self.plan(len(images), images.shape[-2], images.shape[-1], generator)
        return apply_plan(images, labels, plan, self.inplace)


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
