"""MixPlan: what the mixers of `PlannedMixer` draw for a batch, on any device and for anything of B samples.

Shape legend: B samples; D draws, where mode "batch" makes one draw for the batch, "pair" one for each two partners,
"elem" one for each sample. Weights belong to the own label; they are float64 until applied.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lumix.batch import Kind, box_area
from lumix.draws import draw_beta


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
        hidden: name of the module whose output is mixed instead of the images, or None.
    """

    own_weight: Tensor
    partner: Tensor
    kind: Tensor
    box: Tensor
    kinds: frozenset[Kind]
    one_draw: bool = False
    hidden: str | None = None

    def to(self, device: torch.device) -> "MixPlan":
        if self.partner.device == device:
            return self
        return replace(
            self,
            own_weight=self.own_weight.to(device, non_blocking=True),
            partner=self.partner.to(device, non_blocking=True),
            kind=self.kind.to(device, non_blocking=True),
            box=self.box.to(device, non_blocking=True),
        )


def unmixed_plan(size: int, device: torch.device) -> MixPlan:
    """The plan that leaves `size` images as they are."""
    kind = torch.zeros(size, dtype=torch.uint8, device=device)
    box = torch.zeros((size, 4), dtype=torch.int64, device=device)
    weight = torch.ones(size, dtype=torch.float64, device=device)
    return MixPlan(weight, torch.arange(size, device=device), kind, box, frozenset({Kind.NONE}))


@dataclass(frozen=True)
class Draws:
    """D draws before samples take them: own_weight [D] float64, kind [D] uint8, box [D, 4] int64."""

    own_weight: Tensor
    kind: Tensor
    box: Tensor


def draw_blends(alpha: float, count: int, generator: torch.Generator) -> Draws:
    """D = `count` blends with weights from Beta(alpha, alpha)."""
    weight = draw_beta(alpha, count, generator)
    kind = torch.full((count,), int(Kind.BLEND), dtype=torch.uint8, device=generator.device)
    return Draws(weight, kind, torch.zeros((count, 4), dtype=torch.int64, device=generator.device))


def deal(draws: Draws, mixes: Tensor, partner: Tensor, group: Tensor, kinds: frozenset[Kind]) -> MixPlan:
    """The plan in which sample i takes draw group[i]; unmixed where `mixes` [D] is false or nothing changes."""
    if len(mixes) == 1 and mixes.device.type == "cpu":
        return deal_one(draws, bool(mixes), partner)
    mixes = mixes & ((draws.own_weight != 1) | (box_area(draws.box) > 0))
    weight = torch.where(mixes, draws.own_weight, 1.0).index_select(0, group)
    kind = torch.where(mixes, draws.kind, int(Kind.NONE)).to(torch.uint8).index_select(0, group)
    box = torch.where(mixes.unsqueeze(1), draws.box, 0).index_select(0, group)
    return MixPlan(weight, partner, kind, box, kinds | {Kind.NONE}, len(mixes) == 1)


def deal_one(draws: Draws, mixes: bool, partner: Tensor) -> MixPlan:
    """`deal` of one draw on the CPU, by Python numbers, which take less time. All samples share one draw's memory."""
    top, bottom, left, right = draws.box[0].tolist()
    if not mixes or (draws.own_weight.item() == 1 and (top == bottom or left == right)):
        return replace(unmixed_plan(len(partner), partner.device), partner=partner, one_draw=True)
    weight, kind, box = (x.expand(len(partner), *x.shape[1:]) for x in (draws.own_weight, draws.kind, draws.box))
    return MixPlan(weight, partner, kind, box, frozenset({Kind(int(draws.kind)), Kind.NONE}), True)
