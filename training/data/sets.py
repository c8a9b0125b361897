"""Sets that are held in memory as one uint8 tensor: digits and procedural scenes, CIFAR and Tiny-ImageNet from files.

digits, shapes, ovals, moons                           need no download
cifar10, cifar100    cifar-10-batches-py/, cifar-100-python/   as torchvision downloads them
tiny_imagenet        tiny-imagenet-200/                        as tiny-imagenet-200.zip of Stanford's CS231n unpacks

Images from files are put into an order that follows from their content (CIFAR) or name (Tiny-ImageNet), so that the
first k images are a fixed random subset. Every complaint is a ValueError that names the file and the remedy.
"""

import hashlib
import importlib.util
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torchvision import datasets
from torchvision.ops import masks_to_boxes

from lumix.random import moved
from training.config import Data
from training.data.files import data_root, read_image
from training.rng import stream_seed

Array = NDArray[np.floating[Any]]
Outline = Callable[[Array, Array], Array]

DRAWN = ("shapes", "ovals", "moons")  # procedural scenes, by their family of outlines
FROM_FILES = ("cifar10", "cifar100", "tiny_imagenet")
RESIDENT = ("digits", *DRAWN, *FROM_FILES)
SHAPES_TRAIN, SHAPES_TEST = 2000, 1000
STATISTICS = {  # mean and standard deviation of each channel
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "tiny_imagenet": ((0.4802, 0.4481, 0.3975), (0.2770, 0.2691, 0.2821)),
}
REPLACE = "replace it by a fresh copy"
DIGITS_TRAIN = 1000  # the pool; the other 797 images are the test set
SHAPES_SIZE = 16
SHAPES_MEAN = (0.341, 0.329, 0.375)  # of shapes(2000, seed=0), rounded; a test compares them
SHAPES_STD = (0.259, 0.2, 0.076)


@dataclass(frozen=True)
class ImageSet:
    """N labelled images of one size. Sets are cached and shared: do not write into the tensors."""

    images: Tensor  # [N, C, H, W] uint8
    labels: Tensor  # [N] int64 in [0, num_classes)
    num_classes: int  # of the set, those absent from this part included
    mean: tuple[float, ...]  # with `std` per channel, of images scaled to [0, 1]
    std: tuple[float, ...]
    masks: Tensor | None = None  # [N, H, W] uint8, 1 on the object
    boxes: Tensor | None = None  # [N, 4] int64, half-open (top, bottom, left, right) around the object
    class_names: tuple[str, ...] = ()  # one per class; () where the classes have no names

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: slice | Tensor) -> "ImageSet":
        """Some of the images, by slice (a view) or index tensor [M] int64 (a copy)."""
        return self._each(lambda part: part[index])

    def to(self, device: torch.device | str) -> "ImageSet":
        """The same set with every tensor on `device`."""
        return self._each(lambda part: part.to(device))

    def fingerprint(self) -> str:
        """16 hexadecimal digits of the SHA-256 of labels and pixels in their order: which images these are."""
        content = self.labels.cpu().numpy().tobytes() + self.images.cpu().numpy().tobytes()
        return hashlib.sha256(content).hexdigest()[:16]

    def _each(self, change: Callable[[Tensor], Tensor]) -> "ImageSet":
        parts = {name: getattr(self, name) for name in ("images", "labels", "masks", "boxes")}
        changed: dict[str, Any] = {name: None if part is None else change(part) for name, part in parts.items()}
        return replace(self, **changed)

    def enlarged(self, factor: int) -> "ImageSet":
        """Every pixel repeated to a square of `factor` x `factor`: larger, with no value invented."""
        return replace(
            self,
            images=self.images.repeat_interleave(factor, 2).repeat_interleave(factor, 3),
            masks=None if self.masks is None else self.masks.repeat_interleave(factor, 1).repeat_interleave(factor, 2),
            boxes=None if self.boxes is None else self.boxes * factor,
        )

    def reduced(self, factor: int) -> "ImageSet":
        """Every square of `factor` x `factor` pixels as its mean, rounded; for sets without masks and boxes."""
        if self.masks is not None or self.boxes is not None:
            raise ValueError("images with masks or boxes cannot be reduced: ask for their own size or a multiple")
        means = F.avg_pool2d(self.images.float(), factor).round()
        return replace(self, images=means.to(torch.uint8))


