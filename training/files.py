"""CIFAR-10, CIFAR-100 and Tiny-ImageNet from the data root, in their standard layout on disk or as `.npz` archives.

Images are put into an order that follows from their content (CIFAR) or file name (Tiny-ImageNet), so that both
layouts give the same tensors and the first k images are a fixed random subset. Every complaint is a ValueError that
names the file and the remedy.
"""

import hashlib
import io
import os
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from training.imageset import ImageSet

CIFAR10_MEAN, CIFAR10_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
CIFAR100_MEAN, CIFAR100_STD = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)
TINY_MEAN, TINY_STD = (0.4802, 0.4481, 0.3975), (0.2770, 0.2691, 0.2821)
CIFAR10_FOLDER, CIFAR100_FOLDER, TINY_FOLDER = "cifar-10-batches-py", "cifar-100-python", "tiny-imagenet-200"
REPLACE = "replace it by a fresh copy"


def data_root() -> Path:
    """The folder of all image sets: environment variable LUMIX_DATA, default `data`.

    Raises:
        ValueError: if LUMIX_DATA names no folder.
    """
    named = os.environ.get("LUMIX_DATA")
    if named and not Path(named).is_dir():
        raise ValueError(f"LUMIX_DATA is {named!r}, which is no folder: set it to the folder that holds the image sets")
    return Path(named or "data")


def _read_npz(path: Path, keys: Sequence[str]) -> dict[str, NDArray[Any]]:
    try:
        with path.open("rb") as file, np.load(file) as archive:  # np.load leaves a damaged file open
            missing = [key for key in keys if key not in archive.files]
            if not missing:
                return {key: archive[key] for key in keys}
    except FileNotFoundError:
        raise ValueError(f"{path} is missing: put it there, or set LUMIX_DATA to the folder that has it") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is damaged ({error}): {REPLACE}") from error
    raise ValueError(f"{path} has no array {missing[0]}: {REPLACE}")


def _blobs(data: NDArray[np.uint8], sizes: NDArray[np.integer[Any]], path: Path) -> list[bytes]:
    """The encoded files that lie end to end in one array."""
    if int(sizes.sum()) != len(data):
        raise ValueError(f"{path} holds {len(data)} bytes of images where its sizes add up to {sizes.sum()}: {REPLACE}")
    raw, ends = data.tobytes(), np.cumsum(sizes)
    return [raw[end - size : end] for size, end in zip(sizes, ends, strict=True)]


