"""ImageNet and fine-grained sets from files: timm's transforms, reproducible workers, resumable sampling."""

import hashlib
import random
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from timm.data import create_transform
from timm.data.auto_augment import RandAugment
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.datasets import FGVCAircraft, ImageFolder, StanfordCars
from torchvision.transforms import Compose, InterpolationMode, Resize

from training.config import FINE_GRAINED, Data
from training.device_augment import DeviceAugmentation
from training.fast import CropReader, read_image
from training.files import data_root
from training.fine_grained import Birds, fine_grained
from training.rng import endless_batches, epoch_order, stream_seed

LevelFunction = Callable[[float, dict[str, Any]], tuple[int]]
Address = tuple[int, int, int]  # epoch, position in the epoch's order, index of the image; or update, position, index


class ClassFolders(ImageFolder):
    """torchvision's ImageFolder; an unreadable image is a ValueError that names the file."""

    def __init__(
        self, root: Path, transform: Callable[[Any], Any] | None = None, loader: Callable[[str], Any] = read_image
    ) -> None:
        try:
            super().__init__(str(root), transform=transform, loader=loader)
        except OSError as error:
            raise ValueError(
                f"{root} is no folder of class folders with images ({error}): put the split there, or set LUMIX_DATA"
            ) from error


FileSet: TypeAlias = ClassFolders | Birds | FGVCAircraft | StanfordCars


def labels_of(files: FileSet) -> Tensor:
    """The labels [N] int64 of a set of files, which are not opened."""
    if isinstance(files, FGVCAircraft):
        return torch.tensor(files._labels)  # torchvision gives no other way to them than every image
    return torch.tensor(
        [int(label) for _, label in (files._samples if isinstance(files, StanfordCars) else files.samples)]
    )


class SeveralViews:
    """Several pictures of an image by one random transform, as a tuple."""

    def __init__(self, transform: Callable[[Any], Any], number: int) -> None:
        self.transform, self.number = transform, number

    def __call__(self, image: Any) -> tuple[Any, ...]:
        return tuple(self.transform(image) for _ in range(self.number))


def file_set(
    name: str, split: str, transform: Callable[[Any], Any] | None = None, loader: Callable[[str], Any] = read_image
) -> FileSet:
    """The split ("train" or "val") of a set of files under the data root, as (image, label), with its `classes`.

    Raises:
        ValueError: where it is missing, naming its folder and LUMIX_DATA.
    """
    if name in FINE_GRAINED:
        return fine_grained(name, split, transform, loader)
    return ClassFolders(data_root() / name / split, transform, loader)


def image_folder(data: Data, split: str, views: int = 0) -> FileSet:
    """The `split` ("train" or "val") of ImageNet or a fine-grained set under the data root, as (image, label).

    Expects `imagenet/train/<wnid>/*.JPEG` and `imagenet/val/<wnid>/*.JPEG`, or a layout of `fine_grained`. Training
    images go through random resized crop, flip, RandAugment, normalisation and erasing as `data` says; test images
    through resize and centre crop. They are normalised float32 [3, S, S], except training images of pipeline "fast":
    those are uint8 crops [S, S, 3], and `device_augmentation` does the rest. With `views` a training image is a tuple
    of so many, each with draws of its own.

    Raises:
        ValueError: for a missing folder; for "fast" without OpenCV, with a fine-grained set or with views.
    """
    if split == "val":
        size = data.test_size or data.image_size
        transform = create_transform(size, interpolation="bicubic", crop_pct=data.test_crop)
        return file_set(data.name, split, transform)
    transform = train_transform(data)
    if data.pipeline == "fast":
        if views:
            raise ValueError("Data.pipeline 'fast' makes one crop of an image, not several views: use 'paper'")
        return file_set(data.name, split, loader=CropReader.like(transform.transforms[0]))
    return file_set(data.name, split, SeveralViews(transform, views) if views else transform)


def first_share(n: int, share: float) -> list[int]:
    """The first round(share * n) indices of one permutation of n files, the same for every run."""
    generator = torch.Generator().manual_seed(stream_seed("share"))
    chosen: list[int] = torch.randperm(n, generator=generator)[: round(share * n)].tolist()
    return chosen


def named(n: int, chosen: list[int]) -> str:
    """A name of some of n files, for the record: 16 hexadecimal digits of the SHA-256 of n and the indices."""
    return hashlib.sha256(repr((n, chosen)).encode()).hexdigest()[:16]


def device_augmentation(data: Data) -> DeviceAugmentation:
    """What pipeline "fast" does on the device with a batch of crops: all of `train_transform` that follows the crop.

    Raises:
        ValueError: for an augmentation that has no batched form.
    """
    return DeviceAugmentation.like(train_transform(data))


