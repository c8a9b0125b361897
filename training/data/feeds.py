"""Feeds: the batches of a run, for training by (epoch, update) and for evaluation, on the device and normalised.

As of every feed, `train(epoch, start)` gives this process's share of updates start, start + 1, ... of an epoch (both
from 0), as images [B, C, H, W], or `Views` of labelled and unlabelled images, and labels [B]. `test()` gives its share
of the test set; `subset` names the images chosen by `Data.share` or `Data.labels`, "" where all train.
"""

import hashlib
import random
from collections.abc import Iterator
from itertools import repeat
from typing import Any

import numpy as np
import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, Subset

from lumix.random import moved
from lumix.registry import part_of
from lumix.semi import Views
from training.config import Execution, Run
from training.data.files import files_of_run, ignore_signals
from training.data.sets import ImageSet, augment, is_resident, load, normalise
from training.data.strong_views import cutout, rand_augment, strong_view
from training.process import Process
from training.rng import endless_batches, epoch_order, step_generator, stream_seed
from training.run_directory import RunError

EVALUATION_BATCH = 1000

Batches = Iterator[tuple[Any, Tensor]]
Address = tuple[int, int, int]  # (epoch or update, position in it, index of the image)


def updates_per_epoch(images: int, run: Run, processes: int = 1) -> int:
    """`Run.epoch_steps`, or where that is 0 the whole batches in a pass over the images; the rest is dropped."""
    if run.batch_size > images and not run.epoch_steps:
        raise RunError(f"batch_size {run.batch_size} is larger than the {images} training images: choose a smaller one")
    if run.batch_size % processes:
        raise RunError(
            f"batch_size {run.batch_size} does not divide over {processes} processes: use a number of processes that "
            f"divides it"
        )
    return run.epoch_steps or images // run.batch_size


class BatchSampler(Sampler[Address]):
    """The batches of an epoch over n images, and this process's share of them as addresses of single images.

    An epoch is a pass over the images, whose incomplete last batch is dropped; with `repeats` r each image stands r
    times in a row of it (DeiT's sampler), and an epoch keeps its number of updates, so it visits about n / r images.
    With `endless` an epoch is so many updates of passes without end. A `stream` has an order of its own. Each process
    takes every `world`-th image of a batch.
    """

    def __init__(
        self,
        n: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        *,
        repeats: int = 1,
        endless: int = 0,
        stream: str = "order",
    ) -> None:
        self.n, self.batch_size, self.seed, self.rank, self.world = n, batch_size, seed, rank, world
        self.repeats, self.endless, self.stream = repeats, endless, stream
        self.updates = endless or n // batch_size
        self.begin(0)

    def begin(self, epoch: int, start: int = 0) -> None:
        """Choose the epoch and the update of it (both from 0) with which iterators begin from now on."""
        self.epoch, self.start = epoch, start

    def batches(self) -> Iterator[Tensor]:
        """The rows [batch_size] int64 of each update, of all processes."""
        if self.endless:
            first = self.epoch * self.updates + self.start
            return endless_batches(self.n, self.batch_size, self.seed, first, self.stream)
        order = epoch_order(self.n, self.seed, self.epoch, self.stream).repeat_interleave(self.repeats)
        return iter(order[self.start * self.batch_size :].split(self.batch_size))

    def __iter__(self) -> Iterator[Address]:
        for update, rows in zip(range(self.start, self.updates), self.batches(), strict=False):
            for place in range(self.rank, self.batch_size, self.world):
                if self.endless:
                    yield self.epoch * self.updates + update, place, int(rows[place])
                else:
                    yield self.epoch, update * self.batch_size + place, int(rows[place])


class SeededDataset(Dataset[tuple[Any, Any]]):
    """A map-style dataset whose random transforms depend on (seed, address, stream) alone, not on workers or a resume.

    The random state of the process (random, numpy, torch) is afterwards as it was.
    """

    def __init__(self, dataset: Dataset[tuple[Any, Any]], seed: int, stream: str = "sample") -> None:
        self.dataset, self.seed, self.stream = dataset, seed, stream

    def __getitem__(self, address: Address) -> tuple[Any, Any]:
        *place, index = address
        value = stream_seed(self.seed, *place, self.stream)
        python_state, numpy_state = random.getstate(), np.random.get_state()
        with torch.random.fork_rng(devices=[]):
            random.seed(value)
            np.random.seed(value % 2**32)
            torch.default_generator.manual_seed(value)
            try:
                return self.dataset[index]
            finally:
                random.setstate(python_state)
                np.random.set_state(numpy_state)


