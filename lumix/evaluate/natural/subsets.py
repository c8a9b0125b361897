"""The 200 classes of ImageNet-A and of ImageNet-O among ImageNet's 1000, by folder name (evaluation.md 5 and 6)."""

from collections.abc import Iterable
from pathlib import Path

# name of the folder under the data root -> (first indices, last indices, sum) of a complete copy
CHECKS: dict[str, tuple[tuple[int, ...], tuple[int, ...], int]] = {
    "imagenet-a": ((6, 11, 13, 15, 17, 22), (984, 986, 987, 988), 102178),
    "imagenet-o": ((1, 51, 70, 79, 89, 90), (971, 980, 987, 988, 996), 134542),
}
WNIDS, CLASSES = 1000, 200


def class_folders(folder: Path) -> list[str]:
    """Names of the class folders (n01440764 ...) of a split, sorted.

    Raises:
        ValueError: where there are none, naming the folder and the remedy.
    """
    names = sorted(path.name for path in folder.glob("n*") if path.is_dir())
    if not names:
        raise ValueError(f"{folder} has no class folders (n01440764 ...): put the data set there, or set LUMIX_DATA")
    return names


def class_indices(name: str, folders: Iterable[str], wnids: Iterable[str]) -> list[int]:
    """Places of the sorted `folders` of ImageNet-A or -O among the sorted training `wnids`.

    Args:
        name: "imagenet-a" or "imagenet-o", whose known indices are checked.

    Raises:
        ValueError: for a copy that is not complete, naming what differs.
    """
    kept, known = sorted(folders), sorted(wnids)
    if len(set(known)) != WNIDS:
        raise ValueError(f"the training set must have {WNIDS} class folders, not {len(set(known))}: complete it")
    unknown = sorted(set(kept) - set(known))
    if unknown:
        raise ValueError(f"{name} has the folder {unknown[0]}, which is no class of ImageNet-1k: remove it")
    place = {wnid: index for index, wnid in enumerate(known)}
    indices = [place[wnid] for wnid in kept]
    first, last, total = CHECKS[name]
    if (
        len(indices) != CLASSES
        or tuple(indices[: len(first)]) != first
        or tuple(indices[-len(last) :]) != last
        or sum(indices) != total
    ):
        raise ValueError(
            f"{name} has {len(indices)} class folders with index sum {sum(indices)}, not {CLASSES} with {total}: "
            f"replace it by a complete copy"
        )
    return indices