def train_transform(data: Data) -> Compose:
    """timm's training transform of `data`: PIL image to normalised float32 [3, S, S].

    Fine-grained images are resized before the crop, their shorter side to 8/7 of S, as their recipes have it.
    """
    if not data.crop_scale:
        raise ValueError("Data.crop_scale must be above 0 for images of many sizes: 0.08 is ImageNet's")
    if data.pipeline == "fast" and data.name in FINE_GRAINED:
        raise ValueError(f"Data.pipeline 'fast' cannot resize {data.name} before the crop: use 'paper'")
    transform = create_transform(
        data.image_size,
        is_training=True,
        scale=(data.crop_scale, 1.0),
        hflip=0.5 if data.flip else 0.0,
        color_jitter=None,  # type: ignore[arg-type]  # listed by recipes, but timm skips it beside RandAugment
        auto_augment=data.rand_augment or None,
        interpolation="bicubic",
        re_prob=data.erasing,
        re_mode="pixel",
    )
    for step in transform.transforms:
        if isinstance(step, RandAugment):
            for operation in step.ops:
                if operation.name.startswith("Posterize"):  # asks for 0 bits at full strength, which Pillow 13 refuses
                    operation.level_fn = partial(_at_least_one_bit, operation.level_fn)
    if data.name in FINE_GRAINED:
        transform.transforms.insert(0, Resize(data.image_size * 256 // 224, InterpolationMode.BICUBIC))
    return transform


def _at_least_one_bit(level: LevelFunction, magnitude: float, hparams: dict[str, Any]) -> tuple[int]:
    return (max(1, level(magnitude, hparams)[0]),)


class SeededDataset(Dataset[tuple[Any, Any]]):
    """A map-style dataset whose random transforms depend on (seed, epoch, position, stream) alone.

    Neither the number of workers nor a resume changes what a position yields, and the random state of the process
    (random, numpy, torch) is afterwards as it was. Indexed by the addresses of a sampler.
    """

    def __init__(self, dataset: Dataset[tuple[Any, Any]], seed: int, stream: str = "sample") -> None:
        self.dataset, self.seed, self.stream = dataset, seed, stream

    def __getitem__(self, address: Address) -> tuple[Any, Any]:
        epoch, position, index = address
        value = stream_seed(self.seed, epoch, position, self.stream)
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


class EpochSampler(Sampler[Address]):
    """One process's share of an epoch, as addresses (epoch, position, index), from any position on.

    The order of the epoch is cut into global batches, and of each a process takes every `world`-th position. With
    `repeats` r each image stands r times in a row before that (DeiT's sampler), and an epoch keeps its number of
    updates, floor(n / batch_size), so it visits about n / r images. The incomplete last batch is dropped.
    """

    def __init__(self, n: int, batch_size: int, seed: int, rank: int = 0, world: int = 1, repeats: int = 1) -> None:
        self.n, self.batch_size, self.seed = n, batch_size, seed
        self.rank, self.world, self.repeats = rank, world, repeats
        self.epoch, self.start_position = 0, 0

    def set_epoch(self, epoch: int, start_position: int = 0) -> None:
        """Choose the epoch (from 0) and where in its global order to begin: updates done x batch_size."""
        self.epoch, self.start_position = epoch, start_position

    def __iter__(self) -> Iterator[Address]:
        order: Tensor = epoch_order(self.n, self.seed, self.epoch).repeat_interleave(self.repeats)
        for position in range(self.start_position + self.rank, self.n // self.batch_size * self.batch_size, self.world):
            yield self.epoch, position, int(order[position])


class EndlessSampler(Sampler[Address]):
    """One process's share of batches of passes without end, as addresses (update, position in its batch, index).

    An epoch is `updates` batches, from any on; a `stream` has an order of its own.
    """

    def __init__(
        self, n: int, batch_size: int, updates: int, seed: int, rank: int, world: int, stream: str = "order"
    ) -> None:
        self.n, self.batch_size, self.updates, self.seed = n, batch_size, updates, seed
        self.rank, self.world, self.stream = rank, world, stream
        self.set_epoch(0)

    def set_epoch(self, epoch: int, start_position: int = 0) -> None:
        """Choose the epoch (from 0) and where in it to begin: updates done x batch_size."""
        self.range = range(epoch * self.updates + start_position // self.batch_size, (epoch + 1) * self.updates)

    def __iter__(self) -> Iterator[Address]:
        batches = endless_batches(self.n, self.batch_size, self.seed, self.range.start, self.stream)
        for update, rows in zip(self.range, batches, strict=False):
            for position in range(self.rank, self.batch_size, self.world):
                yield update, position, int(rows[position])


def ignore_signals(_worker: int = 0) -> None:
    """For a DataLoader's `worker_init_fn`: let a worker outlive the signals that SLURM sends to every process of a job.

    Otherwise a worker dies of SIGTERM, or runs the handler inherited from its parent, while the parent is writing its
    checkpoint.
    """
    for name in ("SIGUSR2", "SIGTERM", "SIGCONT"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


def train_loader(
    dataset: Dataset[tuple[Any, Any]], sampler: EpochSampler | EndlessSampler, workers: int, stream: str = "sample"
) -> DataLoader[Any]:
    """Batches of a process's share of each update. Call `sampler.set_epoch` before each pass."""
    return DataLoader(
        SeededDataset(dataset, sampler.seed, stream),
        batch_size=sampler.batch_size // sampler.world,
        sampler=sampler,
        drop_last=True,
        num_workers=workers,
        worker_init_fn=ignore_signals,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=workers > 0,
        generator=torch.Generator().manual_seed(0),  # for seeds of workers, which nothing uses: not the global one
    )