class Feed:
    """What both kinds of feeds share: the views that the run's task asks for, and who takes which images."""

    subset, num_classes, in_chans, updates_per_epoch = "", 0, 3, 0
    mean: tuple[float, ...] = IMAGENET_DEFAULT_MEAN
    std: tuple[float, ...] = IMAGENET_DEFAULT_STD

    def __init__(self, run: Run, seed: int, process: Process) -> None:
        self.run, self.seed, self.process = run, seed, process
        part = part_of(run.task)
        self.labelled, self.unlabelled = part.labelled, part.unlabelled  # views: "weak" or "strong"

    def samplers(self, labelled: int, everything: int) -> tuple[BatchSampler, BatchSampler]:
        """Those of so many labelled images and, for a task that learns from unlabelled ones, of all images."""
        run, place = self.run, (self.seed, self.process.rank, self.process.world)
        self.updates_per_epoch = updates_per_epoch(labelled, run, self.process.world)
        size = run.batch_size * getattr(run.task, "ratio", 1)  # unlabelled images for each labelled one
        repeats, steps = run.data.repeats, run.epoch_steps
        own = BatchSampler(labelled, run.batch_size, *place, repeats=repeats, endless=steps)
        return own, BatchSampler(everything, size, *place, endless=steps or 1, stream="unlabelled")

    def train(self, epoch: int, start: int) -> Batches:
        raise NotImplementedError

    def test(self) -> Batches:
        raise NotImplementedError


