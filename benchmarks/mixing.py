"""What the rows of CutMix and Mixup share: batches, timm's and torchvision's mixers, and the check of equality.

Work is equal. All mix the same batch with flip pairing (torchvision: rolled by one) and return what the loss needs
to know about labels; with 10 classes the dense targets of the peers cost them next to nothing. timm mixes in place, and
so does lumix unless said otherwise.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import numpy as np
import timm.data.mixup
import torch
from torch import Tensor
from torchvision.transforms import v2

from benchmarks.measure import Setting, Timings, Work, compare
from benchmarks.rows import Case, Goal, faster, timed_case, within
from lumix import CutMix, Kind, Mixup
from lumix.mixers.paste import MixPlan, apply_plan

CLASSES = 10
ALPHA = {Kind.BOX: 1.0, Kind.BLEND: 0.8}
FLOOR = "copy"  # the batch read once and written once, into memory that is there
SIDES = (0.5, 0.55)  # of the box in mode "batch", where one draw would decide how much work there is


@dataclass(frozen=True)
class Cell:
    """A batch: B images of 3 x side x side."""

    size: int
    side: int
    dtype: torch.dtype
    channels_last: bool

    @property
    def title(self) -> str:
        layout = "channels_last" if self.channels_last else "NCHW"
        return f"{self.size}x3x{self.side}x{self.side} {str(self.dtype).removeprefix('torch.')} {layout}"

    def make(self, device: str) -> tuple[Tensor, Tensor]:
        """Images and labels, random from a fixed seed."""
        stream = torch.Generator().manual_seed(0)
        images = torch.rand(self.size, 3, self.side, self.side, generator=stream)
        images = (255 * images).to(self.dtype) if self.dtype == torch.uint8 else images.to(self.dtype)
        labels = torch.randint(CLASSES, (self.size,), generator=stream)
        if self.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        return images.to(device), labels.to(device)


def cells(dtypes: tuple[torch.dtype, ...]) -> Iterator[Cell]:
    for size, side in ((128, 224), (1024, 32)):
        for dtype in dtypes:
            for channels_last in (False, True):
                yield Cell(size, side, dtype, channels_last)


# ------------------------------------------------------------------------------------------------- the mixers


def timm_mixer(kind: Kind, mode: str, **options: Any) -> timm.data.mixup.Mixup:
    alphas = {"mixup_alpha": ALPHA[kind]} if kind == Kind.BLEND else {"mixup_alpha": 0.0, "cutmix_alpha": ALPHA[kind]}
    return timm.data.mixup.Mixup(**alphas, mode=mode, num_classes=CLASSES, **options)


def our_mixer(kind: Kind, mode: str, inplace: bool, **options: Any) -> CutMix | Mixup:
    if kind == Kind.BLEND:
        return Mixup(ALPHA[kind], mode=mode, pairing="flip", inplace=inplace, **options)
    return CutMix(ALPHA[kind], box_rule="full", mode=mode, pairing="flip", inplace=inplace, **options)


def torchvision_mixer(kind: Kind, side: int) -> Any:
    """torchvision's, with a box of the size that the others have in mode "batch" (drawing it costs it nothing)."""
    if kind == Kind.BLEND:
        return v2.MixUp(alpha=ALPHA[kind], num_classes=CLASSES)
    mixer, edge = v2.CutMix(num_classes=CLASSES), int(SIDES[0] * side)
    start = (side - edge) // 2
    box = (start, start, start + edge, start + edge)
    mixer.make_params = lambda inputs: {"box": box, "lam_adjusted": 1 - (edge / side) ** 2}
    return mixer


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
    group = {"batch": [0] * size, "elem": list(range(size))}
    group["pair"] = [min(i, size - 1 - i) for i in range(size)]
    index = torch.tensor(group[mode])
    box = torch.tensor(boxes)[index] if boxes else torch.zeros(size, 4, dtype=torch.int64)
    kinds = torch.full((size,), int(kind), dtype=torch.uint8)
    weight = torch.tensor(weights, dtype=torch.float64)[index]
    plan = MixPlan(weight, torch.arange(size).flip(0), kinds, box, frozenset({kind}), mode == "batch")
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


# ------------------------------------------------------------------------------------------------- rivals


def rivals(kind: Kind, mode: str, cell: Cell, device: str) -> dict[str, Work]:
    """The floor, the peers, and lumix in place and copying; all mix the same batch, over and over."""
    stream, (images, labels) = torch.Generator(device).manual_seed(0), cell.make(device)
    target = torch.empty_like(images)
    work: dict[str, Work] = {FLOOR: lambda: target.copy_(images)}
    options: dict[str, Any] = {}
    if mode == "batch" and kind == Kind.BOX:
        options = {"minmax": SIDES}
    mixers: dict[str, Any] = {}
    for timm_mode in ("batch",) if mode == "batch" else ("elem", "pair"):
        theirs = {"cutmix_minmax": SIDES} if options else {}
        mixers[f"timm {timm_mode}"] = timm_mixer(kind, timm_mode, **theirs)
    if cell.dtype != torch.uint8 or kind == Kind.BOX:
        mixers["torchvision"] = torchvision_mixer(kind, cell.side)
    for name, mixer in mixers.items():
        work[name] = bound(mixer, images, labels)
    for name, inplace in (("lumix", True), ("lumix, copying", False)):
        ours = our_mixer(kind, mode, inplace, **options)
        work[name] = bound(ours, images, labels, stream)
    return work


def bound(mixer: Any, *arguments: Any) -> Work:
    return lambda: mixer(*arguments)


def measured(kind: Kind, mode: str, cell: Cell, setting: Setting) -> Timings:
    np.random.seed(0)
    return compare(rivals(kind, mode, cell, setting.device), setting)


@dataclass(frozen=True)
class MixingRow:
    """A row of one kind of mix, with a draw of its own for each sample and, unless in a hurry, with one for the batch.

    Attributes:
        what: is drawn: "box" or "weight".
        goals: of the draw per sample on the CPU.
        why: what limits one draw for all at 32 pixels.
    """

    kind: Kind
    what: str
    dtypes: tuple[torch.dtype, ...]
    goals: Callable[[Cell, Timings], list[Goal]]
    why: str

    def cases(self, setting: Setting) -> Iterator[Case]:
        for cell in cells(self.dtypes):
            check_equal(self.kind, cell, setting.device, ("elem", "pair", "batch"))
            yield self.one_per_sample(cell, setting)
            if not setting.quick:
                yield self.one_for_all(cell, setting)

    def one_per_sample(self, cell: Cell, setting: Setting) -> Case:
        timings = measured(self.kind, "elem", cell, setting)
        if setting.device == "cuda":
            goals = [faster(timings, "timm elem", 50), within(timings, FLOOR, 1.3)]
        else:
            goals = self.goals(cell, timings)
        goals += [faster(timings, "timm pair", None), faster(timings, "timm elem", None, "lumix, copying")]
        return timed_case(f"a {self.what} per sample, {cell.title}", timings, goals)

    def one_for_all(self, cell: Cell, setting: Setting) -> Case:
        timings = measured(self.kind, "batch", cell, setting)
        why = self.why if cell.side == 32 else ""
        goals = [faster(timings, name, 1, why=why) for name in ("timm batch", "torchvision")]
        goals.append(within(timings, FLOOR, None))
        return timed_case(f"one {self.what}, {cell.title}", timings, goals)
