"""Row of Puzzle-Mix's mask and transport against its published algorithm, as tests/puzzle_reference.py writes it.

100 images; saliency is given, as the network's part is the same for all. The authors' own code is no package and is not
run here; the plain reading makes the same dense plans and multiplies with them, and its cuts are the same minimum.
"""

import importlib.util
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.measure import Line, Setting, Skipped, compare, faster, times
from lumix.mixers.puzzlemix import IMAGENET_STD, PuzzleDraws, PuzzleMix

REFERENCE = Path(__file__).resolve().parents[1] / "tests" / "puzzle_reference.py"
SIZE, LAM, LARGEST_CELL = 100, 0.4, 4
PLAIN = "published algorithm"
TARGETS = {8: 8, 16: 10}


def batch(side: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images [B, 3, side, side], labels, partners, and saliency [B, side, side]: bright blobs on noise."""
    stream = torch.Generator().manual_seed(0)
    images = torch.randn(SIZE, 3, side, side, generator=stream)
    labels = torch.randint(10, (SIZE,), generator=stream)
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    centre = torch.randint(side, (2, SIZE, 1, 1), generator=stream)
    distance = ((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2) / (side / 4) ** 2
    saliency = torch.exp(-distance) + 0.2 * torch.rand(SIZE, side, side, generator=stream)
    return images, labels, torch.randperm(SIZE, generator=stream), saliency


def puzzle(setting: Setting) -> Iterator[Line]:
    if importlib.util.find_spec("scipy") is None:
        raise Skipped("SciPy, which cuts the graphs of both, is not installed: pip install scipy")
    reference = runpy.run_path(str(REFERENCE))
    for side, grid in ((32, 8), (32, 16)) if setting.quick else ((32, 8), (32, 16), (64, 8), (64, 16)):
        yield from one_case(side, grid, reference, setting)


def one_case(side: int, grid: int, reference: dict[str, Any], setting: Setting) -> Iterator[Line]:
    images, labels, partner, saliency = batch(side)
    cell = min(LARGEST_CELL, side // grid)
    mixer = PuzzleMix(transport_size=LARGEST_CELL, std=IMAGENET_STD)
    there = [x.to(setting.device) for x in (images, labels, partner, saliency)]

    def plainly() -> tuple[Tensor, Tensor, Tensor]:
        mask = reference["batch_mask"](images, partner, LAM, grid, saliency, IMAGENET_STD)
        return mask, *reference["batch_transport"](images, partner, mask, saliency, transport_size=LARGEST_CELL)

    def ours() -> object:
        return mixer.apply(there[0], there[1], PuzzleDraws(there[2], LAM, grid), saliency=there[3])

    mask, mixed, own_weight = plainly()
    torch.testing.assert_close(mixer.mask(images, partner, LAM, grid, saliency), mask, rtol=0, atol=0)
    found = mixer.apply(images, labels, PuzzleDraws(partner, LAM, grid), saliency=saliency)
    torch.testing.assert_close(found.images, mixed, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.own_weight, own_weight, rtol=0, atol=1e-6)
    case = f"{SIZE} images of {side} px, grid {grid}, moved by {cell} px"
    timings = compare({PLAIN: plainly, "lumix": ours}, setting)
    yield from times(case, timings)
    yield faster(case, timings, PLAIN, 20 if setting.device == "cuda" else TARGETS[grid])
