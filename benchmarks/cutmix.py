"""Row 1: CutMix with a box of its own for each sample, and with one box for the batch."""

from collections.abc import Iterator
from typing import Any

import torch

from benchmarks.measure import Setting
from benchmarks.mixing import FLOOR, Cell, cells, check_equal, measured
from benchmarks.outcome import Case, faster, timed_case, within
from lumix import Kind

NAME = "cutmix"
TITLE = "CutMix"
PEERS = "timm's Mixup (elem, pair, batch), torchvision v2.CutMix (one box), the copy of a batch"
SMALL = (
    "each of 1 024 samples takes 1 to 2 microseconds to be addressed from Python and the draws 0.4 ms, whatever the "
    "bytes, while copying the batch takes 0.5 ms (uint8: 0.07)"
)
LARGE = "lumix takes what a copy of the batch takes, and timm's whole time is 8 copies (uint8: 5) on this machine"
ONE_BOX = "the batch is mixed in half a millisecond, and the draws and the record of the mix take 0.2 of it"


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
        why: dict[str, Any] = {"why": LARGE} if large else {"why": SMALL, "quick": 100 if bytes_ else 12}
        goals = [
            faster(timings, "timm elem", 10 if not large else 4 if bytes_ else 8, why=why["why"]),
            within(timings, FLOOR, 1.5 if large else 5, **why),
        ]
    goals += [faster(timings, "timm pair", None), faster(timings, "timm elem", None, "lumix, copying")]
    return timed_case(f"a box per sample, {cell.title}", timings, goals)


def one_box(cell: Cell, setting: Setting) -> Case:
    timings = measured(Kind.CUTMIX, "batch", cell, setting)
    why = ONE_BOX if cell.side == 32 else ""
    goals = [faster(timings, name, 1, why=why) for name in ("timm batch", "torchvision")]
    goals.append(within(timings, FLOOR, None))
    return timed_case(f"one box, {cell.title}", timings, goals)
