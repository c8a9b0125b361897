"""Row 2: Mixup with a weight of its own for each sample, and with one for the batch.

Of float32 images only: timm's Mixup cuts uint8 images off where lumix rounds, and casts the label weights to 0 or 1.
"""

from collections.abc import Iterator

import torch

from benchmarks.measure import Setting
from benchmarks.mixing import FLOOR, Cell, cells, check_equal, measured
from benchmarks.outcome import Case, faster, timed_case, within
from lumix import Kind

NAME = "mixup"
TITLE = "Mixup"
PEERS = "timm's Mixup (elem, pair, batch), torchvision v2.MixUp (one weight), the copy of a batch"

PASSES = (
    "two products and a sum, rounded as timm rounds them, are four passes over memory in torch, as a fused operation "
    "would round once less; "
)
LARGE = PASSES + "in place that is 1.4 times a copy, and timm's whole time on this machine is 8 copies"
SMALL = PASSES + "the gather of the partners alone takes 1.5 times a copy"
ONE_WEIGHT = "timm makes the same passes over memory, and the draws and the record of the mix take 0.3 ms of 2.5"


def cases(setting: Setting) -> Iterator[Case]:
    for cell in cells((torch.float32,)):
        check_equal(Kind.MIXUP, cell, setting.device, ("elem", "pair", "batch"))
        yield each_its_weight(cell, setting)
        if not setting.quick:
            yield one_weight(cell, setting)


def each_its_weight(cell: Cell, setting: Setting) -> Case:
    timings = measured(Kind.MIXUP, "elem", cell, setting)
    if setting.device == "cuda":
        goals = [faster(timings, "timm elem", 50), within(timings, FLOOR, 1.3)]
    else:
        why = LARGE if cell.side == 224 else SMALL
        goals = [faster(timings, "timm elem", 8, why=why), within(timings, FLOOR, 2.5, why=why, quick=10)]
    goals += [faster(timings, "timm pair", None), faster(timings, "timm elem", None, "lumix, copying")]
    return timed_case(f"a weight per sample, {cell.title}", timings, goals)


def one_weight(cell: Cell, setting: Setting) -> Case:
    timings = measured(Kind.MIXUP, "batch", cell, setting)
    why = ONE_WEIGHT if cell.side == 32 else ""
    goals = [faster(timings, name, 1, why=why) for name in ("timm batch", "torchvision")]
    goals.append(within(timings, FLOOR, None))
    return timed_case(f"one weight, {cell.title}", timings, goals)
