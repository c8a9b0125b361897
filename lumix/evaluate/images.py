"""Pictures from files, one at a time in workers and normalised in batches; nothing here is random."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import CenterCrop, Compose, Normalize, Resize, ToTensor

from lumix.train.folder import ignore_signals

Statistics = Sequence[float]


def robustness_transform(image_size: int, mean: Statistics, std: Statistics) -> Compose:
    """P-rob of evaluation.md 0: shorter side to 8/7 of the size, bilinear; centre crop; normalisation."""
    return Compose(
        [Resize(image_size * 256 // 224), CenterCrop(image_size), ToTensor(), Normalize(tuple(mean), tuple(std))]
    )


def squeeze_transform(image_size: int, mean: Statistics, std: Statistics) -> Compose:
    """The whole picture at `image_size` x `image_size`, bilinear, its aspect given up; normalisation."""
    return Compose([Resize((image_size, image_size)), ToTensor(), Normalize(tuple(mean), tuple(std))])


def batches(
    dataset: Dataset[Any], batch_size: int, collate: Callable[[list[Any]], Any] | None = None, workers: int = -1
) -> Iterator[Any]:
    """The samples in order, in batches.

    Args:
        workers: processes that read; -1 is one for each usable core where the set is worth the start.
    """
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


@torch.inference_mode()
def logits_of(model: nn.Module, dataset: Dataset[Any], device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Logits [N, C] float32 and labels [N] int64 of (normalised image, label) pairs, on the CPU."""
    found = [(model(images.to(device)).float().cpu(), labels) for images, labels in batches(dataset, 256)]
    if not found:
        raise ValueError("there is no image to evaluate: put the data set under the data root, or set LUMIX_DATA")
    logits, labels = zip(*found, strict=True)
    return torch.cat(logits), torch.cat(labels)
