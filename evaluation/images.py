"""Test images by batch, from memory or from files that workers read, and counts of correct answers; no draws."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import CenterCrop, Compose, Normalize, Resize, ToTensor

from training.config import Data
from training.data.files import file_set, ignore_signals
from training.data.sets import ImageSet, is_resident, load, normalise

Card = Mapping[str, Any]  # of a trained model: its model.json
Device = torch.device | str
Statistics = Sequence[float]
# (place of the batch, images, labels) -> (name, corrupted images), any number of each name
Corruptions = Callable[[int, Tensor, Tensor], Iterable[tuple[str, Tensor]]]


def robustness_transform(size: int, mean: Statistics, std: Statistics) -> Compose:
    """P-rob (Naseer et al.): shorter side to 8/7 of the size, bilinear; centre crop; normalisation."""
    return Compose([Resize(size * 256 // 224), CenterCrop(size), ToTensor(), Normalize(tuple(mean), tuple(std))])


def squeeze_transform(size: int, mean: Statistics, std: Statistics) -> Compose:
    """The whole picture at `size` x `size`, bilinear, its aspect given up; normalisation."""
    return Compose([Resize((size, size)), ToTensor(), Normalize(tuple(mean), tuple(std))])


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


def pixel_batches(card: Card, device: Device, batch_size: int) -> Iterator[tuple[int, Tensor, Tensor]]:
    """The test set in order: place of the batch, images [B, C, S, S] in [0, 1], labels [B] int64.

    Corruptions act on these pixels, before normalisation. Sets in memory come as they are, those read from files
    through P-rob (Naseer et al.).
    """
    loaded: Iterable[tuple[Tensor, Tensor]]
    if is_resident(card["data"]):
        images = test_images(card)
        parts = (images[start : start + batch_size].to(device) for start in range(0, len(images), batch_size))
        loaded = ((part.images.float() / 255, part.labels) for part in parts)
    else:
        unnormalised = robustness_transform(card["image_size"], (0.0,) * 3, (1.0,) * 3)
        loaded = batches(file_set(card["data"], "val", unnormalised), batch_size)
    for place, (pixels, labels) in enumerate(loaded):
        yield place, pixels.to(device), labels.to(device)


def normaliser(card: Card, device: Device) -> Callable[[Tensor], Tensor]:
    """Images [B, C, H, W] in [0, 1] -> as the model was trained on; differentiable."""
    mean, std = (torch.tensor(card[name], device=device).view(1, -1, 1, 1) for name in ("mean", "std"))
    return lambda images: (images - mean) / std


def correct(logits: Tensor, labels: Tensor) -> Tensor:
    """[B] bool, whether the largest of logits [B, C], of equal ones the first, is that of the label [B]."""
    if not bool(logits.isfinite().all()):
        raise ValueError("the model's scores are not all finite numbers: its weights are damaged")
    return logits.argmax(dim=1) == labels


def accuracies(
    model: nn.Module, card: Card, device: Device, batch_size: int, corrupt: Corruptions
) -> tuple[dict[str, float], int]:
    """Top-1 in percent by name of corruption, over all that `corrupt` makes of `pixel_batches`, and the number of
    images; what it yields unchanged, the very batch, is judged once."""
    hits, seen, normalise = Counter[str](), Counter[str](), normaliser(card, device)

    @torch.inference_mode()
    def right(images: Tensor, labels: Tensor) -> int:
        return int(correct(model(normalise(images)), labels).sum())

    for place, images, labels in pixel_batches(card, device, batch_size):
        clean = right(images, labels)
        for name, corrupted in (("", images), *corrupt(place, images, labels)):
            hits[name] += clean if corrupted is images else right(corrupted, labels)
            seen[name] += len(labels)
    if not seen:
        raise ValueError(f"the test set of {card['data']} holds no images: put them under the data root")
    return {name: 100 * hits[name] / seen[name] for name in seen if name}, seen[""]