def channel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of images uint8 [N, C, H, W], on the scale [0, 1]."""
    std, mean = torch.std_mean(images.double() / 255, dim=(0, 2, 3), correction=0)
    return tuple(mean.tolist()), tuple(std.tolist())


def boxes_of(masks: Tensor) -> Tensor:
    """The tight half-open box [N, 4] int64 (top, bottom, left, right) around the ones of masks uint8 [N, H, W]."""
    left, top, right, bottom = masks_to_boxes(masks).long().unbind(1)
    return torch.stack((top, bottom + 1, left, right + 1), dim=1)


def augment(images: Tensor, data: Data, generator: torch.Generator) -> Tensor:
    """Random crop of reflection-padded images and random flip, each sample its own, in one gather.

    Images [B, C, H, W] of any dtype, returned as they are where `data` asks for nothing. The generator is on their device.
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
    shift = moved(torch.tensor(mean, device="cpu"), images.device).view(1, -1, 1, 1) * 255
    scale = moved(torch.tensor(std, device="cpu"), images.device).view(1, -1, 1, 1) * 255
    return (images.float() - shift) / scale


# Loading --------------------------------------------------------------------------------------------------------------


def is_resident(name: str) -> bool:
    """Whether the set of this name is held in memory (`load`) rather than read from files (`files.file_set`)."""
    return name in RESIDENT


def load(data: Data) -> tuple[ImageSet, ImageSet]:
    """The (train, test) sets of a resident `data.name`, at `data.image_size`, cut to `data.train_size` or `data.share`.

    Training sets come in an order fixed by their content, so a cut is the first images of one fixed permutation. They are
    cached within the process and shared, so never write into the tensors.
    """
    if not is_resident(data.name):
        raise ValueError(f"{data.name} is read from files: use training.data.files, not load")
    for name in ("crop_scale", "rand_augment", "erasing", "repeats", "test_size", "test_crop"):
        off = getattr(Data, name)
        if getattr(data, name) != off:
            raise ValueError(
                f"Data.{name} is for images read from files, and {data.name} is held in memory: leave it at {off!r}"
            )
    if data.crop_padding >= data.image_size:
        raise ValueError(f"Data.crop_padding {data.crop_padding} must be below Data.image_size {data.image_size}")
    root = data_root() if data.name in FROM_FILES else Path()
    train, test = _load(data.name, data.image_size, root.resolve())
    if data.train_size > len(train):
        raise ValueError(
            f"Data.train_size {data.train_size} is larger than the {len(train)} training images of {data.name}: "
            f"choose at most that, or 0 for all"
        )
    return train[: data.train_size or round(data.share * len(train))], test


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
    return tiny_imagenet(root) if name == "tiny_imagenet" else cifar(name, root)


# Digits and scenes ----------------------------------------------------------------------------------------------------


