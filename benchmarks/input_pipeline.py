"""Row 7 of the benchmark: from a JPEG of ImageNet's size to a 224 pixel crop, and to a normalised, augmented image.

Peer is timm's training transform on Pillow, ours is `Data.pipeline` "fast". `cases` gives callables that a timer
runs in turn, each on all files; `check` shows first that both see the same crops. Threads are as torch has them.
"""

import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from training.fast import CropReader, read_image, read_pixels
from training.folder import EpochSampler, device_augmentation, train_loader

from training.config import Data
from training.data.files import train_transform

IMAGENET = Data(
    "imagenet", 224, flip=True, crop_scale=0.08, rand_augment="rand-m9-mstd0.5-inc1", erasing=0.25, pipeline="fast"
)
SIZE = (500, 375)  # pixels of a typical file of ImageNet
TARGETS = {"crop": 2.0, "full": 3.0, "scaling": 0.9}  # ratios to timm; share of twice the rate of one worker

Case = Callable[[], Any]


@contextmanager
def jpegs(count: int = 100, seed: int = 0) -> Iterator[list[str]]:
    """Paths of `count` JPEGs of `SIZE` and quality 90 in a temporary folder: parts of two real photographs, some turned
    left to right."""
    rng = random.Random(seed)
    photographs = [Image.fromarray(image) for image in load_sample_images().images]
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for i in range(count):
            photograph = photographs[i % 2]
            height = rng.randint(330, photograph.height)
            width = height * SIZE[0] // SIZE[1]
            left, top = rng.randint(0, photograph.width - width), rng.randint(0, photograph.height - height)
            part = photograph.crop((left, top, left + width, top + height)).resize(SIZE, Image.Resampling.BICUBIC)
            part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else part
            paths.append(str(Path(folder) / f"{i}.JPEG"))
            part.save(paths[-1], quality=90)
        yield paths


def each(paths: list[str], function: Callable[[str], Any], seed: int = 0) -> list[Any]:
    """`function` of every path, with the same draws from Python's `random` at each call, whose state is left as is."""
    state = random.getstate()
    random.seed(seed)
    try:
        return [function(path) for path in paths]
    finally:
        random.setstate(state)


def check(paths: list[str]) -> dict[str, float]:
    """How far the two paths are apart, in grey levels.

    Raises:
        ValueError: where decoding is not equal bit for bit, or a crop is further than 0.3 from timm's on average.
    """
    for path in paths:
        if not np.array_equal(read_pixels(path), np.asarray(read_image(path))):
            raise ValueError(f"OpenCV and Pillow decode {path} differently")
    step = train_transform(IMAGENET).transforms[0]
    ours = torch.stack(each(paths, CropReader.like(step)))
    peer = np.stack(each(paths, lambda path: np.asarray(step(read_image(path)))))
    difference = (ours.int() - torch.from_numpy(peer).int()).abs().double().mean((1, 2, 3))
    if difference.max() > 0.3:
        raise ValueError(f"a crop is {difference.max():.2f} grey levels from timm's, more than the 0.3 of rounding")
    return {"mean difference": float(difference.mean()), "largest mean difference": float(difference.max())}


def cases(paths: list[str], device: torch.device | str = "cpu") -> dict[str, Case]:
    """Callables by name, each of which works through all files once.

    "crop: timm" over "crop: fast" is the first ratio, "full: timm" over "crop: fast" the second: of the whole
    transform, only the crop is left to a worker. "full: device" is the rest, batched on `device`, and ends when the
    device has finished.
    """
    transform = train_transform(IMAGENET)
    step = transform.transforms[0]
    reader, augmentation = CropReader.like(step), device_augmentation(IMAGENET)
    crops = torch.stack(each(paths, reader)).to(device).permute(0, 3, 1, 2)

    def on_device() -> Tensor:
        images = augmentation(crops, torch.Generator().manual_seed(0))
        if images.is_cuda:
            torch.cuda.synchronize(images.device)
        return images

    return {
        "crop: timm": lambda: each(paths, lambda path: step(read_image(path))),
        "crop: fast": lambda: each(paths, reader),
        "full: timm": lambda: each(paths, lambda path: transform(read_image(path))),
        "full: device": on_device,
    }


class Crops(Dataset[tuple[Tensor, int]]):
    """The fast path's crops of some files, over and over to `length`."""

    def __init__(self, paths: list[str], length: int) -> None:
        self.paths, self.length = paths, length
        self.reader = CropReader.like(train_transform(IMAGENET).transforms[0])

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.reader(self.paths[index % len(self.paths)]), 0


def loader_case(paths: list[str], workers: int, images: int = 800) -> Case:
    """A callable that loads `images` crops by the training loader with `workers` processes, which outlive the call.

    The rate of two workers over twice the rate of one is the scaling. The first call starts the workers: leave it out.
    """
    loader: DataLoader[Any] = train_loader(Crops(paths, images), EpochSampler(images, 50, seed=0), workers)

    def load() -> int:
        return sum(len(labels) for _, labels in loader)

    return load
