"""Row 1: CutMix with a box of its own for each sample, and with one box for the batch."""

from typing import Any

import torch

from benchmarks.measure import Timings
from benchmarks.mixing import FLOOR, Cell, MixingRow
from benchmarks.rows import Goal, faster, within
from lumix import Kind

NAME = "cutmix"
TITLE = "CutMix"
PEERS = "timm's Mixup (elem, pair, batch), torchvision v2.CutMix (one box), the copy of a batch"
SMALL = (
    "each of 1 024 samples takes 1 to 2 microseconds to be addressed from Python and the draws 0.4 ms, whatever the "
    "bytes, while copying the batch takes 0.5 ms (uint8: 0.07)"
)
LARGE = "lumix takes what a copy of the batch takes, and timm's whole time is 8 copies (uint8: 5) on this machine"
ONE_BOX = "of bytes timm's whole batch takes 0.15 to 0.2 ms, a fifth of which the draws and the record take in lumix"


def goals(cell: Cell, timings: Timings) -> list[Goal]:
    large, bytes_ = cell.side == 224, cell.dtype == torch.uint8
    why: dict[str, Any] = {"why": LARGE} if large else {"why": SMALL, "quick": 100 if bytes_ else 12}
    return [
        faster(timings, "timm elem", 10 if not large else 4 if bytes_ else 8, why=why["why"]),
        within(timings, FLOOR, 1.5 if large else 5, **why),
    ]


cases = MixingRow(Kind.BOX, "box", (torch.float32, torch.uint8), goals, ONE_BOX).cases
