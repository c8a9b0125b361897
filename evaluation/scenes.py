"""Scenes with a class for every pixel: `shapes` (no download), CamVid (npz) and Pascal Context (folders)."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from evaluation.images import class_masks
from training.config import Data
from training.data import load
from training.embedded import SHAPES_SIZE
from training.files import _blobs, _decode, _read_npz, data_root
from training.folder import read_image

IGNORE = 255  # the label of pixels that count nowhere
CAMVID_CLASSES, CAMVID_UNLABELLED = 11, 11
CONTEXT_CLASSES = 60  # 59 and background, which is class 0 and counted
CONTEXT_FOLDERS = ("JPEGImages", "SegmentationClassContext", "ImageSets/SegmentationContext")


@dataclass(frozen=True, eq=False)
class ResidentScenes:
    """Scenes of one size in memory: images uint8 [N, 3, H, W], masks uint8 [N, H, W]."""

    images: Tensor
    masks: Tensor
    num_classes: int
    class_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.images[index], self.masks[index]


@dataclass(frozen=True, eq=False)
class ScenesOfFiles:
    """Scenes of any size, one image and one mask file (an indexed PNG) each."""

    files: tuple[tuple[Path, Path], ...]
    num_classes: int
    class_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        picture, labels = self.files[index]
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
        wrong = mask[(mask >= self.num_classes) & (mask != IGNORE)]
        if wrong.size:
            raise ValueError(
                f"{labels} has the value {wrong[0]}, neither one of {self.num_classes} classes nor {IGNORE}: "
                f"convert the annotations again"
            )
        return torch.from_numpy(np.ascontiguousarray(image)), torch.from_numpy(mask)


# scenes[i] is (uint8 [3, H, W], uint8 [H, W] of classes and `IGNORE`)
Scenes = ResidentScenes | ScenesOfFiles


def load_scenes(name: str) -> tuple[Scenes, Scenes]:
    """The (train, test) scenes of a `Recipe.data`; ValueError for files that are missing or damaged."""
    if name == "shapes":
        # Background is class 0, the ten shapes follow in the order of their labels.
        train, test = (
            ResidentScenes(part.images, class_masks(part), part.num_classes + 1, ("background", *part.class_names))
            for part in load(Data("shapes", SHAPES_SIZE))
        )
        return train, test
    if name == "camvid":
        return _camvid((data_root() / "camvid" / "camvid_240x180.npz").resolve())
    return _context("train"), _context("val")


@lru_cache(maxsize=1)
def _camvid(path: Path) -> tuple[ResidentScenes, ResidentScenes]:
    """The 367 training and 233 test scenes of SegNet's split at 240x180; the 101 of its validation set are not used."""
    parts = []
    for split in ("train", "test"):
        entry = _read_npz(path, [f"{split}_jpeg", f"{split}_sizes", f"{split}_masks", f"{split}_files", "names"])
        masks = entry[f"{split}_masks"]
        blobs = _blobs(entry[f"{split}_jpeg"], entry[f"{split}_sizes"], path)
        names = entry[f"{split}_files"]
        images = [_decode(blob, path, str(name), masks.shape[1:]) for blob, name in zip(blobs, names, strict=True)]
        labels = np.where(masks == CAMVID_UNLABELLED, IGNORE, masks).astype(np.uint8)
        stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
        classes = tuple(map(str, entry["names"][:CAMVID_CLASSES]))
        parts.append(ResidentScenes(stacked, torch.from_numpy(labels), CAMVID_CLASSES, classes))
    return parts[0], parts[1]


def _context(split: str) -> ScenesOfFiles:
    """Pascal Context under `pascal_context/` of the data root, laid out as mmseg's conversion leaves VOC2010.

    `ImageSets/SegmentationContext/{train,val}.txt` (one name a line), `JPEGImages/<name>.jpg`,
    `SegmentationClassContext/<name>.png` with 0 for background, 1 to 59, and 255 for what does not count. The paper has
    4 998 and 5 105 images, the common conversion 4 996 and 5 104; results carry the number that was read.
    """
    images, masks, lists = (data_root() / "pascal_context" / folder for folder in CONTEXT_FOLDERS)
    listed = lists / f"{split}.txt"
    try:
        names = listed.read_text().split()
    except OSError as error:
        raise ValueError(
            f"{listed} cannot be read ({error.strerror}): put Pascal Context there, the folders "
            f"{', '.join(CONTEXT_FOLDERS)} of VOC2010 as mmsegmentation's converter writes them, or set LUMIX_DATA"
        ) from error
    return ScenesOfFiles(tuple((images / f"{name}.jpg", masks / f"{name}.png") for name in names), CONTEXT_CLASSES)
