"""Patch shuffling (LUMix Table 7; Naseer et al. 2021): accuracy when the image is cut into a grid and permuted."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from evaluation.evaluation import Outcome
from evaluation.images import Card, Device
from evaluation.robustness.accuracy import DRAWS, count_correct, normaliser, percent, pixel_batches
from evaluation.robustness.grids import AVERAGED, GRIDS
from lumix.checks import check_choice
from lumix.mixers.patches import permute_grid
from training.rng import stream_seed


def shuffle_grid(images: Tensor, order: Tensor, rows: int, columns: int) -> Tensor:
    """Patch i (row by row) of images [B, C, H, W] becomes the old patch order[i]; order [B or 1, patches] or [patches].

    Raises:
        ValueError: where the grid does not divide the image, or the order has another length.
    """
    height, width = images.shape[2:]
    if height % rows or width % columns:
        raise ValueError(f"a grid of {rows} x {columns} does not divide an image of {height} x {width} pixels")
    if order.shape[-1] != rows * columns:
        raise ValueError(
            f"order must have {rows * columns} entries for {rows} x {columns} patches, not {order.shape[-1]}"
        )
    return permute_grid(images, order.to(images.device).expand(len(images), -1), rows, columns)


def drive(model: nn.Module, card: Card, arguments: Mapping[str, Any], device: Device) -> Outcome:
    """Top-1 as grid_<patches> for each of the grids, and "average", the mean over those grids that the paper averages.

    Arguments: "grids", numbers of patches; "draw", whether a batch shares a permutation or each image has its own;
    "repetitions" of these draws; "seed" of them; "batch" in images.
    """
    check_choice("draw", arguments["draw"], DRAWS)
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
