"""Rows of CutMix and Mixup: a draw of its own for each sample and, unless in a hurry, one for the batch.

Work is equal. All mix the same batch with flip pairing (torchvision: rolled by one) and return what the loss needs
to know about labels; with 10 classes the dense targets of the peers cost them next to nothing. timm mixes in place, and
so does "lumix"; "lumix, permutation" has its default pairing, "lumix, default" a copy of the batch as well. Where
memory is reused, glibc gives none back to the kernel, so no rival pays for fetching it anew. Mixup is of float32 images
only: timm's cuts uint8 images off where lumix rounds, and casts the label weights to 0 or 1.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from unittest import mock

import numpy as np
import timm.data.mixup
import torch
from torch import Tensor
from torchvision.transforms import v2

from benchmarks.measure import Line, Setting, Work, compare, faster, reused_memory, times, within
from lumix import CutMix, Kind, Mixup
from lumix.mixers.paste import MixPlan, apply_plan

CLASSES = 10
ALPHA = {Kind.BOX: 1.0, Kind.BLEND: 0.8}
FLOOR = "copy"  # the batch read once and written once, into memory that is there
OURS: dict[str, dict[str, Any]] = {
    "lumix": {"pairing": "flip", "inplace": True},
    "lumix, permutation": {"inplace": True},
    "lumix, default": {},
}
SIDES = (0.5, 0.55)  # of the box in mode "batch", where one draw would decide how much work there is

CUT_LARGE = "lumix takes what a copy of the batch takes, and timm's whole time is 8 copies (uint8: 5) on this machine"
CUT_SMALL = (
    "each of 1 024 samples takes 1 to 2 microseconds to be addressed from Python and the draws 0.4 ms, whatever the "
    "bytes, while copying the batch takes 0.5 ms (uint8: 0.07)"
)
CUT_ONE = "of bytes timm's whole batch takes 0.15 to 0.2 ms, a fifth of which the draws and the record take in lumix"
BLEND_LARGE = "one fused pass in place takes 1.3 to 1.9 copies, and timm's whole time on this machine is 6 to 8 of them"
BLEND_SMALL = "pieces of the partners are gathered before the fused pass over them, and the draws take 0.2 ms"
BLEND_ONE = "timm makes the same passes, outside the cache, with fewer operations on the draws and the record"


@dataclass(frozen=True)
class Cell:
    """A batch: B images of 3 x side x side."""

    size: int
    side: int
    dtype: torch.dtype

    @property
    def title(self) -> str:
        return f"{self.size}x3x{self.side}x{self.side} {str(self.dtype).removeprefix('torch.')}"

    def make(self, device: str) -> tuple[Tensor, Tensor]:
        """Images and labels, random from a fixed seed."""
        stream = torch.Generator().manual_seed(0)
        images = torch.rand(self.size, 3, self.side, self.side, generator=stream)
        images = (255 * images).to(self.dtype) if self.dtype == torch.uint8 else images.to(self.dtype)
        return images.to(device), torch.randint(CLASSES, (self.size,), generator=stream).to(device)


def cutmix(setting: Setting) -> Iterator[Line]:
    for dtype, over_timm, quick in ((torch.float32, 8, 12), (torch.uint8, 4, 100)):
        yield from measured(Kind.BOX, Cell(128, 224, dtype), setting, over_timm, 1.5, {"why": CUT_LARGE}, "")
        small = {"why": CUT_SMALL, "quick": quick}
        yield from measured(Kind.BOX, Cell(1024, 32, dtype), setting, 10, 5, small, CUT_ONE)


def mixup(setting: Setting) -> Iterator[Line]:
    for size, side, why, one in ((128, 224, BLEND_LARGE, ""), (1024, 32, BLEND_SMALL, BLEND_ONE)):
        cell = Cell(size, side, torch.float32)
        yield from measured(Kind.BLEND, cell, setting, 8, 2.5, {"why": why, "quick": 10}, one)


def measured(
    kind: Kind, cell: Cell, setting: Setting, over_timm: float, over_copy: float, floor: dict[str, Any], one: str
) -> Iterator[Line]:
    """The lines of a batch.

    Args:
        over_timm, over_copy: targets of the draw per sample, on the CPU.
        floor: options of the line about the copy; its "why" holds for timm too.
        one: why a target of one draw for all is missed.
    """
    check_equal(kind, cell, setting.device, ("elem", "pair", "batch"))
    what, gpu = "box" if kind == Kind.BOX else "weight", setting.device == "cuda"
    case, timings = f"a {what} per sample, {cell.title}", run(kind, "elem", cell, setting)
    yield from times(case, timings)
    quick = 2.5 if kind == Kind.BLEND and not gpu else None  # at 224 pixels timm takes 5 times as long
    yield faster(case, timings, "timm elem", 50 if gpu else over_timm, why=floor["why"], quick=quick)
    yield within(case, timings, FLOOR, 1.3 if gpu else over_copy, **floor)
    yield faster(case, timings, "timm pair")
    for who in ("lumix, permutation", "lumix, default"):
        yield faster(case, timings, "timm elem", who=who)
    if not setting.quick and not gpu and cell.side > 32:  # small batches have the memory of before in any case
        with reused_memory():
            case, timings = f"{case}, memory reused", run(kind, "elem", cell, setting)
        yield from times(case, timings)
        for who in OURS:
            yield faster(case, timings, "timm elem", who=who)
    if not setting.quick:
        case, timings = f"one {what}, {cell.title}", run(kind, "batch", cell, setting)
        yield from times(case, timings)
        yield faster(case, timings, "timm batch", 1, why=one)
        yield faster(case, timings, "torchvision", 1, why=one)
        yield within(case, timings, FLOOR)


def run(kind: Kind, mode: str, cell: Cell, setting: Setting) -> Any:
    np.random.seed(0)
    return compare(rivals(kind, mode, cell, setting.device), setting)


# ------------------------------------------------------------------------------------------------- rivals


def timm_mixer(kind: Kind, mode: str, minmax: Any = None) -> timm.data.mixup.Mixup:
    alphas = {"mixup_alpha": ALPHA[kind]} if kind == Kind.BLEND else {"mixup_alpha": 0.0, "cutmix_alpha": ALPHA[kind]}
    return timm.data.mixup.Mixup(**alphas, cutmix_minmax=minmax, mode=mode, num_classes=CLASSES)


def our_mixer(kind: Kind, mode: str, minmax: Any = None, **options: Any) -> CutMix | Mixup:
    if kind == Kind.BLEND:
        return Mixup(ALPHA[kind], mode=mode, **options)
    return CutMix(ALPHA[kind], box_rule="full", minmax=minmax, mode=mode, **options)


def torchvision_mixer(kind: Kind, side: int) -> Any:
    """torchvision's, with a box of the size that the others have in mode "batch" (drawing it costs it nothing)."""
    if kind == Kind.BLEND:
        return v2.MixUp(alpha=ALPHA[kind], num_classes=CLASSES)
    mixer, edge = v2.CutMix(num_classes=CLASSES), int(SIDES[0] * side)
    start = (side - edge) // 2
    box = (start, start, start + edge, start + edge)
    mixer.make_params = lambda inputs: {"box": box, "lam_adjusted": 1 - (edge / side) ** 2}
    return mixer


