"""Sets of photographs read from files: where they lie, how one is decoded, timm's transforms, reproducible workers.

imagenet   imagenet/{train,val}/<wnid>/*.JPEG
cub200     CUB_200_2011/          images.txt, image_class_labels.txt, train_test_split.txt, images/<class>/*.jpg
aircraft   fgvc-aircraft-2013b/   data/images/*.jpg, data/variants.txt, data/images_variant_{trainval,test}.txt
cars       stanford_cars/         devkit/*.mat, cars_train/*.jpg, cars_test/*.jpg, cars_test_annos_withlabels.mat
"""

import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import torch
from PIL import Image
from timm.data import create_transform
from timm.data.auto_augment import RandAugment
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.datasets import FGVCAircraft, ImageFolder, StanfordCars
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.transforms import Compose, InterpolationMode, Resize

from training.config import FINE_GRAINED, Data

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "PPM", "TIFF", "GIF")  # what images may be in; none of them runs a program
FOLDERS = {"cub200": "CUB_200_2011", "aircraft": "fgvc-aircraft-2013b", "cars": "stanford_cars"}
Transform = Callable[[Any], Any]


def data_root() -> Path:
    """The folder of all image sets: environment variable LUMIX_DATA, default `data`."""
    named = os.environ.get("LUMIX_DATA")
    if named and not Path(named).is_dir():
        raise ValueError(f"LUMIX_DATA is {named!r}, which is no folder: set it to the folder that holds the image sets")
    return Path(named or "data")


def read_image(path: str | Path) -> Image.Image:
    """The RGB image in a file of one of `FORMATS`."""
    try:
        if not os.path.isfile(path):  # a pipe would be waited for
            raise OSError("it is no file")
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > (Image.MAX_IMAGE_PIXELS or 2**62):
                raise ValueError(f"{image.width}x{image.height} pixels are too many")
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"{path} cannot be read as an image ({error}): replace it by a fresh copy") from error


class ClassFolders(ImageFolder):
    """torchvision's ImageFolder without links back to a folder above and without what is no file, as pipes."""

    def __init__(self, root: Path, transform: Transform | None = None, loader: Callable[[str], Any] = read_image):
        try:
            super().__init__(str(root), transform=transform, loader=loader)
        except OSError as error:
            raise ValueError(
                f"{root} is no folder of class folders with images ({error}): put the split there, or set LUMIX_DATA"
            ) from error

    def find_classes(self, directory: str | Path) -> tuple[list[str], dict[str, int]]:
        here = Path(directory).resolve()
        folders = (entry for entry in os.scandir(directory) if os.path.isdir(entry))
        classes = sorted(entry.name for entry in folders if not here.is_relative_to(Path(entry).resolve()))
        if not classes:
            raise FileNotFoundError(f"it has no folders: {directory}")
        return classes, {name: label for label, name in enumerate(classes)}

    @staticmethod
    def make_dataset(directory: Any, class_to_idx: dict[str, int], *_: Any, **__: Any) -> list[tuple[str, int]]:
        found = {name: _images_below(os.path.join(directory, name)) for name in class_to_idx}
        empty = [name for name, paths in found.items() if not paths]
        if empty:
            raise FileNotFoundError(f"class {empty[0]} has no images")
        return [(path, class_to_idx[name]) for name, paths in found.items() for path in paths]


def _images_below(folder: str) -> list[str]:
    """The paths of image files in a folder, in order, then those in its folders; a million files are not looked at."""
    entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    found = [
        entry.path
        for entry in entries
        if entry.name.lower().endswith(IMG_EXTENSIONS)
        and (os.path.isfile(entry) if entry.is_symlink() else entry.is_file())
    ]
    return found + [path for entry in entries if entry.is_dir(follow_symlinks=False) for path in _images_below(entry.path)]


FileSet: TypeAlias = ClassFolders | FGVCAircraft | StanfordCars


