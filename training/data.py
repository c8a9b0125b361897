"""Data of a run: resident image sets and their batched augmentation; file-based ImageNet is in `folder`.

A resident set is one uint8 tensor on the device. There is no DataLoader: a batch is an index, augmentation and
normalisation are a few kernels over the batch, and all randomness comes from an explicit generator.
"""

from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from training.config import Data
from training.embedded import digits, shapes
from training.files import cifar10, cifar100, data_root, tiny_imagenet
from training.imageset import ImageSet
from training.rng import epoch_order

DRAWN = ("shapes", "ovals", "moons")  # procedural scenes, by their family of outlines
FROM_FILES = {"cifar10": cifar10, "cifar100": cifar100, "tiny_imagenet": tiny_imagenet}
RESIDENT = ("digits", *DRAWN, *FROM_FILES)
SHAPES_TRAIN, SHAPES_TEST = 2000, 1000


def is_resident(name: str) -> bool:
    """Whether the set of this name is held in memory (`load`) rather than read from files (`folder.image_folder`)."""
    return name in RESIDENT


def load(data: Data) -> tuple[ImageSet, ImageSet]:
    """The (train, test) sets of a resident `data.name`, at `data.image_size`, cut to `data.train_size` or `data.share`.

    Training sets come in an order fixed by their content, so a cut is the first images of one fixed permutation.

    Cached within the process and shared, so never write into the tensors.

    Raises:
        ValueError: for files that are missing or damaged (naming file and remedy), a set that is not resident, an
            augmentation that resident sets do not have, an image size that is no multiple of the set's own, or more
            training images than there are.
    """
    if not is_resident(data.name):
        raise ValueError(f"{data.name} is read from files: use training.folder.image_folder, not load")
    _check_augmentation(data)
    root = data_root() if data.name in FROM_FILES else Path()
    train, test = _load(data.name, data.image_size, root.resolve())
    if data.train_size > len(train):
        raise ValueError(
            f"Data.train_size {data.train_size} is larger than the {len(train)} training images of {data.name}: "
            f"choose at most that, or 0 for all"
        )
    return train[: data.train_size or round(data.share * len(train))], test


def _check_augmentation(data: Data) -> None:
    for name in ("crop_scale", "rand_augment", "erasing", "repeats", "test_size", "test_crop", "pipeline"):
        off = getattr(Data, name)
        if getattr(data, name) != off:
            raise ValueError(
                f"Data.{name} is for images read from files, and {data.name} is held in memory: leave it at {off!r}"
            )
    if data.crop_padding >= data.image_size:
        raise ValueError(f"Data.crop_padding {data.crop_padding} must be below Data.image_size {data.image_size}")


@lru_cache(maxsize=4)
def _load(name: str, image_size: int, root: Path) -> tuple[ImageSet, ImageSet]:
    train, test = _read(name, root)
    own = train.images.shape[-1]
    if image_size < own and own % image_size == 0:
        return train.reduced(own // image_size), test.reduced(own // image_size)
    if image_size % own:
        raise ValueError(
            f"Data.image_size of {name} must be a multiple or a whole part of its own {own} pixels, not {image_size}"
        )
    return train.enlarged(image_size // own), test.enlarged(image_size // own)


def _read(name: str, root: Path) -> tuple[ImageSet, ImageSet]:
    if name == "digits":
        return digits()
    if name in DRAWN:
        return shapes(SHAPES_TRAIN, seed=0, family=name), shapes(SHAPES_TEST, seed=1, family=name)
    return FROM_FILES[name](root)


def labelled_rows(labels: Tensor, num_classes: int, count: int, seed: int) -> Tensor:
    """Rows [count] int64, ascending, of the images that keep their label: as many of each class, chosen by the seed.

    Labels [N] int64 are those of all training images.

    With one seed fewer labels lie within more, and all methods get the same.

    Raises:
        ValueError: for a count that does not divide over the classes, or more than there are of a class.
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


def augment(images: Tensor, data: Data, generator: torch.Generator) -> Tensor:
    """Random crop of reflection-padded images and random flip, each sample its own, in one gather.

    Args:
        images: [B, C, H, W] of any dtype; not changed, and returned as they are where `data` asks for nothing.
        data: `crop_padding` pixels of reflection, `flip` with probability 1/2.
        generator: on the device of the images.
    """
    if not data.crop_padding and not data.flip:
        return images
    batch, channels, height, width = images.shape
    device, padding = images.device, data.crop_padding
    offset = torch.randint(0, 2 * padding + 1, (2, batch, 1), generator=generator, device=device) - padding
    flip = torch.rand(batch, 1, generator=generator, device=device) < (0.5 if data.flip else 0.0)
    rows = _reflect(torch.arange(height, device=device) + offset[0], height)
    columns = torch.arange(width, device=device).expand(batch, width)
    columns = _reflect(torch.where(flip, width - 1 - columns, columns) + offset[1], width)
    index = (rows.unsqueeze(2) * width + columns.unsqueeze(1)).view(batch, 1, height * width)
    return images.reshape(batch, channels, -1).gather(2, index.expand(-1, channels, -1)).view(images.shape)


def _reflect(position: Tensor, length: int) -> Tensor:
    """Positions outside [0, length) mirrored at the first and last pixel, which are not repeated."""
    return length - 1 - (length - 1 - position.abs()).abs()


def normalise(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Images [B, C, H, W] uint8 as float32, less `mean` and divided by `std`, which are on the scale [0, 1]."""
    shift = torch.tensor(mean, device=images.device).view(1, -1, 1, 1) * 255
    scale = torch.tensor(std, device=images.device).view(1, -1, 1, 1) * 255
    return (images.float() - shift) / scale