def rivals(kind: Kind, mode: str, cell: Cell, device: str) -> dict[str, Work]:
    """The floor, the peers, and lumix; all mix the same batch, over and over."""
    stream, (images, labels) = torch.Generator(device).manual_seed(0), cell.make(device)
    target = torch.empty_like(images)
    work: dict[str, Work] = {FLOOR: lambda: target.copy_(images)}
    minmax = SIDES if mode == "batch" and kind == Kind.BOX else None
    for name in ("batch",) if mode == "batch" else ("elem", "pair"):
        work[f"timm {name}"] = partial(timm_mixer(kind, name, minmax), images, labels)
    work["torchvision"] = partial(torchvision_mixer(kind, cell.side), images, labels)
    for name, options in OURS.items():
        work[name] = partial(our_mixer(kind, mode, minmax, **options), images, labels, stream)
    return work


# ------------------------------------------------------------------------------------------------- equality


def timm_and_its_plan(kind: Kind, mode: str, images: Tensor, labels: Tensor) -> tuple[Tensor, MixPlan]:
    """What timm makes of the images, and the plan of what it drew."""
    np.random.seed(0)
    mixer, boxes, weights = timm_mixer(kind, mode), [], []
    draw_box = timm.data.mixup.cutmix_bbox_and_lam

    def box_and_weight(*arguments: Any, **options: Any) -> Any:
        box, weight = draw_box(*arguments, **options)
        boxes.append([int(edge) for edge in box])
        weights.append(float(weight))
        return box, weight

    name = "_params_per_batch" if mode == "batch" else "_params_per_elem"
    draw = getattr(mixer, name)

    def weights_of(*arguments: Any) -> Any:
        drawn = draw(*arguments)
        if kind == Kind.BLEND:
            weights.extend(np.atleast_1d(drawn[0]).tolist())
        return drawn

    with (
        mock.patch.object(timm.data.mixup, "cutmix_bbox_and_lam", box_and_weight),
        mock.patch.object(mixer, name, weights_of),
    ):
        theirs, _ = mixer(images.clone(), labels)
    size = len(images)
    group = {"batch": [0] * size, "elem": list(range(size)), "pair": [min(i, size - 1 - i) for i in range(size)]}
    index = torch.tensor(group[mode])
    box = torch.tensor(boxes)[index] if boxes else torch.zeros(size, 4, dtype=torch.int64)
    kinds = torch.full((size,), int(kind), dtype=torch.uint8)
    weight = torch.tensor(weights, dtype=torch.float64)[index]
    plan = MixPlan(weight, torch.arange(size).flip(0), kinds, box, (kinds, frozenset({kind})))
    return theirs, plan.to(images.device)


def check_equal(kind: Kind, cell: Cell, device: str, modes: tuple[str, ...]) -> None:
    """Raise AssertionError unless lumix makes of timm's draws what timm makes; bit for bit where it only copies.

    64 large images are enough to take the way of large batches.
    """
    images, labels = replace(cell, size=64 if cell.side > 32 else cell.size).make(device)
    for mode in modes:
        theirs, plan = timm_and_its_plan(kind, mode, images, labels)
        for inplace in (False, True):
            ours = apply_plan(images.clone(), labels, plan, inplace).images
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0 if kind == Kind.BOX else 3e-7)
