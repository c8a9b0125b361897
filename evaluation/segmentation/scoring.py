"""Semantic segmentation (LUMix Table 4): mIoU and mAcc as mmseg counts them, sliding windows, scales and flips.

The driver fine-tunes the pre-trained weights of a run with a decoder on top (`training`), seeded by the
run's own seed, and scores the segmentations of the test set. The metrics know nothing of models.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad
from torch.utils.data import default_collate

from evaluation.evaluation import Outcome
from evaluation.images import Card, Device, normalised
from evaluation.segmentation.data import IGNORE, Scenes, load_scenes
from evaluation.segmentation.recipe import Recipe
from evaluation.segmentation.training import fine_tune

RATIOS = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)  # of mIoU (MS), each also mirrored
SHOWN, SHOWN_PIXELS = 6, 64  # segmentations kept for a figure, thinned out to so many pixels a side
PIXELS = 2**20  # of one batch of windows, which bounds the memory that testing takes

Segment = Callable[[Tensor], Tensor]  # images [B, 3, H, W] -> logits [B, classes, H, W]


def confusion(prediction: Tensor, truth: Tensor, num_classes: int) -> Tensor:
    """Pixels by true class (rows) and predicted class (columns), int64 [num_classes, num_classes].

    Both of integers of one shape; truth is `IGNORE` where a pixel does not count.
    """
    counted = truth != IGNORE
    places = truth[counted].long() * num_classes + prediction[counted]
    return torch.bincount(places, minlength=num_classes**2).view(num_classes, num_classes)


def mean_iou(matrix: Tensor) -> float:
    """mIoU in percent: mean of intersection over union over the classes that are true or predicted somewhere."""
    shared = matrix.diagonal().double()
    union = matrix.sum(0) + matrix.sum(1) - shared
    return float((shared / union)[union > 0].mean() * 100)


def mean_accuracy(matrix: Tensor) -> float:
    """mAcc in percent: mean over the classes that are true somewhere of the share of their pixels that is found."""
    area = matrix.sum(1)
    return float((matrix.diagonal().double() / area)[area > 0].mean() * 100)


def target_size(height: int, width: int, base: float, window: int) -> tuple[int, int]:
    """The size that an image is resized to: longer side `base`; where that leaves the shorter side below the window,
    shorter side `window`. The aspect is kept."""
    factor = base / max(height, width)
    if min(int(height * factor + 0.5), int(width * factor + 0.5)) < window:
        factor = window / min(height, width)
    return int(height * factor + 0.5), int(width * factor + 0.5)


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """Where windows begin along a side, not shorter than one; the last one ends at the last pixel."""
    return [min(i * stride, length - window) for i in range(math.ceil((length - window) / stride) + 1)]


def slide(model: Segment, images: Tensor, window: int, stride: int) -> Tensor:
    """Logits [B, K, H, W] of images [B, C, H, W] from square windows, averaged where windows overlap."""
    batch, _, height, width = images.shape
    places = [(y, x) for y in window_starts(height, window, stride) for x in window_starts(width, window, stride)]
    crops = torch.cat([images[:, :, y : y + window, x : x + window] for y, x in places])
    logits = torch.cat([model(part) for part in crops.split(max(1, PIXELS // window**2))])
    total = logits.new_zeros(batch, logits.shape[1], height, width)
    count = logits.new_zeros(1, 1, height, width)
    for (y, x), part in zip(places, logits.split(batch), strict=True):
        total[:, :, y : y + window, x : x + window] += part
        count[:, :, y : y + window, x : x + window] += 1
    return total / count


def probabilities(model: Segment, images: Tensor, size: tuple[int, int], flip: bool, recipe: Recipe) -> Tensor:
    """Softmax maps [B, K, H, W] at the size of the images, which are shown resized to `size`, mirrored if `flip`."""
    shape = (images.shape[2], images.shape[3])
    seen = images if size == shape else interpolate(images, size, mode="bilinear", align_corners=False)
    logits = slide(model, seen.flip(3) if flip else seen, recipe.crop, recipe.stride)
    if bool(logits.isnan().any()):
        raise ValueError("the segmentation model gives NaN: its training diverged, lower Recipe.lr")
    maps = (logits.flip(3) if flip else logits).float().softmax(dim=1)
    return maps if size == shape else interpolate(maps, shape, mode="bilinear", align_corners=False)


def segment(model: Segment, images: Tensor, recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Segmentations of normalised images at one scale, and over all `RATIOS`, mirrored and not; both int64 [B, H, W].

    Ratios that give equal sizes are computed once and weigh as many times.
    """
    height, width = images.shape[2:]
    single = target_size(height, width, recipe.base, recipe.crop)
    sizes = Counter(target_size(height, width, recipe.base * ratio, recipe.crop) for ratio in RATIOS)
    first = probabilities(model, images, single, False, recipe)
    total = torch.zeros_like(first)
    for size, weight in sizes.items():
        plain = first if size == single else probabilities(model, images, size, False, recipe)
        total += weight * (plain + probabilities(model, images, size, True, recipe))
    return first.argmax(1), total.argmax(1)