def file_set(
    name: str, split: str, transform: Transform | None = None, loader: Callable[[str], Any] = read_image
) -> FileSet:
    """The split ("train" or "val") of a set of files under the data root, as (image, label), with its `classes`.

    Of fine-grained sets "val" is the published test set. Aircraft's variants are the classes, and its training and
    validation images train together.
    """
    root = data_root()
    if name not in FINE_GRAINED:
        return ClassFolders(root / name / split, transform, loader)
    try:
        if name == "cub200":
            found: FileSet = birds(root / FOLDERS[name], split, transform, loader)
        elif name == "aircraft":
            part = "trainval" if split == "train" else "test"
            found = FGVCAircraft(root, part, transform=transform, loader=loader)
        else:
            part = "train" if split == "train" else "test"
            # The files have labels of 8 bits, which would stay so in a batch.
            found = StanfordCars(root, part, transform=transform, target_transform=int, loader=loader)
        if not len(found):
            raise ValueError(f"its lists name no image of {split}")
        return found
    except Exception as error:  # scipy has errors of its own
        raise ValueError(
            f"{root / FOLDERS[name]} does not hold {name} as it is published ({error}): unpack a fresh copy there, or "
            f"set LUMIX_DATA to the folder that has it"
        ) from error


def birds(root: Path, split: str, transform: Transform | None, loader: Callable[[str], Any]) -> ClassFolders:
    """One split of CUB-200-2011: the images of its class folders that the list of this split names, in its order."""
    files = ClassFolders(root / "images", transform, loader)
    paths, trains = (
        dict(line.split() for line in (root / name).read_text().splitlines() if line)
        for name in ("images.txt", "train_test_split.txt")
    )
    files.samples = [
        (str(root / "images" / path), files.class_to_idx[path.split("/")[0]])
        for image, path in paths.items()
        if (trains[image] == "1") == (split == "train")
    ]
    return files


def several_views(transform: Transform, number: int, image: Any) -> tuple[Any, ...]:
    """Several pictures of an image by one random transform."""
    return tuple(transform(image) for _ in range(number))


def files_of_run(
    data: Data, views: int = 0, other_views: int = 0
) -> tuple[FileSet, FileSet | None, FileSet, Tensor]:
    """Training images, these again in `other_views` to go without labels, test images, and labels, of a set of files.

    Images are normalised float32 [3, S, S]. Training images go through `train_transform`; where there are `views` of one they are a tuple, each with draws of its
    own. Test images go through resize and centre crop. `labels` [N] int64 are those of the training images where
    `data.labels` asks for a choice among them, else empty; no file is opened for them.
    """
    transform, size = train_transform(data), data.test_size or data.image_size
    centre = create_transform(size, interpolation="bicubic", crop_pct=data.test_crop)
    plain = file_set(data.name, "train", loader=str) if data.labels else ()  # str opens nothing
    return (
        file_set(data.name, "train", partial(several_views, transform, views) if views else transform),
        file_set(data.name, "train", partial(several_views, transform, other_views)) if other_views else None,
        file_set(data.name, "val", centre),
        torch.tensor([plain[index][1] for index in range(len(plain))], dtype=torch.int64),
    )


def train_transform(data: Data) -> Compose:
    """timm's training transform: random resized crop, flip, RandAugment, normalisation and erasing as `data` says.

    Fine-grained images are resized before the crop, their shorter side to 8/7 of S, as their recipes have it.
    """
    if not data.crop_scale:
        raise ValueError("Data.crop_scale must be above 0 for images of many sizes: 0.08 is ImageNet's")
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


def _at_least_one_bit(level: Callable[..., tuple[int]], magnitude: float, hparams: dict[str, Any]) -> tuple[int]:
    return (max(1, level(magnitude, hparams)[0]),)


def ignore_signals(_worker: int = 0) -> None:
    """For a DataLoader's `worker_init_fn`: a worker outlives the signals that SLURM sends to every process of a job.

    Otherwise it dies, or runs its parent's handler, while the parent is writing its checkpoint.
    """
    for number in (signal.SIGUSR2, signal.SIGTERM, signal.SIGCONT):
        signal.signal(number, signal.SIG_IGN)
