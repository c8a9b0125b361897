"""Feeds: the batches of a run, for training by (epoch, update) and for evaluation, on the device and normalised."""

from collections.abc import Iterator
from typing import Any

import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from lumix.train.config import Execution, Run
from lumix.train.data import augment, is_resident, load, normalise
from lumix.train.folder import (
    EpochSampler,
    device_augmentation,
    first_share,
    ignore_signals,
    image_folder,
    train_loader,
)
from lumix.train.imageset import ImageSet
from lumix.train.process import Process
from lumix.train.rng import epoch_order, step_generator
from lumix.train.run_directory import RunError

EVALUATION_BATCH = 1000

Batches = Iterator[tuple[Tensor, Tensor]]


class ResidentFeed:
    """A small set that lives on the device as uint8; augmentation is batched there and there is no DataLoader.

    As of every feed, `train` gives this process's share of updates start, start + 1, ... of an epoch (both from 0), and
    `test` its share of the test set; `subset` names the images chosen by `Data.share`, "" where all train.
    """

    def __init__(self, run: Run, seed: int, process: Process) -> None:
        train, test = load(run.data)
        self.subset = train.fingerprint() if run.data.share < 1 else ""
        self.run, self.seed, self.process = run, seed, process
        self.train_set: ImageSet = train.to(process.device)
        self.test_set: ImageSet = test.to(process.device)[process.rank :: process.world]
        self.num_classes, self.in_chans = train.num_classes, train.images.shape[1]
        self.mean, self.std = train.mean, train.std
        self.updates_per_epoch = updates_per_epoch(len(train), run.batch_size, process.world)

    def train(self, epoch: int, start: int) -> Batches:
        size = self.run.batch_size
        order = epoch_order(len(self.train_set), self.seed, epoch).to(self.process.device)
        for update in range(start, self.updates_per_epoch):
            chosen = order[update * size : (update + 1) * size][self.process.rank :: self.process.world]
            step = epoch * self.updates_per_epoch + update
            generator = step_generator(self.seed, self.process.rank, step, "augment", self.process.device)
            images = augment(self.train_set.images[chosen], self.run.data, generator)
            yield normalise(images, self.mean, self.std), self.train_set.labels[chosen]

    def test(self) -> Batches:
        for start in range(0, len(self.test_set), EVALUATION_BATCH):
            part = self.test_set[start : start + EVALUATION_BATCH]
            yield normalise(part.images, self.mean, self.std), part.labels


def updates_per_epoch(images: int, batch_size: int, processes: int = 1) -> int:
    """Whole batches in an epoch; the rest is dropped.

    Raises:
        RunError: if there is not one, or it does not divide over the processes.
    """
    if batch_size > images:
        raise RunError(f"batch_size {batch_size} is larger than the {images} training images: choose a smaller one")
    if batch_size % processes:
        raise RunError(
            f"batch_size {batch_size} does not divide over {processes} processes: use a number of processes that "
            f"divides it"
        )
    return images // batch_size


class FolderFeed:
    """ImageNet or a fine-grained set from files: decoded and augmented by worker processes, each image by its own seed.

    With pipeline "fast" the workers only decode and crop, and training batches are augmented on the device.
    """

    in_chans = 3
    mean: tuple[float, ...] = IMAGENET_DEFAULT_MEAN
    std: tuple[float, ...] = IMAGENET_DEFAULT_STD

    def __init__(self, run: Run, seed: int, process: Process, execution: Execution) -> None:
        whole, test = image_folder(run.data, "train"), image_folder(run.data, "val")
        if whole.classes != test.classes:
            raise RunError(
                f"the train and val folders of imagenet do not hold the same classes ({len(whole.classes)} and "
                f"{len(test.classes)}): give both one folder per class"
            )
        self.num_classes = len(whole.classes)
        train: Dataset[Any] = whole
        n, self.subset = len(whole), ""
        if run.data.share < 1:
            chosen, self.subset = first_share(n, run.data.share)
            train, n = Subset(whole, chosen), len(chosen)
        self.updates_per_epoch = updates_per_epoch(n, run.batch_size, process.world)
        self.sampler = EpochSampler(n, run.batch_size, seed, process.rank, process.world, repeats=run.data.repeats)
        self.seed, self.rank, self.device = seed, process.rank, process.device
        self.augmentation = device_augmentation(run.data) if run.data.pipeline == "fast" else None
        self.loader = train_loader(train, self.sampler, execution.workers)
        # Folders come class by class: where neighbours are to be mixed, they are shuffled, once and for all runs.
        order = epoch_order(len(test), seed=0, epoch=0).tolist() if run.count_mixed else range(len(test))
        own: Subset[Any] = Subset(test, order[process.rank :: process.world])
        self.test_loader: DataLoader[Any] = DataLoader(
            own,
            batch_size=2 * run.batch_size // process.world,
            num_workers=execution.workers,
            worker_init_fn=ignore_signals,
            pin_memory=process.device.type == "cuda",
            generator=torch.Generator().manual_seed(0),
        )

    def train(self, epoch: int, start: int) -> Batches:
        self.sampler.set_epoch(epoch, start * self.sampler.batch_size)
        batches = self._on_device(self.loader)
        if self.augmentation is None:
            yield from batches
            return
        for step, (images, labels) in enumerate(batches, epoch * self.updates_per_epoch + start):
            generator = step_generator(self.seed, self.rank, step, "augment")
            yield self.augmentation(images.permute(0, 3, 1, 2), generator), labels

    def test(self) -> Batches:
        yield from self._on_device(self.test_loader)

    def _on_device(self, loader: DataLoader[Any]) -> Batches:
        for images, labels in loader:
            yield images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)


Feed = ResidentFeed | FolderFeed


def build_feed(run: Run, seed: int, process: Process, execution: Execution) -> Feed:
    """The feed of a run for this process."""
    if is_resident(run.data.name):
        return ResidentFeed(run, seed, process)
    return FolderFeed(run, seed, process, execution)
