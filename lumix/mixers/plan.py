"""The plan of a mix, its random draws, and its application to images.

A mixer draws a `MixPlan` from an explicit generator and applies it. The plan is all that was random, so it can be
injected by tests, replayed on another device, or applied to something else than images.

Shape legend: B samples, H rows, W columns; D draws, where mode "batch" makes one draw for the batch, "pair" one for
each two partners, "elem" one for each sample. Weights belong to the own label; they are float64 until applied.
"""

from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from lumix.batch import Kind, MixedBatch, box_area, inside_box, is_kind
from lumix.mixers.writing import blend, mix_by_writing

MODES = ("batch", "pair", "elem")
PAIRINGS = ("flip", "permutation")


class Mixer(Protocol):
    """Anything that mixes a batch; `model` is for methods that look at the images through a network."""

    def __call__(self, images: Tensor, labels: Tensor, generator: torch.Generator, model: Any = None) -> MixedBatch: ...


@dataclass(frozen=True)
class MixPlan:
    """What to do with a batch of B images.

    Attributes:
        own_weight: [B] float64, weight of the own label.
        partner: [B] int64.
        kind: [B] uint8, a `Kind` per sample.
        box: [B, 4] int64, pasted rectangles (top, bottom, left, right); zeros for none.
        kinds: the kinds that may occur, known without looking at tensors.
        one_draw: whether all samples share one weight and box.
    """

    own_weight: Tensor
    partner: Tensor
    kind: Tensor
    box: Tensor
    kinds: frozenset[Kind]
    one_draw: bool = False

    def to(self, device: torch.device) -> "MixPlan":
        return replace(
            self,
            own_weight=self.own_weight.to(device, non_blocking=True),
            partner=self.partner.to(device, non_blocking=True),
            kind=self.kind.to(device, non_blocking=True),
            box=self.box.to(device, non_blocking=True),
        )


# ------------------------------------------------------------------------------------------------- checks


def check_batch(images: Tensor, labels: Tensor) -> None:
    """Raise ValueError, with the offending value and the remedy, for a batch that cannot be mixed."""
    if images.ndim != 4:
        raise ValueError(f"images must be [B, C, H, W], not of shape {list(images.shape)}")
    if labels.dtype != torch.int64:
        raise ValueError(f"labels must be class indices of dtype int64, not {labels.dtype}: use labels.long()")
    if labels.shape != images.shape[:1]:
        raise ValueError(f"labels must be [B] with B = {len(images)} images, not of shape {list(labels.shape)}")
    if len(images) == 0:
        raise ValueError("the batch is empty: a mixer needs at least one image")