def digits() -> tuple[ImageSet, ImageSet]:
    """The 1797 grey 8x8 digits of scikit-learn in a fixed random order: the train pool of 1000, the test set of 797.

    Scikit-learn's order groups writers, so it is permuted once, the same way for every run.
    """
    found = importlib.util.find_spec("sklearn")  # which takes a second to import
    if found is None or found.origin is None:
        raise ValueError("the digits are scikit-learn's, which is not installed: pip install scikit-learn")
    rows = np.loadtxt(Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz", delimiter=",")
    rows = rows[np.random.default_rng(20220101).permutation(len(rows))]
    images = torch.from_numpy(np.rint(rows[:, :-1] * (255 / 16)).astype(np.uint8)).view(-1, 1, 8, 8)
    labels = torch.from_numpy(rows[:, -1].astype(np.int64))
    mean, std = channel_statistics(images[:DIGITS_TRAIN])
    names = tuple(str(digit) for digit in range(10))
    everything = ImageSet(images, labels, num_classes=10, mean=mean, std=std, class_names=names)
    return everything[:DIGITS_TRAIN], everything[DIGITS_TRAIN:]


def _box(x: Array, y: Array, half_width: float, half_height: float) -> Array:
    return np.maximum(np.abs(x) - half_width, np.abs(y) - half_height)


def _star(x: Array, y: Array) -> Array:
    return np.hypot(x, y) - (0.66 + 0.3 * np.cos(5 * np.arctan2(x, -y)))


def _triangle(x: Array, y: Array) -> Array:
    return np.maximum(0.866 * np.abs(x) - 0.5 * y, y) - 0.5


# Signed distances, negative inside, in units of the object's radius; y points down as in the image.
SHAPES: dict[str, Outline] = {
    "disc": lambda x, y: np.hypot(x, y) - 0.85,
    "square": lambda x, y: _box(x, y, 0.75, 0.75),
    "triangle": _triangle,
    "plus": lambda x, y: np.minimum(_box(x, y, 0.9, 0.28), _box(x, y, 0.28, 0.9)),
    "ring": lambda x, y: np.abs(np.hypot(x, y) - 0.68) - 0.24,
    "star": _star,
    "crescent": lambda x, y: np.maximum(np.hypot(x, y) - 0.9, 0.7 - np.hypot(x - 0.5, y)),
    "half_disc": lambda x, y: np.maximum(np.hypot(x, y - 0.4) - 0.95, y - 0.4),
    "bar": lambda x, y: _box(x, y, 0.95, 0.28),
    "corner": lambda x, y: np.minimum(_box(x + 0.5, y, 0.28, 0.85), _box(x, y - 0.57, 0.78, 0.28)),
}
UNSEEN_SHAPES: dict[str, Outline] = {
    "frame": lambda x, y: np.abs(_box(x, y, 0.6, 0.6)) - 0.2,
    "tee": lambda x, y: np.minimum(_box(x, y + 0.55, 0.85, 0.25), _box(x, y - 0.1, 0.25, 0.75)),
    "hourglass": lambda x, y: np.maximum(np.abs(y) - 0.8, np.abs(x) - 0.9 * np.abs(y) - 0.1),
    "chevron": lambda x, y: np.maximum(np.abs(y - np.abs(x) + 0.35) - 0.32, np.abs(x) - 0.85),
    "two_dots": lambda x, y: np.hypot(np.abs(x) - 0.5, y) - 0.36,
}


def _ellipse(x: Array, y: Array, half_height: float) -> Array:
    return (np.hypot(x / 0.95, y / half_height) - 1) * min(half_height, 0.95)


def _crescent(x: Array, y: Array, shift: float) -> Array:
    return np.maximum(np.hypot(x, y) - 0.9, 0.8 - np.hypot(x - shift, y))


def _ring(x: Array, y: Array, half_width: float) -> Array:
    return np.abs(np.hypot(x, y) - (0.92 - half_width)) - half_width


def _variants(name: str, outline: Callable[[Array, Array, float], Array], *values: float) -> dict[str, Outline]:
    """An outline at each of some values, as "ring 0.1"."""
    return {f"{name} {value:g}": lambda x, y, value=value: outline(x, y, value) for value in values}  # type: ignore[misc]


# Fine-grained: ten variants of two shapes, told apart by a proportion.
PROPORTIONS = (0.22, 0.36, 0.52, 0.7, 0.9)
OVALS = _variants("bar", lambda x, y, h: _box(x, y, 0.95, h), *PROPORTIONS)
OVALS |= _variants("ellipse", _ellipse, *PROPORTIONS)
MOONS = _variants("crescent", _crescent, 0.15, 0.3, 0.45, 0.65, 0.9) | _variants("ring", _ring, 0.1, 0.17, 0.25, 0.34, 0.44)
FAMILIES = {"shapes": SHAPES, "unseen shapes": UNSEEN_SHAPES, "ovals": OVALS, "moons": MOONS}


def _grid(n: int, size: int) -> tuple[Array, Array]:
    """Pixel centres x and y, each [n, size, size], with the origin in the middle of the image."""
    along = np.arange(size, dtype=np.float32) - (size - 1) / 2
    return np.broadcast_to(along, (n, size, size)), np.broadcast_to(along[:, None], (n, size, size))


def _distances(labels: NDArray[np.int64], family: str, rng: np.random.Generator) -> Array:
    """Signed distance in pixels [N, H, W] from the outline of each object in a random pose."""
    n = len(labels)
    x, y = _grid(n, SHAPES_SIZE)
    radius = rng.uniform(4.8, 6.4, (n, 1, 1)).astype(np.float32)
    shift = (SHAPES_SIZE / 2 - 0.5 - radius) * rng.uniform(-1, 1, (2, n, 1, 1)).astype(np.float32)
    # Below 23 degrees: a square never turns into a diamond.
    angle = rng.uniform(-0.4, 0.4, (n, 1, 1)).astype(np.float32)
    x, y = x - shift[0], y - shift[1]
    x, y = (np.cos(angle) * x + np.sin(angle) * y) / radius, (np.cos(angle) * y - np.sin(angle) * x) / radius
    distance = np.empty_like(x)
    for label, function in enumerate(FAMILIES[family].values()):
        chosen = labels == label
        distance[chosen] = function(x[chosen], y[chosen])
    return distance * radius


def _background(n: int, rng: np.random.Generator) -> Array:
    """Dark bluish ground [N, H, W, 3] with three faint blobs as clutter."""
    colour = np.array([0.2, 0.22, 0.34]) + rng.uniform(-0.06, 0.06, (n, 1, 1, 3))
    x, y = _grid(n, SHAPES_SIZE)
    clutter = np.zeros_like(x)
    for _ in range(3):
        centre = rng.uniform(-SHAPES_SIZE / 2, SHAPES_SIZE / 2, (2, n, 1, 1)).astype(np.float32)
        strength = rng.uniform(-0.12, 0.2, (n, 1, 1)).astype(np.float32)
        clutter = clutter + strength * np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / 3)
    return (colour + clutter[..., None]).astype(np.float32)


