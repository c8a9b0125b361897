"""Patch shuffling (LUMix Table 7; Naseer et al. 2021): accuracy when the image is cut into a grid and permuted."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from evaluation.arguments import AVERAGED, GRIDS
from evaluation.evaluation import Outcome
from evaluation.images import Card, Device, accuracies
from lumix.inputs import checked
from lumix.mixers.paste import permute_grid
from lumix.random import moved
from training.rng import stream_seed


def shuffle_grid(images: Tensor, order: Tensor, rows: int, columns: int) -> Tensor:
    """Patch i (row by row) of images [B, C, H, W] becomes the old patch order[i]; order [patches] or [B, patches]."""
    return permute_grid(images, moved(order, images.device).expand(len(images), -1), rows, columns)


def drive(model: nn.Module, card: Card, arguments: Mapping[str, Any], device: Device) -> Outcome:
    """Top-1 as grid_<patches> for each of the grids, and "average", the mean over those grids that the paper averages.

    Arguments: "grids", numbers of patches; "draw", whether a batch shares a permutation or each image has its own;
    "repetitions" of these draws; "seed" of them; "batch" in images.
    """
    checked("draw", arguments["draw"], Annotated[str, ("per_batch", "per_image")])

    def shuffled(place: int, images: Tensor, labels: Tensor) -> Iterator[tuple[str, Tensor]]:
        for grid in arguments["grids"]:
            for repetition in range(arguments["repetitions"]):
                seed = stream_seed(arguments["seed"], repetition, place, grid, "shuffling")
                sets = 1 if arguments["draw"] == "per_batch" else len(images)
                order = torch.rand(sets, grid, generator=torch.Generator().manual_seed(seed)).argsort(dim=1)
                yield f"grid_{grid}", images if grid == 1 else shuffle_grid(images, order, *GRIDS[grid])

    values, samples = accuracies(model, card, device, arguments["batch"], shuffled)
    averaged = [values[f"grid_{grid}"] for grid in arguments["grids"] if grid in AVERAGED]
    return Outcome(values | {"average": sum(averaged) / len(averaged)}, samples)
