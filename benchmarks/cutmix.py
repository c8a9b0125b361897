"""Row 1: CutMix with a box of its own for each sample, and with one box for the batch."""

from collections.abc import Iterator

import torch

from benchmarks.measure import Setting
from benchmarks.mixing import FLOOR, Cell, cells, check_equal, measured
from benchmarks.outcome import Case, faster, timed_case, within
from lumix import Kind

NAME = "cutmix"
TITLE = "CutMix"
PEERS = "timm's Mixup (elem, pair, batch), torchvision v2.CutMix (one box), the copy of a batch"
SMALL_UINT8 = (
    "1 024 samples take 1 microsecond each to be addressed, while all their 3 MB are copied in 70 microseconds"
)


def cases(setting: Setting) -> Iterator[Case]:
    for cell in cells((torch.float32, torch.uint8)):
        check_equal(Kind.CUTMIX, cell, setting.device, ("elem", "pair", "batch"))
        yield each_its_box(cell, setting)
        if not setting.quick:
            yield one_box(cell, setting)


def each_its_box(cell: Cell, setting: Setting) -> Case:
    timings = measured(Kind.CUTMIX, "elem", cell, setting)
    if setting.device == "cuda":
        goals = [faster(timings, "timm elem", 50), within(timings, FLOOR, 1.3)]
    else:
        large, bytes_ = cell.side == 224, cell.dtype == torch.uint8
        why = SMALL_UINT8 if bytes_ and not large else ""
        goals = [
            faster(timings, "timm elem", 10 if not large else 4 if bytes_ else 8),
            within(timings, FLOOR, 1.5 if large else 5, why=why),
        ]
    goals += [faster(timings, "timm pair", None), faster(timings, "timm elem", None, "lumix, copying")]
    return timed_case(f"a box per sample, {cell.title}", timings, goals)


def one_box(cell: Cell, setting: Setting) -> Case:
    timings = measured(Kind.CUTMIX, "batch", cell, setting)
    goals = [faster(timings, "timm batch", 1), faster(timings, "torchvision", 1), within(timings, FLOOR, None)]
    return timed_case(f"one box, {cell.title}", timings, goals)