class ResidentFeed(Feed):
    """A small set that lives on the device as uint8; augmentation is batched there and there is no DataLoader.

    A weak view is flipped and cropped as `Data` says; a strong one is that, then RandAugment (on grey images on three equal
    channels), then cutout by a grey square.
    """

    def __init__(self, run: Run, seed: int, process: Process) -> None:
        super().__init__(run, seed, process)
        train, test = load(run.data)
        count = run.data.labels
        chosen = train[labelled_rows(train.labels, train.num_classes, count, seed)] if count else train
        self.subset = chosen.fingerprint() if run.data.share < 1 or count else ""
        self.train_set: ImageSet = chosen.to(process.device)
        self.everything = train.images.to(process.device if self.unlabelled else "cpu")
        self.test_set: ImageSet = test.to(process.device)[process.rank :: process.world]
        self.num_classes, self.in_chans = train.num_classes, train.images.shape[1]
        self.mean, self.std = train.mean, train.std
        self.sampler, self.others = self.samplers(len(chosen), len(train))
        self.grey = tuple(round(255 * mean) for mean in self.mean)
        self.rand_augment = rand_augment(run.data.strong, self.grey * (3 // len(self.grey))) if run.data.strong else None

    def train(self, epoch: int, start: int) -> Batches:
        self.sampler.begin(epoch, start)
        self.others.begin(epoch, start)
        first, end = (epoch * self.updates_per_epoch + update for update in (start, self.updates_per_epoch))
        others = self.others.batches() if self.unlabelled else repeat(None)
        for step, rows, other in zip(range(first, end), self.sampler.batches(), others, strict=False):
            chosen = self._own(rows)
            images, labels = self.train_set.images[chosen], self.train_set.labels[chosen]
            if other is None:
                yield self._weak(images, step, "augment"), labels
                continue
            labelled = self._views(images, self.labelled, step, "augment")
            everything = self.everything[self._own(other)]
            yield Views(labelled, self._views(everything, self.unlabelled, step, "augment unlabelled")), labels

    def _own(self, rows: Tensor) -> Tensor:
        return moved(rows, self.process.device)[self.process.rank :: self.process.world]

    def _views(self, images: Tensor, kinds: tuple[str, ...], step: int, stream: str) -> tuple[Tensor, ...]:
        """The first view by the stream itself, the others by streams of their own."""
        streams = [stream, *(f"{stream} {number}" for number in range(1, len(kinds)))]
        makers = {"weak": self._weak, "strong": self._strong}
        return tuple(makers[kind](images, step, name) for kind, name in zip(kinds, streams, strict=True))

    def _weak(self, images: Tensor, step: int, stream: str) -> Tensor:
        """Images uint8 augmented as `Data` says, by a stream of an update, and normalised."""
        generator = step_generator(self.seed, self.process.rank, step, stream, self.process.device)
        return normalise(augment(images, self.run.data, generator), self.mean, self.std)

    def _strong(self, images: Tensor, step: int, stream: str) -> Tensor:
        """Images uint8 in a strong view, normalised; by the stream and, for small draws on the CPU, a second one."""
        data, rank, device = self.run.data, self.process.rank, self.process.device
        images = augment(images, data, step_generator(self.seed, rank, step, stream, device))
        generator = step_generator(self.seed, rank, step, f"{stream} strong")
        if self.rand_augment:
            images = strong_view(images.expand(-1, 3, -1, -1), self.rand_augment, generator)[:, : images.shape[1]]
        if data.cutout:
            images = cutout(images, data.cutout, self.grey, generator)
        return normalise(images, self.mean, self.std)

    def test(self) -> Batches:
        for start in range(0, len(self.test_set), EVALUATION_BATCH):
            part = self.test_set[start : start + EVALUATION_BATCH]
            yield normalise(part.images, self.mean, self.std), part.labels


class FolderFeed(Feed):
    """ImageNet or a fine-grained set from files: decoded and augmented by worker processes, each image by its own seed.

    Unlabelled images are in weak views alone.
    """

    def __init__(self, run: Run, seed: int, process: Process, execution: Execution) -> None:
        super().__init__(run, seed, process)
        if "strong" in self.unlabelled:
            raise RunError(
                f"{part_of(run.task).name} takes strong views, which are made of sets held in memory alone, and {run.data.name} "
                f"is read from files: use another task"
            )
        whole, others, test, labels = files_of_run(
            run.data, len(self.labelled) if self.unlabelled else 0, len(self.unlabelled)
        )
        if whole.classes != test.classes:
            raise RunError(
                f"the train and val folders of {run.data.name} do not hold the same classes ({len(whole.classes)} and "
                f"{len(test.classes)}): give both one folder per class"
            )
        self.num_classes = len(whole.classes)
        train: Dataset[Any] = whole
        n = len(whole)
        if run.data.share < 1 or run.data.labels:
            chosen = first_share(n, run.data.share)
            if run.data.labels:
                chosen = labelled_rows(labels, self.num_classes, run.data.labels, seed).tolist()
            train, self.subset, n = Subset(whole, chosen), name_of_rows(n, chosen), len(chosen)
        self.sampler, self.others = self.samplers(n, len(whole))
        self.loader = self._train_loader(train, self.sampler, execution.workers)
        if others is not None:
            self.other_loader = self._train_loader(others, self.others, execution.workers, "sample unlabelled")
        # Folders come class by class: where neighbours are to be mixed, they are shuffled, once and for all runs.
        order = epoch_order(len(test), seed=0, epoch=0).tolist() if run.count_mixed else range(len(test))
        self.test_loader = self._loader(
            Subset(test, order[process.rank :: process.world]), 2 * run.batch_size, execution.workers
        )

    def _train_loader(
        self, dataset: Dataset[Any], sampler: BatchSampler, workers: int, stream: str = "sample"
    ) -> DataLoader[Any]:
        seeded = SeededDataset(dataset, self.seed, stream)
        return self._loader(seeded, sampler.batch_size, workers, sampler=sampler, persistent_workers=workers > 0)

    def _loader(self, dataset: Dataset[Any], batch_size: int, workers: int, **options: Any) -> DataLoader[Any]:
        """Batches of this process's share of so many images."""
        return DataLoader(
            dataset,
            batch_size=batch_size // self.process.world,
            num_workers=workers,
            worker_init_fn=ignore_signals,
            pin_memory=self.process.device.type == "cuda",
            generator=torch.Generator().manual_seed(0),  # for seeds of workers, which nothing uses: not the global one
            **options,
        )

    def train(self, epoch: int, start: int) -> Batches:
        self.sampler.begin(epoch, start)
        if not self.unlabelled:
            yield from self._on_device(self.loader)
            return
        self.others.begin(epoch, start)
        batches = zip(self._on_device(self.loader), self._on_device(self.other_loader), strict=True)
        for (labelled, labels), (unlabelled, _) in batches:
            yield Views(labelled, unlabelled), labels

    def test(self) -> Batches:
        yield from self._on_device(self.test_loader)

    def _on_device(self, loader: DataLoader[Any]) -> Batches:
        def move(tensor: Tensor) -> Tensor:
            return tensor.to(self.process.device, non_blocking=True)

        for images, labels in loader:  # images, or several views of them
            yield move(images) if isinstance(images, Tensor) else tuple(map(move, images)), move(labels)


def labelled_rows(labels: Tensor, num_classes: int, count: int, seed: int) -> Tensor:
    """Rows [count] int64, ascending, of those of labels [N] that are kept: as many of each class, chosen by the seed.

    With one seed fewer labels lie within more, and all methods get the same.
    """
    each, rest = divmod(count, num_classes)
    if rest:
        raise ValueError(f"Data.labels must be a multiple of the {num_classes} classes, as many of each, not {count}")
    least = int(labels.bincount(minlength=num_classes).min())
    if each > least:
        raise ValueError(
            f"Data.labels {count} asks for {each} images of each class, and one has {least}: choose at most "
            f"{least * num_classes}"
        )
    order = epoch_order(len(labels), seed, 0, "labels")
    by_class = order[labels[order].argsort(stable=True)].split(labels.bincount().tolist())
    return torch.cat([rows[:each] for rows in by_class]).sort().values


def first_share(n: int, share: float) -> list[int]:
    """The first round(share * n) indices of one permutation of n files, the same for every run."""
    generator = torch.Generator().manual_seed(stream_seed("share"))
    chosen: list[int] = torch.randperm(n, generator=generator)[: round(share * n)].tolist()
    return chosen


def name_of_rows(n: int, chosen: list[int]) -> str:
    """A name of some of n files, for the record: 16 hexadecimal digits of the SHA-256 of n and the indices."""
    return hashlib.sha256(repr((n, chosen)).encode()).hexdigest()[:16]


def build_feed(run: Run, seed: int, process: Process, execution: Execution) -> Feed:
    """The feed of a run for this process."""
    if is_resident(run.data.name):
        return ResidentFeed(run, seed, process)
    return FolderFeed(run, seed, process, execution)