def shapes(n: int, seed: int, family: str = "shapes") -> ImageSet:
    """`n` scenes [n, 3, 16, 16], one bright object each on dark cluttered ground, with exact masks and boxes.

    Object and ground keep their polarity: with random polarity a thousand images teach nothing. Classes are balanced. The
    seed decides everything. The family is one of `FAMILIES`: ten shapes; five others, labelled 0 to 4; ten variants of two.
    """
    rng = np.random.default_rng(stream_seed(seed, family))
    names = tuple(FAMILIES[family])
    labels = rng.permutation(np.arange(n, dtype=np.int64) % len(names))
    distance = _distances(labels, family, rng)
    cover = np.clip(0.5 - distance, 0, 1)[..., None]  # of the pixel by the object: an antialiased outline
    colour = np.array([0.88, 0.74, 0.5]) + rng.uniform(-0.1, 0.1, (n, 1, 1, 3))
    scene = cover * colour + (1 - cover) * _background(n, rng) + rng.normal(0, 0.02, (*distance.shape, 3))
    pixels = np.rint(np.clip(scene, 0, 1) * 255).astype(np.uint8).transpose(0, 3, 1, 2)
    masks = torch.from_numpy((distance < 0).astype(np.uint8))
    return ImageSet(
        images=torch.from_numpy(np.ascontiguousarray(pixels)),
        labels=torch.from_numpy(labels),
        num_classes=len(names),
        mean=SHAPES_MEAN,
        std=SHAPES_STD,
        masks=masks,
        boxes=boxes_of(masks),
        class_names=names,
    )


# Files ----------------------------------------------------------------------------------------------------------------


def _hash_order(contents: Sequence[bytes]) -> list[int]:
    digests = [hashlib.blake2b(content, digest_size=16).digest() for content in contents]
    return sorted(range(len(digests)), key=digests.__getitem__)


def converted(train: str, test: str, meta: str) -> type[datasets.CIFAR100]:
    """CIFAR-100 in torchvision's layout with the images, but not the rows, of the published files.

    The MD5 sums are those of its files: torchvision unpickles no others.
    """
    names = {"filename": "meta", "key": "fine_label_names", "md5": meta}
    lists = {"train_list": [["train", train]], "test_list": [["test", test]], "meta": names}
    return type("ConvertedCIFAR100", (datasets.CIFAR100,), lists)


KINDS: dict[str, tuple[Any, ...]] = {
    "cifar10": (datasets.CIFAR10,),
    "cifar100": (
        datasets.CIFAR100,
        converted(  # by tools/convert_data.py
            "8f9937dfc2ec6585948703527d50bbcc", "297a7ad0ae0716a64960f80e7ddb646c", "ee10d7ea6a4f9037ab6b4f90329b45d5"
        ),
        converted(  # by the reader beside the packed images
            "3ffe37a9e74fe6ca031e6c8cbfc7cada", "7b7318e736ade6c8262f62619ccb579d", "1580defa312ed3539344f148645d707a"
        ),
    ),
}


def cifar(name: str, root: Path) -> tuple[ImageSet, ImageSet]:
    """CIFAR-10 or CIFAR-100 as (train, test), read by torchvision, which downloads it where its folder is missing."""
    published, *_ = KINDS[name]
    folder, title = root / published.base_folder, name.upper().replace("CIFAR", "CIFAR-")
    if not folder.is_dir():
        _download(published, folder, title)
    for kind in KINDS[name]:
        try:
            train, test = (_cifar_set(kind(root, train=train), name) for train in (True, False))
            return train, test
        except (OSError, RuntimeError) as error:
            reason = error
    raise ValueError(f"{folder} is not the published, complete {title} ({reason}): {REPLACE}")


