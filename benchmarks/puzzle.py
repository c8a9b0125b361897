"""Row 5: Puzzle-Mix's mask and transport against its published algorithm, written down plainly (puzzle_reference.py).

100 images; saliency is given, as the network's part is the same for all. The authors' own code is no package and is not
run here; the plain reading makes the same dense plans and multiplies with them, and its cuts are the same minimum.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks import puzzle_reference
from benchmarks.measure import Setting, Work, compare
from benchmarks.rows import Case, Skipped, faster, timed_case
from lumix.mixers.puzzlemix import IMAGENET_STD, PuzzleDraws, PuzzleMix

NAME = "puzzle"
TITLE = "Puzzle-Mix without the network: mask and transport"
PEERS = (
    "the published algorithm, written plainly: exact cuts by SciPy, or the authors' swap moves where gco is installed"
)
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


def cases(setting: Setting) -> Iterator[Case]:
    sides = (32,) if setting.quick else (32, 64)
    for side in sides:
        for grid in (8, 16):
            yield one_case(side, grid, setting)


def one_case(side: int, grid: int, setting: Setting) -> Case:
    try:
        import scipy  # noqa: F401 - asked for by name, not by a failure in the middle
    except ImportError as error:
        raise Skipped("SciPy, which cuts the graphs of both, is not installed: pip install scipy") from error
    images, labels, partner, saliency = batch(side)
    mixer = PuzzleMix(transport_size=LARGEST_CELL, std=IMAGENET_STD)

    def plainly(solver: str) -> tuple[Tensor, Tensor, Tensor]:
        mask = puzzle_reference.batch_mask(images, partner, LAM, grid, saliency, IMAGENET_STD, solver=solver)
        return mask, *puzzle_reference.batch_transport(images, partner, mask, saliency, transport_size=LARGEST_CELL)

    device_images, device_labels, device_partner, device_saliency = (
        x.to(setting.device) for x in (images, labels, partner, saliency)
    )

    draws = PuzzleDraws(device_partner, LAM, grid)
    check_equal(mixer, plainly("maxflow"), (images, labels, partner, saliency), grid)
    rivals: dict[str, Work] = {
        PLAIN: lambda: plainly("maxflow"),
        "lumix": lambda: mixer.apply(device_images, device_labels, draws, saliency=device_saliency),
    }
    skipped = {}
    try:
        import gco  # noqa: F401

        rivals["published, gco"] = lambda: plainly("gco")
    except ImportError:
        skipped["published, gco"] = "gco-wrapper is not installed: pip install gco-wrapper"
    if setting.quick or side > 32:
        rivals.pop("published, gco", None)  # as slow, and without a target
    timings = compare(rivals, setting)
    target = 20 if setting.device == "cuda" else TARGETS[grid]
    goals = [faster(timings, PLAIN, target)]
    if "published, gco" in rivals:
        goals.append(faster(timings, "published, gco", None))
    return timed_case(
        f"{SIZE} images of {side} px, grid {grid}, moved by {min(LARGEST_CELL, side // grid)} px",
        timings,
        goals,
        skipped,
    )


def check_equal(
    mixer: PuzzleMix,
    expected: tuple[Tensor, Tensor, Tensor],
    given: tuple[Tensor, Tensor, Tensor, Tensor],
    grid: int,
) -> None:
    """Raise AssertionError unless masks, images and label weights are those of the published algorithm."""
    images, labels, partner, saliency = given
    mask, mixed, own_weight = expected
    torch.testing.assert_close(mixer.mask(images, partner, LAM, grid, saliency), mask, rtol=0, atol=0)
    found = mixer.apply(images, labels, PuzzleDraws(partner, LAM, grid), saliency=saliency)
    torch.testing.assert_close(found.images, mixed, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.own_weight, own_weight, rtol=0, atol=1e-6)
