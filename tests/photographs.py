"""Tiny copies of sets of files, each in its published layout, for the tests of files and feeds."""

from pathlib import Path

import numpy as np
import scipy.io
from PIL import Image

LABELS = {"train": [0, 0, 1, 1, 2, 2], "val": [0, 1, 2]}  # of every copy here; grey 40 x label tells the class


def picture(path: Path, label: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((40, 60, 3), 40 * label, dtype=np.uint8)).save(path)


def write(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def imagenet(root: Path) -> None:
    for split, labels in LABELS.items():
        for i, label in enumerate(labels):
            picture(root / "imagenet" / split / f"n0{label}" / f"{i}.JPEG", label)


def cub200(root: Path) -> None:
    folder, rows = root / "CUB_200_2011", []
    for split, labels in LABELS.items():
        rows += [(f"{label + 1:03}.Bird_{label}/{split}_{i}.jpg", label, split) for i, label in enumerate(labels)]
    for path, label, _ in rows:
        picture(folder / "images" / path, label)
    write(folder / "images.txt", [f"{i} {path}" for i, (path, _, _) in enumerate(rows, 1)])
    write(folder / "train_test_split.txt", [f"{i} {int(split == 'train')}" for i, (_, _, split) in enumerate(rows, 1)])


def aircraft(root: Path) -> None:
    data = root / "fgvc-aircraft-2013b" / "data"
    write(data / "variants.txt", ["Boeing 0", "Boeing 1", "Boeing 2"])
    for (split, labels), name in zip(LABELS.items(), ("trainval", "test"), strict=True):
        write(data / f"images_variant_{name}.txt", [f"{split}{i} Boeing {label}" for i, label in enumerate(labels)])
        for i, label in enumerate(labels):
            picture(data / "images" / f"{split}{i}.jpg", label)


def cars(root: Path) -> None:
    folder = root / "stanford_cars"
    (folder / "devkit").mkdir(parents=True)
    names = np.array(["Car 0", "Car 1", "Car 2"], dtype=object)
    scipy.io.savemat(folder / "devkit" / "cars_meta.mat", {"class_names": names})
    files = (folder / "devkit" / "cars_train_annos.mat", folder / "cars_test_annos_withlabels.mat")
    for (split, labels), part, path in zip(LABELS.items(), ("cars_train", "cars_test"), files, strict=True):
        rows = [(f"{split}{i}.jpg", label + 1) for i, label in enumerate(labels)]
        annotations = np.array(rows, dtype=[("fname", object), ("class", np.uint8)])
        scipy.io.savemat(path, {"annotations": annotations})
        for i, label in enumerate(labels):
            picture(folder / part / f"{split}{i}.jpg", label)


WRITERS = {"imagenet": imagenet, "cub200": cub200, "aircraft": aircraft, "cars": cars}
