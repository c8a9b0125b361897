"""ResidentFeed: batches of a small set that is held in memory."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from training.config import Run
from training.data import augment, labelled_rows, load, normalise
from training.imageset import ImageSet
from training.process import Process
from training.rng import endless_batches, epoch_order, step_generator
from training.run_directory import RunError

EVALUATION_BATCH = 1000

Batches = Iterator[tuple[Any, Tensor]]  # images [B, C, H, W], or views of them, and labels [B]


class ResidentFeed:
    """A small set that lives on the device as uint8; augmentation is batched there and there is no DataLoader.

    As of every feed, `train` gives this process's share of updates start, start + 1, ... of an epoch (both from 0), and
    `test` its share of the test set; `subset` names the images chosen by `Data.share` or `Data.labels`, "" where all
    train.
    """

    def __init__(self, run: Run, seed: int, process: Process) -> None:
        train, test = load(run.data)
        self.run, self.seed, self.process = run, seed, process
        count = run.data.labels
        labelled = train[labelled_rows(train.labels, train.num_classes, count, seed)] if count else train
        self.subset = labelled.fingerprint() if run.data.share < 1 or run.data.labels else ""
        self.train_set: ImageSet = labelled.to(process.device)
        self.test_set: ImageSet = test.to(process.device)[process.rank :: process.world]
        self.num_classes, self.in_chans = train.num_classes, train.images.shape[1]
        self.mean, self.std = train.mean, train.std
        self.updates_per_epoch = updates_per_epoch(len(labelled), run, process.world)

    def train(self, epoch: int, start: int) -> Batches:
        first = epoch * self.updates_per_epoch
        for step, chosen in zip(
            range(first + start, first + self.updates_per_epoch), self.rows(epoch, start), strict=False
        ):
            images = self.weak(self.train_set.images[chosen], step, "augment")
            yield images, self.train_set.labels[chosen]

    def steps(self, epoch: int, start: int) -> range:
        """Updates start, start + 1, ... of an epoch, counted from the first of the run."""
        return range(epoch * self.updates_per_epoch + start, (epoch + 1) * self.updates_per_epoch)

    def rows(self, epoch: int, start: int) -> Iterator[Tensor]:
        """This process's rows of the training set for updates start, start + 1, ... of an epoch."""
        size, n = self.run.batch_size, len(self.train_set)
        if self.run.epoch_steps:
            batches = endless_batches(n, size, self.seed, self.steps(epoch, start).start)
        else:
            batches = iter(epoch_order(n, self.seed, epoch)[start * size :].split(size))
        return self.share(batches)

    def share(self, batches: Iterator[Tensor]) -> Iterator[Tensor]:
        """This process's part of each batch of rows, on its device."""
        return (rows.to(self.process.device)[self.process.rank :: self.process.world] for rows in batches)

    def weak(self, images: Tensor, step: int, stream: str) -> Tensor:
        """Images uint8 augmented as `Data` says, by a stream of an update, and normalised."""
        generator = step_generator(self.seed, self.process.rank, step, stream, self.process.device)
        return normalise(augment(images, self.run.data, generator), self.mean, self.std)

    def test(self) -> Batches:
        for start in range(0, len(self.test_set), EVALUATION_BATCH):
            part = self.test_set[start : start + EVALUATION_BATCH]
            yield normalise(part.images, self.mean, self.std), part.labels


def updates_per_epoch(images: int, run: Run, processes: int = 1) -> int:
    """`Run.epoch_steps`, or where that is 0 the whole batches in a pass over the images; the rest is dropped.

    Raises:
        RunError: if there is not one, or it does not divide over the processes.
    """
    if run.batch_size > images and not run.epoch_steps:
        raise RunError(f"batch_size {run.batch_size} is larger than the {images} training images: choose a smaller one")
    if run.batch_size % processes:
        raise RunError(
            f"batch_size {run.batch_size} does not divide over {processes} processes: use a number of processes that "
            f"divides it"
        )
    return run.epoch_steps or images // run.batch_size