def check_choice(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")


def check_probability(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must lie between 0 and 1, not {value!r}")


def check_positive(name: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"{name} must be above 0, not {value!r}")


# ------------------------------------------------------------------------------------------------- draws


def draw_uniform(count: int, generator: torch.Generator) -> Tensor:
    """[D] float64 in [0, 1), on the generator's device."""
    return torch.rand(count, generator=generator, device=generator.device, dtype=torch.float64)


def draw_beta(alpha: float, count: int, generator: torch.Generator) -> Tensor:
    """[D] float64 from Beta(alpha, alpha), on the generator's device.

    A Beta is a ratio of Gammas. torch.distributions takes no generator; the sampler beneath it does.
    """
    concentration = torch.full((2, count), alpha, device=generator.device, dtype=torch.float64)
    gamma = torch._standard_gamma(concentration, generator=generator)
    return gamma[0] / gamma.sum(0)


def draw_integers(high: Tensor, generator: torch.Generator) -> Tensor:
    """[D] int64, uniform on 0 .. high - 1 for each entry of `high` [D] int64, which are at least 1."""
    return torch.minimum((draw_uniform(len(high), generator) * high).long(), high - 1)


def draw_partners(size: int, mode: str, pairing: str, generator: torch.Generator) -> tuple[Tensor, Tensor, int]:
    """Who is mixed with whom, and which draw each sample uses: (partner [B], group [B], number of draws).

    "flip" is timm's reversed batch; it needs an even batch. "permutation" serves any size; a sample paired with itself
    stays as it is. In mode "pair" partners are mutual and share a draw.
    """
    device = generator.device
    index = torch.arange(size, device=device)
    if pairing == "flip":
        if size % 2:
            raise ValueError(
                f"flip pairing needs an even batch, not {size} images: use drop_last=True or pairing='permutation'"
            )
        partner = index.flip(0)
        pair = torch.minimum(index, partner)
    else:
        order = torch.randperm(size, generator=generator, device=device)
        partner, pair = order, index
        if mode == "pair":
            even = size - size % 2
            partner, pair = index.clone(), torch.full_like(index, size // 2)
            first, second = order[0:even:2], order[1:even:2]
            partner[first], partner[second] = second, first
            pair[first] = pair[second] = torch.arange(size // 2, device=device)
    if mode == "batch":
        return partner, torch.zeros_like(index), 1
    if mode == "pair":
        return partner, pair, (size + 1) // 2
    return partner, index, size


@dataclass(frozen=True)
class Draws:
    """D draws before they are dealt out to samples: own_weight [D] float64, kind [D] uint8, box [D, 4] int64."""

    own_weight: Tensor
    kind: Tensor
    box: Tensor


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


def deal(draws: Draws, mixes: Tensor, partner: Tensor, group: Tensor, kinds: frozenset[Kind]) -> MixPlan:
    """The plan in which sample i takes draw group[i]; unmixed where `mixes` [D] is false or nothing changes."""
    mixes = mixes & ((draws.own_weight != 1) | (box_area(draws.box) > 0))
    weight = torch.where(mixes, draws.own_weight, 1.0)
    kind = torch.where(mixes, draws.kind, int(Kind.NONE)).to(torch.uint8)
    box = torch.where(mixes.unsqueeze(1), draws.box, 0)
    one_draw = len(weight) == 1
    if one_draw and kind.device.type == "cpu":
        kinds = frozenset({Kind(int(kind))})
    weight, kind, box = (values.index_select(0, group) for values in (weight, kind, box))
    return MixPlan(weight, partner, kind, box, kinds | {Kind.NONE}, one_draw)


def unmixed_plan(size: int, device: torch.device) -> MixPlan:
    """The plan that leaves `size` images as they are."""
    kind = torch.zeros(size, dtype=torch.uint8, device=device)
    box = torch.zeros((size, 4), dtype=torch.int64, device=device)
    weight = torch.ones(size, dtype=torch.float64, device=device)
    return MixPlan(weight, torch.arange(size, device=device), kind, box, frozenset({Kind.NONE}))


# ------------------------------------------------------------------------------------------------- application


def mix_images(images: Tensor, plan: MixPlan, inplace: bool = False) -> Tensor:
    """The mixed images of a plan on the same device, in new memory of the same dtype and layout, or `inplace`."""
    if plan.kinds <= {Kind.NONE}:
        return images if inplace else images.clone()
    if images.device.type == "cpu" and not (images.requires_grad and torch.is_grad_enabled()):
        return mix_by_writing(images, plan, inplace)
    mixed = mix_by_selecting(images, plan)
    return images.copy_(mixed) if inplace else mixed


def mix_by_selecting(images: Tensor, plan: MixPlan) -> Tensor:
    """For devices: whole tensors, no question about their values, hence no synchronisation. Gradients pass."""
    other = images[plan.partner]  # unlike index_select it keeps channels_last
    mixed = images
    if Kind.MIXUP in plan.kinds:
        mixed = blend(images, other, torch.where(is_kind(plan.kind, Kind.MIXUP), plan.own_weight, 1.0))
    if Kind.CUTMIX in plan.kinds:
        mixed = torch.where(inside_box(plan.box, *images.shape[-2:]), other, mixed)
    return mixed.clone() if mixed is images else mixed


def apply_plan(images: Tensor, labels: Tensor, plan: MixPlan, inplace: bool = False) -> MixedBatch:
    """The MixedBatch of B images and labels under a plan of B samples; the caller's stay as they are, unless `inplace`.

    In place the images are those of the caller, mixed.
    """
    check_batch(images, labels)
    if len(plan.partner) != len(images):
        raise ValueError(f"the plan is for {len(plan.partner)} images, the batch has {len(images)}")
    plan = plan.to(images.device)
    return MixedBatch(
        images=mix_images(images, plan, inplace),
        labels=labels,
        partner_labels=labels[plan.partner],
        own_weight=plan.own_weight.to(torch.float32),
        partner=plan.partner,
        kind=plan.kind,
        box=plan.box if Kind.CUTMIX in plan.kinds else None,
    )
