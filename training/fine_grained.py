"""Fine-grained sets of photographs, read from files in the layout in which each is published.

cub200     CUB_200_2011/          images.txt, image_class_labels.txt, train_test_split.txt, images/<class>/*.jpg
aircraft   fgvc-aircraft-2013b/   data/images/*.jpg, data/variants.txt, data/images_variant_{trainval,test}.txt
cars       stanford_cars/         devkit/*.mat, cars_train/*.jpg, cars_test/*.jpg, cars_test_annos_withlabels.mat
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset
from torchvision.datasets import FGVCAircraft, StanfordCars

from training.files import data_root

FOLDERS = {"cub200": "CUB_200_2011", "aircraft": "fgvc-aircraft-2013b", "cars": "stanford_cars"}
Image = tuple[Any, int]


class Birds(Dataset[Image]):
    """One split ("train" or "val") of CUB-200-2011 in its own layout, as (image, label).

    `classes` are the names of the image folders, and label k is the class that the files number k + 1.
    """

    def __init__(
        self, root: Path, split: str, transform: Callable[[Any], Any] | None, loader: Callable[[str], Any]
    ) -> None:
        paths, numbers, trains = (
            dict(line.split() for line in (root / name).read_text().splitlines() if line)
            for name in ("images.txt", "image_class_labels.txt", "train_test_split.txt")
        )
        names = {int(numbers[image]): path.split("/")[0] for image, path in paths.items()}
        self.classes = [names[number] for number in range(1, len(names) + 1)]
        wanted = "1" if split == "train" else "0"
        self.samples = [
            (str(root / "images" / path), int(numbers[image]) - 1)
            for image, path in paths.items()
            if trains[image] == wanted
        ]
        self.transform, self.loader = transform, loader

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Image:
        path, label = self.samples[index]
        image = self.loader(path)
        return image if self.transform is None else self.transform(image), label


def fine_grained(
    name: str, split: str, transform: Callable[[Any], Any] | None, loader: Callable[[str], Any]
) -> Birds | FGVCAircraft | StanfordCars:
    """The split ("train" or "val", which is the published test set) of one of `FOLDERS`, as (image, label).

    Aircraft's variants are the classes, and its training and validation images train together.

    Raises:
        ValueError: where the set is missing or incomplete, naming its folder and the remedy.
    """
    root = data_root()
    try:
        if name == "cub200":
            return Birds(root / FOLDERS[name], split, transform, loader)
        if name == "aircraft":
            part = "trainval" if split == "train" else "test"
            return FGVCAircraft(root, part, transform=transform, loader=loader)
        part = "train" if split == "train" else "test"
        # The files have labels of 8 bits, which would stay so in a batch.
        return StanfordCars(root, part, transform=transform, target_transform=int, loader=loader)
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise ValueError(
            f"{root / FOLDERS[name]} does not hold {name} as it is published ({error}): unpack a fresh copy there, or "
            f"set LUMIX_DATA to the folder that has it"
        ) from error
