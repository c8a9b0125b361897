"""Image sets that were packed into .npz archives, written in the layouts in which they are published.

    python tools/convert_data.py PACKED DATA

PACKED holds any of cifar100/{train_*,test}.npz, tiny_imagenet/classes_*.npz and camvid/camvid_240x180.npz; DATA is the
folder that LUMIX_DATA names. Images lie in an archive as one array of encoded files end to end with their sizes;
CIFAR-100's as one lossless strip for each class, 32 pixels wide. Pixels, labels, boxes and masks stay as they are.
"""

import argparse
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Archive = dict[str, np.ndarray]


def read(path: Path) -> Archive:
    with np.load(path) as archive:
        return dict(archive)


def blobs(data: np.ndarray, sizes: np.ndarray) -> list[bytes]:
    """The encoded files that lie end to end in one array."""
    raw, ends = data.tobytes(), np.cumsum(sizes)
    return [raw[end - size : end] for size, end in zip(sizes, ends, strict=True)]


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def convert_cifar100(packed: Path, folder: Path) -> None:
    """torchvision's pickles train, test and meta. The published order of the rows is lost; the engine needs none."""
    names: list[str] = []
    for split in ("train", "test"):
        archives = [read(path) for path in sorted(packed.glob(f"{split}*.npz"))]
        strips = [strip for one in archives for strip in blobs(one["webp"], one["webp_sizes"])]
        pixels = [np.asarray(Image.open(io.BytesIO(strip)).convert("RGB")).reshape(-1, 32, 32, 3) for strip in strips]
        data = np.concatenate(pixels).transpose(0, 3, 1, 2).reshape(-1, 3072)
        labels = [int(label) for one in archives for label in one["fine_labels"]]
        write(folder / split, pickle.dumps({"data": data, "fine_labels": labels}, protocol=4))
        names = archives[-1]["fine_label_names"].tolist()
    write(folder / "meta", pickle.dumps({"fine_label_names": names}, protocol=4))


def convert_tiny_imagenet(packed: Path, folder: Path) -> None:
    """train/<wnid>/images/*.JPEG with <wnid>_boxes.txt, and val/images/*.JPEG with val_annotations.txt."""
    rows: dict[Path, list[str]] = {}
    for archive in map(read, sorted(packed.glob("classes_*.npz"))):
        for split in ("train", "val"):
            parts: tuple[Any, ...] = tuple(archive[f"{split}_{name}"] for name in ("labels", "boxes", "files"))
            files = blobs(archive[f"{split}_jpeg"], archive[f"{split}_sizes"])
            for content, label, box, name in zip(files, *parts, strict=True):
                wnid = str(archive["wnids"][label])
                here = folder / "train" / wnid if split == "train" else folder / "val"
                write(here / "images" / str(name), content)
                listing = here / (f"{wnid}_boxes.txt" if split == "train" else "val_annotations.txt")
                fields = [str(name), *([wnid] if split == "val" else []), *map(str, box)]
                rows.setdefault(listing, []).append("\t".join(fields))
    for listing, lines in rows.items():
        write(listing, "".join(f"{line}\n" for line in lines).encode())


def convert_camvid(packed: Path, folder: Path) -> None:
    """<split>/<name>.jpg and <split>annot/<name>.png with classes 0 to 10 and 11 for what is not labelled."""
    archive = read(packed / "camvid_240x180.npz")
    for split in ("train", "val", "test"):
        files = blobs(archive[f"{split}_jpeg"], archive[f"{split}_sizes"])
        for content, mask, name in zip(files, archive[f"{split}_masks"], archive[f"{split}_files"], strict=True):
            stem = Path(str(name)).stem
            write(folder / split / f"{stem}.jpg", content)
            (folder / f"{split}annot").mkdir(exist_ok=True)
            Image.fromarray(mask).save(folder / f"{split}annot" / f"{stem}.png")


SETS = {
    "cifar100": (convert_cifar100, "cifar-100-python"),
    "tiny_imagenet": (convert_tiny_imagenet, "tiny-imagenet-200"),
    "camvid": (convert_camvid, "camvid"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packed", type=Path, help="the folder of the archives")
    parser.add_argument("data", type=Path, help="the folder to write to, that of LUMIX_DATA")
    arguments = parser.parse_args()
    found = [name for name in SETS if (arguments.packed / name).is_dir()]
    if not found:
        parser.error(
            f"{arguments.packed} holds none of {', '.join(SETS)}: name the folder that the archives' folders are in"
        )
    for name in found:
        convert, folder = SETS[name]
        convert(arguments.packed / name, arguments.data / folder)
        print(f"{name} is in {arguments.data / folder}")


if __name__ == "__main__":
    main()
