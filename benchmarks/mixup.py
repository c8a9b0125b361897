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
    "two products and a sum, rounded as timm rounds them, are four passes over pixels in torch, as a fused operation "
    "(lerp, addcmul) would round once less; "
)
LARGE = PASSES + "in place that is 2 times a copy, and timm's whole time on this machine is 8 to 12 copies"
SMALL = PASSES + "in the cache they take as long as a copy of the batch, whose pixels are also read and written"
ONE_WEIGHT = "timm makes the same passes, outside the cache, with fewer operations on the draws and the record"


def goals(cell: Cell, timings: Timings) -> list[Goal]:
    why = LARGE if cell.side == 224 else SMALL
    return [faster(timings, "timm elem", 8, why=why), within(timings, FLOOR, 2.5, why=why, quick=10)]


cases = MixingRow(Kind.BLEND, "weight", (torch.float32,), goals, ONE_WEIGHT).cases
