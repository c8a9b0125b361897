"""Test images by batch, from memory or from files that workers read; nothing here is random."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import CenterCrop, Compose, Normalize, Resize, ToTensor

from training.config import Data
from training.data.files import ignore_signals
from training.data.sets import ImageSet, load, normalise

Card = Mapping[str, Any]  # of a trained model: its model.json
Device = torch.device | str
Statistics = Sequence[float]


def robustness_transform(image_size: int, mean: Statistics, std: Statistics) -> Compose:
    """P-rob of evaluation.md 0: shorter side to 8/7 of the size, bilinear; centre crop; normalisation."""
    resized = [Resize(image_size * 256 // 224), CenterCrop(image_size)]
    return Compose([*resized, ToTensor(), Normalize(tuple(mean), tuple(std))])


def squeeze_transform(image_size: int, mean: Statistics, std: Statistics) -> Compose:
    """The whole picture at `image_size` x `image_size`, bilinear, its aspect given up; normalisation."""
    return Compose([Resize((image_size, image_size)), ToTensor(), Normalize(tuple(mean), tuple(std))])


def batches(
    dataset: Dataset[Any], batch_size: int, collate: Callable[[list[Any]], Any] | None = None, workers: int = -1
) -> Iterator[Any]:
    """The samples in order, in batches; workers -1 is one for each usable core where the set is worth the start."""
    if workers < 0:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        workers = cores if len(dataset) > 4 * batch_size else 0  # type: ignore[arg-type]
    yield from DataLoader(
        dataset,
        batch_size=batch_size,
        num_workers=workers,
        collate_fn=collate,
        worker_init_fn=ignore_signals,
        generator=torch.Generator().manual_seed(0),  # for seeds of workers, which nothing uses: not the global one
    )


def test_images(card: Card) -> ImageSet:
    """The clean test set of a model held in memory, from its card; ValueError where its files are missing."""
    return load(Data(card["data"], card["image_size"]))[1]


def normalised(images: Tensor, card: Card) -> Tensor:
    """uint8 images [B, C, H, W] as the model of a card was trained on, float32."""
    return normalise(images, tuple(card["mean"]), tuple(card["std"]))


def resident_batches(images: ImageSet, card: Card) -> Iterator[tuple[Tensor, ImageSet]]:
    """A set in memory in order, 500 images at a time: normalised, and as they are with boxes and masks."""
    for start in range(0, len(images), 500):
        part = images[start : start + 500]
        yield normalised(part.images, card), part


def class_masks(images: ImageSet) -> Tensor:
    """Which class each pixel shows, uint8 [N, H, W] of a set with masks: 0 the ground, 1 + label the object."""
    assert images.masks is not None
    return images.masks * (images.labels + 1).to(torch.uint8).view(-1, 1, 1)