def batches(scenes: Scenes, count: int, limit: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The first `count` scenes in order as (images uint8 [B, 3, H, W], masks uint8 [B, H, W]), neighbours of equal size
    together, at most `limit` of them."""
    group: list[tuple[Tensor, Tensor]] = []
    for index in range(count):
        scene = scenes[index]
        if group and (scene[1].shape != group[0][1].shape or len(group) == limit):
            yield default_collate(group)
            group = []
        group.append(scene)
    yield default_collate(group)


def thinning(shape: Sequence[int]) -> int:
    """Distance between the pixels of a segmentation that are kept for a figure."""
    return math.ceil(max(shape) / SHOWN_PIXELS)


def stacked(maps: Sequence[Tensor]) -> np.ndarray:
    """Maps [h, w] of any sizes as one array [N, H, W] of the largest, `IGNORE` below and on the right."""
    height, width = (max(shape) for shape in zip(*(each.shape for each in maps), strict=True))
    padded = [pad(each, (0, width - each.shape[1], 0, height - each.shape[0]), value=IGNORE) for each in maps]
    return torch.stack(padded).numpy()


@torch.no_grad()
def score(model: nn.Module, scenes: Scenes, recipe: Recipe, card: Card, device: Device) -> Outcome:
    """mAcc, mIoU and mIoU (MS) of a trained segmentation model on the first `recipe.test_size` scenes."""
    count = min(recipe.test_size or len(scenes), len(scenes))
    single = several = torch.zeros(scenes.num_classes, scenes.num_classes, dtype=torch.int64)
    shown: list[Tensor] = []
    for images, masks in batches(scenes, count, max(1, PIXELS // 4 // recipe.base**2)):
        pixels = normalised(images.to(device), card)
        plain, averaged = (labels.cpu() for labels in segment(model, pixels, recipe))
        single = single + confusion(plain, masks, scenes.num_classes)
        several = several + confusion(averaged, masks, scenes.num_classes)
        for labels in plain[: SHOWN - len(shown)]:
            step = thinning(labels.shape)
            shown.append(labels[::step, ::step].to(torch.uint8))
    values = {"macc": mean_accuracy(single), "miou": mean_iou(single), "miou_ms": mean_iou(several)}
    return Outcome(values, count, {"examples": stacked(shown), "confusion": single.numpy()})


def drive(model: nn.Module, card: Card, arguments: Mapping[str, Any], device: Device) -> Outcome:
    """Fine-tune a copy of a run's network for segmentation and score it: "macc", "miou", "miou_ms" in percent.

    Equal weights, seed of the run and arguments, {"recipe": the dictionary of a `Recipe`}, give equal numbers on the
    same hardware (CPU: always).
    """
    recipe = Recipe.from_dict(arguments["recipe"])
    train, test = load_scenes(recipe.data)
    return score(fine_tune(model, card, recipe, train, device), test, recipe, card, device)