def _decode(content: bytes | Path, path: Path, name: str, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """One encoded image as uint8 RGB [H, W, 3] of the given height and width."""
    where = f"image {name} in {path}" if name else f"{path}"
    try:
        with Image.open(io.BytesIO(content) if isinstance(content, bytes) else content) as image:
            pixels = np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{where} cannot be read as an image ({error}): {REPLACE}") from error
    if pixels.shape[:2] != shape:
        found = "x".join(map(str, pixels.shape[:2]))
        raise ValueError(f"{where} has {found} pixels instead of {shape[0]}x{shape[1]}: {REPLACE}")
    return pixels


def _checked_labels(labels: Any, count: int, num_classes: int, path: Path) -> NDArray[np.int64]:
    array = np.asarray(labels, dtype=np.int64)
    if array.shape != (count,):
        raise ValueError(f"{path} has {array.size} labels for {count} images: {REPLACE}")
    wrong = array[(array < 0) | (array >= num_classes)]
    if len(wrong):
        raise ValueError(f"{path} has label {wrong[0]}, outside 0 to {num_classes - 1}: {REPLACE}")
    return array


def _hash_order(contents: Sequence[bytes]) -> list[int]:
    digests = [hashlib.blake2b(content, digest_size=16).digest() for content in contents]
    return sorted(range(len(digests)), key=digests.__getitem__)


# CIFAR -------------------------------------------------------------------------------------------------------------

Part = tuple[NDArray[np.uint8], NDArray[np.int64]]  # images [N, 3, 32, 32], labels [N]


def cifar10(root: Path) -> tuple[ImageSet, ImageSet]:
    """CIFAR-10 as (train, test): `cifar-10-batches-py/` if there, else torchvision's download."""
    if not (root / CIFAR10_FOLDER).is_dir():
        _download("CIFAR10", root / CIFAR10_FOLDER)
    train, test, names = _torchvision("CIFAR10", root / CIFAR10_FOLDER)
    return (
        _cifar_set(*train, names, CIFAR10_MEAN, CIFAR10_STD),
        _cifar_set(*test, names, CIFAR10_MEAN, CIFAR10_STD),
    )


def cifar100(root: Path) -> tuple[ImageSet, ImageSet]:
    """CIFAR-100 as (train, test): `cifar-100-python/` if there, else `cifar100/*.npz`, else torchvision's download."""
    folder, archives = root / CIFAR100_FOLDER, root / "cifar100"
    if not folder.is_dir() and archives.is_dir():
        paths = sorted(archives.glob("train_*.npz"))
        if not paths:
            raise ValueError(f"{archives} has no train_*.npz: put the training parts there")
        images, labels = zip(*map(_cifar100_npz, paths), strict=True)
        train, test = (np.concatenate(images), np.concatenate(labels)), _cifar100_npz(archives / "test.npz")
        names = _read_npz(archives / "test.npz", ["fine_label_names"])["fine_label_names"].tolist()
    else:
        if not folder.is_dir():
            _download("CIFAR100", folder, f" nor in {archives}")
        train, test, names = _torchvision("CIFAR100", folder)
    return (
        _cifar_set(*train, names, CIFAR100_MEAN, CIFAR100_STD),
        _cifar_set(*test, names, CIFAR100_MEAN, CIFAR100_STD),
    )


Values = tuple[float, float, float]


def _cifar_set(
    images: NDArray[np.uint8], labels: NDArray[np.int64], names: Sequence[str], mean: Values, std: Values
) -> ImageSet:
    order = _hash_order([image.tobytes() + bytes([y]) for image, y in zip(images, labels, strict=True)])
    pixels = torch.from_numpy(np.ascontiguousarray(images[order]))
    return ImageSet(pixels, torch.from_numpy(labels[order]), len(names), mean, std, class_names=tuple(names))


def _torchvision(name: str, folder: Path) -> tuple[Part, Part, list[str]]:
    """The parts and class names by torchvision, which unpickles only files whose MD5 is that of the published ones."""
    from torchvision import datasets

    try:
        train, test = (getattr(datasets, name)(folder.parent, train=train) for train in (True, False))
    except RuntimeError as error:
        raise ValueError(f"{folder} is not the published, complete {_title(name)} ({error}): {REPLACE}") from error
    parts = ((part.data.transpose(0, 3, 1, 2), np.asarray(part.targets, dtype=np.int64)) for part in (train, test))
    return (*parts, train.classes)


def _title(name: str) -> str:
    return name.replace("CIFAR", "CIFAR-")


def _cifar100_npz(path: Path) -> Part:
    entry = _read_npz(path, ["webp", "webp_sizes", "fine_labels"])
    strips = _blobs(entry["webp"], entry["webp_sizes"], path)  # one strip holds the images of one class, top to bottom
    height = 32 * (len(entry["fine_labels"]) // max(1, len(strips)))
    decoded = [_decode(strip, path, f"strip {i}", (height, 32)) for i, strip in enumerate(strips)]
    images = np.concatenate(decoded).reshape(-1, 32, 32, 3).transpose(0, 3, 1, 2)
    return images, _checked_labels(entry["fine_labels"], len(images), 100, path)


def _download(name: str, folder: Path, elsewhere: str = "") -> None:
    """torchvision's download and MD5 check, moved into place when complete, so that no half copy is ever read."""
    from torchvision import datasets

    root = folder.parent
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root, prefix=f".{name.lower()}-") as scratch:
            getattr(datasets, name)(scratch, download=True)
            os.replace(Path(scratch) / folder.name, folder)
    except (OSError, RuntimeError) as error:
        if folder.is_dir():  # another process was faster
            return
        where = f"neither in {folder}{elsewhere}" if elsewhere else f"not in {folder}"
        raise ValueError(
            f"{_title(name)} is {where} and cannot be downloaded ({error}): put it there, or set LUMIX_DATA to the "
            f"folder that has it"
        ) from error


# Tiny-ImageNet -----------------------------------------------------------------------------------------------------


class _Picture(NamedTuple):
    name: str
    wnid: str
    box: tuple[int, int, int, int]  # left, top, right, bottom, inclusive, as the files have it
    content: bytes | Path
    path: Path


def tiny_imagenet(root: Path) -> tuple[ImageSet, ImageSet]:
    """Tiny-ImageNet as (train, val) with boxes: `tiny-imagenet-200/` if there, else `tiny_imagenet/classes_*.npz`.

    The classes are those whose training images are there, numbered in the order of their WordNet ids; validation
    images of other classes are left out.
    """
    folder, archives = root / TINY_FOLDER, root / "tiny_imagenet"
    if folder.is_dir():
        splits = _tiny_train_folder(folder), _tiny_val_folder(folder)
    else:
        paths = sorted(archives.glob("classes_*.npz"))
        if not paths:
            raise ValueError(
                f"Tiny-ImageNet is neither in {folder} nor in {archives}/classes_*.npz: unpack tiny-imagenet-200.zip "
                f"of Stanford's CS231n there, or set LUMIX_DATA to the folder that has it"
            )
        splits = tuple([p for path in paths for p in _tiny_npz(path, split)] for split in ("train", "val"))  # type: ignore[assignment]
    wnids = sorted({picture.wnid for picture in splits[0]})
    return _tiny_set(splits[0], wnids), _tiny_set([p for p in splits[1] if p.wnid in set(wnids)], wnids)


def _tiny_set(pictures: Sequence[_Picture], wnids: Sequence[str]) -> ImageSet:
    order = _hash_order([picture.name.encode() for picture in pictures])
    images = np.empty((len(order), 3, 64, 64), dtype=np.uint8)
    for row, index in enumerate(order):
        picture = pictures[index]
        name = "" if picture.path.name == picture.name else picture.name
        images[row] = _decode(picture.content, picture.path, name, (64, 64)).transpose(2, 0, 1)
    rank = {wnid: label for label, wnid in enumerate(wnids)}
    labels = torch.tensor([rank[pictures[i].wnid] for i in order], dtype=torch.int64)
    left, top, right, bottom = torch.tensor([pictures[i].box for i in order], dtype=torch.int64).view(-1, 4).unbind(1)
    boxes = torch.stack((top, bottom + 1, left, right + 1), dim=1)
    return ImageSet(
        torch.from_numpy(images), labels, len(wnids), TINY_MEAN, TINY_STD, boxes=boxes, class_names=tuple(wnids)
    )


def _annotations(path: Path, columns: int) -> list[list[str]]:
    """Rows of a tab-separated annotation file, each of `columns` fields ending in four integers."""
    try:
        rows = [line.split("\t") for line in path.read_text().splitlines() if line]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read ({error}): {REPLACE}") from error
    for number, row in enumerate(rows, 1):
        if len(row) != columns or not all(field.strip().isdigit() for field in row[-4:]):
            raise ValueError(f"{path}, line {number}, is not an image name and a box of 4 integers: {REPLACE}")
    return rows


def _picture(row: Sequence[str], wnid: str, path: Path) -> _Picture:
    left, top, right, bottom = map(int, row[-4:])
    return _Picture(row[0], wnid, (left, top, right, bottom), path, path)


def _tiny_train_folder(folder: Path) -> list[_Picture]:
    classes = sorted((folder / "train").glob("n*"))
    if not classes:
        raise ValueError(f"{folder / 'train'} has no class folders: unpack tiny-imagenet-200.zip there again")
    return [
        _picture(row, here.name, here / "images" / row[0])
        for here in classes
        for row in _annotations(here / f"{here.name}_boxes.txt", 5)
    ]


def _tiny_val_folder(folder: Path) -> list[_Picture]:
    rows = _annotations(folder / "val" / "val_annotations.txt", 6)
    return [_picture(row, row[1], folder / "val" / "images" / row[0]) for row in rows]


def _tiny_npz(path: Path, split: str) -> list[_Picture]:
    keys = [f"{split}_{part}" for part in ("jpeg", "sizes", "labels", "boxes", "files")]
    entry = _read_npz(path, [*keys, "wnids"])
    data, sizes, labels, boxes, files = (entry[key] for key in keys)
    blobs, wnids = _blobs(data, sizes, path), entry["wnids"]
    labels = _checked_labels(labels, len(blobs), len(wnids), path)
    return [
        _Picture(str(name), str(wnids[label]), tuple(map(int, box)), blob, path)  # type: ignore[arg-type]
        for blob, label, box, name in zip(blobs, labels, boxes, files, strict=True)
    ]
