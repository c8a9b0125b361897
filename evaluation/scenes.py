"""Scenes with a class for every pixel: `shapes` (no download), CamVid and Pascal Context in their folders."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import TensorDataset

from evaluation.images import class_masks
from training.config import Data
from training.data.files import data_root, read_image
from training.data.sets import SHAPES_SIZE, load

IGNORE = 255  # the label of pixels that count nowhere
NAMES = "sky building pole road pavement tree sign_symbol fence car pedestrian bicyclist"
CAMVID = tuple(NAMES.split())  # the classes 0 to 10; 11 is not labelled
CONTEXT_CLASSES = 60  # 59 and background, which is class 0 and counted
CONTEXT_FOLDERS = ("JPEGImages", "SegmentationClassContext", "ImageSets/SegmentationContext")


@dataclass(frozen=True, eq=False)
class Scenes:
    """A set of scenes: scenes[i] is an image uint8 [3, H, W] and its mask, uint8 [H, W] of classes and `IGNORE`."""

    read: Callable[[int], tuple[Tensor, Tensor]]
    count: int
    num_classes: int
    class_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.read(index)


def load_scenes(name: str) -> tuple[Scenes, Scenes]:
    """The (train, test) scenes of a `Recipe.data`; ValueError for files that are missing or damaged."""
    if name == "shapes":  # background is class 0, the ten shapes follow in the order of their labels
        train, test = load(Data("shapes", SHAPES_SIZE))
        names = ("background", *train.class_names)
        return resident(train.images, class_masks(train), names), resident(test.images, class_masks(test), names)
    if name == "camvid":
        return _camvid("train"), _camvid("test")
    return _context("train"), _context("val")


def resident(images: Tensor, masks: Tensor, class_names: tuple[str, ...]) -> Scenes:
    """Scenes of one size in memory: images uint8 [N, 3, H, W], masks uint8 [N, H, W]."""
    read: Any = TensorDataset(images, masks).__getitem__
    return Scenes(read, len(images), len(class_names), class_names)


def _camvid(split: str) -> Scenes:
    """The 367 training or 233 test scenes of SegNet's split: <split>/<name>.jpg and <split>annot/<name>.png."""
    root = (data_root() / "camvid").resolve()
    pictures = sorted((root / split).glob("*.*"))
    if not pictures:
        raise ValueError(f"{root / split} holds no images: put SegNet's CamVid into {root}, or set LUMIX_DATA")
    files = [(picture, root / f"{split}annot" / f"{picture.stem}.png") for picture in pictures]
    return Scenes(partial(_read, files, len(CAMVID), len(CAMVID)), len(files), len(CAMVID), CAMVID)


def _context(split: str) -> Scenes:
    """Pascal Context under `pascal_context/` of the data root, laid out as mmseg's conversion leaves VOC2010.

    `ImageSets/SegmentationContext/{train,val}.txt` (one name a line), `JPEGImages/<name>.jpg`,
    `SegmentationClassContext/<name>.png` with 0 for background, 1 to 59, and 255 for what does not count. It has 4 996
    and 5 104 images, the paper's 4 998 and 5 105."""
    images, masks, lists = (data_root() / "pascal_context" / folder for folder in CONTEXT_FOLDERS)
    listed = lists / f"{split}.txt"
    try:
        names = listed.read_text().split()
    except OSError as error:
        raise ValueError(
            f"{listed} cannot be read ({error.strerror}): put Pascal Context there, the folders "
            f"{', '.join(CONTEXT_FOLDERS)} of VOC2010 as mmsegmentation's converter writes them, or set LUMIX_DATA"
        ) from error
    files = [(images / f"{name}.jpg", masks / f"{name}.png") for name in names]
    return Scenes(partial(_read, files, CONTEXT_CLASSES, IGNORE), len(files), CONTEXT_CLASSES)


def _read(files: list[tuple[Path, Path]], num_classes: int, unlabelled: int, index: int) -> tuple[Tensor, Tensor]:
    """An image and its mask, a PNG of `num_classes` classes in which pixels that do not count are `unlabelled`."""
    picture, labels = files[index]
    image = np.array(read_image(str(picture))).transpose(2, 0, 1)
    try:
        with Image.open(labels) as opened:
            mask = np.array(opened)
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{labels} cannot be read as a mask ({error}): replace it by a fresh copy") from error
    if mask.dtype != np.uint8 or mask.shape != image.shape[1:]:
        raise ValueError(
            f"{labels} holds {mask.dtype} {list(mask.shape)} and {picture} is {list(image.shape[1:])}: a mask is "
            f"a PNG of one 8-bit channel, as large as the image; convert the annotations again"
        )
    mask[mask == unlabelled] = IGNORE
    wrong = mask[(mask >= num_classes) & (mask != IGNORE)]
    if wrong.size:
        raise ValueError(f"{labels} has the value {wrong[0]}, no class of {num_classes}: convert the annotations again")
    return torch.from_numpy(np.ascontiguousarray(image)), torch.from_numpy(mask)
