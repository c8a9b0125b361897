"""Patch shuffling (LUMix Table 7; Naseer et al. 2021): accuracy when the image is cut into a grid and permuted."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lumix.evaluate.evaluation import Outcome
from lumix.evaluate.robustness.accuracy import check_draw, count_correct, normaliser, percent, pixel_batches
from lumix.evaluate.robustness.grids import AVERAGED, GRIDS
from lumix.train.rng import stream_seed


def shuffle_grid(images: Tensor, order: Tensor, rows: int, columns: int) -> Tensor:
    """Output patch i (row by row) is input patch order[i].

    Args:
        images: [B, C, H, W]; not changed.
        order: [rows x columns] int64 for all images alike, or [B, rows x columns] for each its own.

    Raises:
        ValueError: where the grid does not divide the image, or the order has another length.
    """
    batch, channels, height, width = images.shape
    if height % rows or width % columns:
        raise ValueError(f"a grid of {rows} x {columns} does not divide an image of {height} x {width} pixels")
    if order.shape[-1] != rows * columns:
        raise ValueError(
            f"order must have {rows * columns} entries for {rows} x {columns} patches, not {order.shape[-1]}"
        )
    high, wide = height // rows, width // columns
    patches = images.reshape(batch, channels, rows, high, columns, wide).permute(0, 2, 4, 1, 3, 5)
    patches = patches.reshape(batch, rows * columns, -1)
    index = order.to(images.device).expand(batch, -1).unsqueeze(-1).expand_as(patches)
    moved = patches.gather(1, index).view(batch, rows, columns, channels, high, wide)
    return moved.permute(0, 3, 1, 4, 2, 5).reshape(images.shape)


def drive(
    model: nn.Module, card: Mapping[str, Any], arguments: Mapping[str, Any], device: torch.device | str
) -> Outcome:
    """Top-1 as grid_<patches> for each of the grids, and "average", the mean over those grids that the paper averages.

    Arguments: "grids", numbers of patches; "draw", whether a batch shares a permutation or each image has its own;
    "repetitions" of these draws; "seed" of them; "batch" in images.
    """
    check_draw(arguments["draw"])
    normalise = normaliser(card, device)
    hits: Counter[str] = Counter()
    for place, images, labels in pixel_batches(card, device, arguments["batch"]):
        hits["samples"] += len(labels)
        clean = count_correct(model, normalise(images), labels)
        for grid in arguments["grids"]:
            rows, columns = GRIDS[grid]
            for repetition in range(arguments["repetitions"]):
                seed = stream_seed(arguments["seed"], repetition, place, grid, "shuffling")
                sets = 1 if arguments["draw"] == "per_batch" else len(images)
                draws = torch.rand(sets, grid, generator=torch.Generator().manual_seed(seed))
                shuffled = shuffle_grid(images, draws.argsort(dim=1), rows, columns)
                hits[f"grid_{grid}"] += clean if grid == 1 else count_correct(model, normalise(shuffled), labels)
    samples = hits["samples"] * arguments["repetitions"]
    values = {f"grid_{grid}": percent(hits[f"grid_{grid}"], samples) for grid in arguments["grids"]}
    averaged = [values[f"grid_{grid}"] for grid in arguments["grids"] if grid in AVERAGED]
    return Outcome(values | {"average": sum(averaged) / len(averaged)}, hits["samples"])