def _cifar_set(source: Any, name: str) -> ImageSet:
    images, labels = source.data.transpose(0, 3, 1, 2), np.asarray(source.targets, dtype=np.int64)
    order = _hash_order([image.tobytes() + bytes([y]) for image, y in zip(images, labels, strict=True)])
    pixels, names = torch.from_numpy(np.ascontiguousarray(images[order])), tuple(source.classes)
    return ImageSet(pixels, torch.from_numpy(labels[order]), len(names), *STATISTICS[name], class_names=names)


def _download(kind: Any, folder: Path, title: str) -> None:
    """torchvision's download and MD5 check, moved into place when complete, so that no half copy is ever read."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
            kind(scratch, download=True)
            os.replace(Path(scratch) / folder.name, folder)
    except (OSError, RuntimeError) as error:
        if folder.is_dir():  # another process was faster
            return
        raise ValueError(
            f"{title} is not in {folder} and cannot be downloaded ({error}): put it there, or set LUMIX_DATA to the "
            f"folder that has it"
        ) from error


Picture = tuple[Path, str, list[int]]  # file, class, box (left, top, right, bottom, inclusive, as the files have it)


def tiny_imagenet(root: Path) -> tuple[ImageSet, ImageSet]:
    """Tiny-ImageNet as (train, val) with boxes: the classes whose training images are there, in the order of their ids."""
    folder = root / "tiny-imagenet-200"
    classes = sorted(here.name for here in (folder / "train").glob("n*"))
    if not classes:
        raise ValueError(
            f"Tiny-ImageNet is not in {folder}, or its train has no class folders: unpack tiny-imagenet-200.zip of "
            f"Stanford's CS231n there, or set LUMIX_DATA to the folder that has it"
        )
    train: list[Picture] = [
        (folder / "train" / wnid / "images" / row[0], wnid, list(map(int, row[-4:])))
        for wnid in classes
        for row in _annotations(folder / "train" / wnid / f"{wnid}_boxes.txt", 5)
    ]
    rows = [row for row in _annotations(folder / "val" / "val_annotations.txt", 6) if row[1] in classes]
    val: list[Picture] = [(folder / "val" / "images" / row[0], row[1], list(map(int, row[-4:]))) for row in rows]
    if not train or not val:
        raise ValueError(f"{folder / ('val' if train else 'train')} lists no image of a class of train: {REPLACE}")
    return _tiny_set(train, classes), _tiny_set(val, classes)


def _tiny_set(pictures: Sequence[Picture], wnids: Sequence[str]) -> ImageSet:
    order = _hash_order([path.name.encode() for path, _, _ in pictures])
    paths, names, boxes = zip(*(pictures[index] for index in order), strict=True)
    images = np.empty((len(paths), 3, 64, 64), dtype=np.uint8)
    for row, path in enumerate(paths):
        image = read_image(path)
        if image.size != (64, 64):
            raise ValueError(f"{path} has {image.width}x{image.height} pixels instead of 64x64: {REPLACE}")
        images[row] = np.asarray(image).transpose(2, 0, 1)
    labels = torch.tensor([wnids.index(name) for name in names], dtype=torch.int64)
    left, top, right, bottom = torch.tensor(boxes, dtype=torch.int64).unbind(1)
    inside = torch.stack((top, bottom + 1, left, right + 1), dim=1)
    mean, std = STATISTICS["tiny_imagenet"]
    return ImageSet(torch.from_numpy(images), labels, len(wnids), mean, std, None, inside, tuple(wnids))


def _annotations(path: Path, columns: int) -> list[list[str]]:
    """Rows of a tab-separated annotation file, each of `columns` fields ending in four integers."""
    try:
        rows = [line.split("\t") for line in path.read_text().splitlines() if line]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read ({error}): {REPLACE}") from error
    for number, row in enumerate(rows, 1):
        if len(row) != columns or not all(f.strip().isdecimal() and len(f) < 9 for f in row[-4:]):
            raise ValueError(f"{path}, line {number}, is not an image name and a box of 4 integers: {REPLACE}")
    return rows
