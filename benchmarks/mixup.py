"""Row 2: Mixup with a weight of its own for each sample, and with one for the batch.

Of float32 images only: timm's Mixup cuts uint8 images off where lumix rounds, and casts the label weights to 0 or 1.
"""

import torch

from benchmarks.measure import Timings
from benchmarks.mixing import FLOOR, Cell, MixingRow
from benchmarks.rows import Goal, faster, within
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


def goals(cell: Cell, timings: Timings) -> list[Goal]:
    why = LARGE if cell.side == 224 else SMALL
    return [faster(timings, "timm elem", 8, why=why), within(timings, FLOOR, 2.5, why=why, quick=10)]


cases = MixingRow(Kind.BLEND, "weight", (torch.float32,), goals, ONE_WEIGHT).cases
