"""Feeds: the batches of a run, for training by (epoch, update) and for evaluation, on the device and normalised."""

from typing import Any

import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from lumix.registry import part_of
from lumix.semi.views import Views
from training.config import Execution, Run
from training.data import is_resident, labelled_rows
from training.folder import (
    EndlessSampler,
    EpochSampler,
    FileSet,
    device_augmentation,
    first_share,
    ignore_signals,
    image_folder,
    labels_of,
    named,
    train_loader,
)
from training.process import Process
from training.resident_feed import Batches, ResidentFeed, updates_per_epoch
from training.rng import epoch_order, step_generator
from training.run_directory import RunError
from training.semi_feed import SemiFeed


class FolderFeed:
    """ImageNet or a fine-grained set from files: decoded and augmented by worker processes, each image by its own seed.

    With pipeline "fast" the workers only decode and crop, and training batches are augmented on the device.
    """

    in_chans = 3
    mean: tuple[float, ...] = IMAGENET_DEFAULT_MEAN
    std: tuple[float, ...] = IMAGENET_DEFAULT_STD

    def __init__(self, run: Run, seed: int, process: Process, execution: Execution, views: int = 0) -> None:
        whole, test = image_folder(run.data, "train", views), image_folder(run.data, "val")
        if whole.classes != test.classes:
            raise RunError(
                f"the train and val folders of imagenet do not hold the same classes ({len(whole.classes)} and "
                f"{len(test.classes)}): give both one folder per class"
            )
        self.num_classes = len(whole.classes)
        train: Dataset[Any] = whole
        n, self.subset = len(whole), ""
        if run.data.share < 1 or run.data.labels:
            chosen = first_share(n, run.data.share)
            if run.data.labels:
                chosen = labelled_rows(labels_of(whole), self.num_classes, run.data.labels, seed).tolist()
            train, self.subset, n = Subset(whole, chosen), named(n, chosen), len(chosen)
        self.updates_per_epoch = updates_per_epoch(n, run, process.world)
        place = seed, process.rank, process.world
        self.sampler: EpochSampler | EndlessSampler = (
            EndlessSampler(n, run.batch_size, run.epoch_steps, *place)
            if run.epoch_steps
            else EpochSampler(n, run.batch_size, *place, run.data.repeats)
        )
        self.seed, self.rank, self.device = seed, process.rank, process.device
        self.augmentation = device_augmentation(run.data) if run.data.pipeline == "fast" else None
        self.loader = train_loader(train, self.sampler, execution.workers)
        self.test_loader = _test_loader(test, run, process, execution.workers)

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
        def move(tensor: Tensor) -> Tensor:
            return tensor.to(self.device, non_blocking=True)

        for images, labels in loader:  # images, or several views of them
            yield move(images) if isinstance(images, Tensor) else tuple(map(move, images)), move(labels)


def _test_loader(test: FileSet, run: Run, process: Process, workers: int) -> DataLoader[Any]:
    """This process's share of the test images, in batches of twice as many as in training."""
    # Folders come class by class: where neighbours are to be mixed, they are shuffled, once and for all runs.
    order = epoch_order(len(test), seed=0, epoch=0).tolist() if run.count_mixed else range(len(test))
    return DataLoader(
        Subset(test, order[process.rank :: process.world]),
        batch_size=2 * run.batch_size // process.world,
        num_workers=workers,
        worker_init_fn=ignore_signals,
        pin_memory=process.device.type == "cuda",
        generator=torch.Generator().manual_seed(0),
    )


class SemiFolderFeed(FolderFeed):
    """`Data.labels` images of a set of files with their labels, and all without, in weak views of either.

    As of `SemiFeed`, both are passes without end and `train` gives (`Views`, labels [B]).
    """

    def __init__(self, run: Run, seed: int, process: Process, execution: Execution) -> None:
        part = part_of(run.task)
        if "strong" in part.unlabelled:
            raise RunError(
                f"{part.name} takes strong views, which are made of sets held in memory alone, and {run.data.name} "
                f"is read from files: use another task"
            )
        super().__init__(run, seed, process, execution, views=len(part.labelled))
        everything, size = (
            image_folder(run.data, "train", len(part.unlabelled)),
            getattr(run.task, "ratio", 1) * run.batch_size,
        )
        place = seed, process.rank, process.world
        self.others = EndlessSampler(len(everything), size, self.updates_per_epoch, *place, "unlabelled")
        self.other_loader = train_loader(everything, self.others, execution.workers, "sample unlabelled")

    def train(self, epoch: int, start: int) -> Batches:
        self.others.set_epoch(epoch, start * self.others.batch_size)
        others = self._on_device(self.other_loader)
        for (labelled, labels), (unlabelled, _) in zip(super().train(epoch, start), others, strict=True):
            yield Views(labelled, unlabelled), labels


Feed = ResidentFeed | FolderFeed


def build_feed(run: Run, seed: int, process: Process, execution: Execution) -> Feed:
    """The feed of a run for this process."""
    semi = bool(part_of(run.task).unlabelled)
    if is_resident(run.data.name):
        return (SemiFeed if semi else ResidentFeed)(run, seed, process)
    return (SemiFolderFeed if semi else FolderFeed)(run, seed, process, execution)
