"""CIFAR-100 and Tiny-ImageNet from files: both layouts, and one clear sentence for everything that can be wrong."""

import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import CIFAR10, CIFAR100
from torchvision.datasets.utils import calculate_md5

from training import files
from training.config import Data
from training.data import load
from training.imageset import channel_statistics

SHARED = Path(__file__).resolve().parents[1] / ".." / "shared" / "data"
needs_shared = pytest.mark.skipif(not (SHARED / "cifar100").is_dir(), reason="no real image sets in ../shared/data")


def rows(images: torch.Tensor) -> list[bytes]:
    return [image.numpy().tobytes() for image in images]


def write_cifar_pickles(root: Path, count: int = 6) -> Path:
    folder = root / files.CIFAR100_FOLDER
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("train", "test"):
        data = rng.integers(0, 256, (count, 3072), dtype=np.uint8)
        (folder / name).write_bytes(pickle.dumps({"data": data, "fine_labels": list(range(count))}, protocol=2))
    names = {"fine_label_names": [f"class {i}" for i in range(100)]}
    (folder / "meta").write_bytes(pickle.dumps(names, protocol=2))
    return folder


def publish(
    folder: Path, monkeypatch: pytest.MonkeyPatch, kind: Any = CIFAR100, names: str = "fine_label_names"
) -> None:
    """Let torchvision take these files for the published ones."""
    train, test, meta = ((name, calculate_md5(str(folder / name))) for name in ("train", "test", "meta"))
    monkeypatch.setattr(kind, "train_list", [train])
    monkeypatch.setattr(kind, "test_list", [test])
    monkeypatch.setattr(kind, "meta", {"filename": meta[0], "key": names, "md5": meta[1]})


def test_cifar100_of_torchvisions_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_cifar_pickles(tmp_path)
    publish(folder, monkeypatch)
    train, test = files.cifar100(tmp_path)
    entry = pickle.loads((folder / "train").read_bytes())
    stored = {row.tobytes(): label for row, label in zip(entry["data"], entry["fine_labels"], strict=True)}
    assert {image: int(y) for image, y in zip(rows(train.images), train.labels, strict=True)} == stored
    assert train.images.is_contiguous()
    assert len(test) == 6
    assert train.class_names[3] == "class 3"


def test_cifar10_of_torchvisions_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_cifar_pickles(tmp_path, count=10).rename(tmp_path / files.CIFAR10_FOLDER)
    for name in ("train", "test"):
        entry = pickle.loads((folder / name).read_bytes())
        entry["labels"] = entry.pop("fine_labels")
        (folder / name).write_bytes(pickle.dumps(entry, protocol=2))
    (folder / "meta").write_bytes(pickle.dumps({"label_names": [f"class {i}" for i in range(10)]}, protocol=2))
    publish(folder, monkeypatch, CIFAR10, "label_names")
    train, test = files.cifar10(tmp_path)
    entry = pickle.loads((folder / "train").read_bytes())
    stored = {row.tobytes(): label for row, label in zip(entry["data"], entry["labels"], strict=True)}
    assert {image: int(y) for image, y in zip(rows(train.images), train.labels, strict=True)} == stored
    assert (len(test), train.num_classes, train.class_names[3]) == (10, 10, "class 3")
    (folder / "test").write_bytes(b"another file")
    with pytest.raises(ValueError, match=r"cifar-10-batches-py is not the published, complete CIFAR-10 .*fresh copy"):
        files.cifar10(tmp_path)


class Evil:
    """Unpickles by calling a function."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("code of the file was run",))


@pytest.mark.parametrize("content", [b"", b"not a pickle", pickle.dumps([1, 2]), pickle.dumps({"data": Evil()}), None])
@pytest.mark.parametrize("name", ["train", "test", "meta"])
def test_other_pickles_than_the_published_are_never_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes | None, capsys: Any
) -> None:
    folder = write_cifar_pickles(tmp_path)
    publish(folder, monkeypatch)
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=r"cifar-100-python is not the published, complete CIFAR-100 .*fresh copy"):
        files.cifar100(tmp_path)
    assert "code of the file" not in capsys.readouterr().out


def test_a_missing_data_root_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUMIX_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"LUMIX_DATA is '.*nowhere', which is no folder: set it to"):
        load(Data("cifar100", 32))


def test_a_missing_set_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_internet(*_: Any, **__: Any) -> None:
        raise OSError("no route")

    monkeypatch.setattr("torchvision.datasets.CIFAR100", no_internet)
    monkeypatch.setenv("LUMIX_DATA", str(tmp_path))
    with pytest.raises(ValueError, match=r"CIFAR-100 is neither in .*cannot be downloaded \(no route\): put it there"):
        load(Data("cifar100", 32))
    monkeypatch.setattr("torchvision.datasets.CIFAR10", no_internet)
    with pytest.raises(ValueError, match=r"CIFAR-10 is not in .*cannot be downloaded \(no route\): put it there"):
        load(Data("cifar10", 32))
    with pytest.raises(ValueError, match=r"Tiny-ImageNet is neither in .*LUMIX_DATA"):
        load(Data("tiny_imagenet", 64))
    assert list(tmp_path.iterdir()) == []


def test_a_download_appears_only_when_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(write_cifar_pickles(tmp_path / "source"), monkeypatch)
    monkeypatch.setattr(CIFAR100, "download", lambda self: write_cifar_pickles(Path(self.root)))
    assert len(files.cifar100(tmp_path / "data")[0]) == 6
    assert [path.name for path in (tmp_path / "data").iterdir()] == [files.CIFAR100_FOLDER]


def write_npz(path: Path, **arrays: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)


def jpeg(path: Path, side: int = 64, grey: bool = False) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(path.name)).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels[..., 0] if grey else pixels).save(path, "JPEG")
    return path.read_bytes()


def write_tiny(root: Path) -> Path:
    """Two classes of two training images and one of validation, one of them grey."""
    folder = root / files.TINY_FOLDER
    annotations = []
    for number, wnid in enumerate(("n02", "n01")):
        here = folder / "train" / wnid
        names = [f"{wnid}_{i}.JPEG" for i in range(2)]
        for i, name in enumerate(names):
            jpeg(here / "images" / name, grey=i == 1)
        (here / f"{wnid}_boxes.txt").write_text("".join(f"{name}\t1\t2\t40\t50\n" for name in names))
        jpeg(folder / "val" / "images" / f"val_{number}.JPEG")
        annotations.append(f"val_{number}.JPEG\t{wnid}\t0\t0\t63\t63\n")
    annotations.append("val_9.JPEG\tn09\t0\t0\t63\t63\n")  # of a class without training images
    (folder / "val" / "val_annotations.txt").write_text("".join(annotations))
    return folder


def test_tiny_imagenet_of_the_standard_layout(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    train, val = files.tiny_imagenet(tmp_path)
    assert train.class_names == ("n01", "n02")
    assert sorted(train.labels.tolist()) == [0, 0, 1, 1]
    assert sorted(val.labels.tolist()) == [0, 1]
    assert train.images.shape == (4, 3, 64, 64)
    assert train.boxes is not None
    assert train.boxes.tolist() == [[2, 51, 1, 41]] * 4


def test_bad_tiny_imagenet_files_are_named(tmp_path: Path) -> None:
    folder = write_tiny(tmp_path)
    image = folder / "train" / "n01" / "images" / "n01_0.JPEG"
    image.write_bytes(image.read_bytes()[:300])
    with pytest.raises(ValueError, match=r"n01_0.JPEG cannot be read as an image .*fresh copy"):
        files.tiny_imagenet(tmp_path)
    jpeg(image, side=32)
    with pytest.raises(ValueError, match=r"n01_0.JPEG has 32x32 pixels instead of 64x64"):
        files.tiny_imagenet(tmp_path)
    image.unlink()
    with pytest.raises(ValueError, match=r"n01_0.JPEG cannot be read as an image .*No such file"):
        files.tiny_imagenet(tmp_path)
    (folder / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn01\t0\t0\tx\t63\n")
    with pytest.raises(ValueError, match=r"val_annotations.txt, line 1, is not"):
        files.tiny_imagenet(tmp_path)
    shutil.rmtree(folder / "train")
    with pytest.raises(ValueError, match="train has no class folders"):
        files.tiny_imagenet(tmp_path)


def test_damaged_archives_are_named(tmp_path: Path) -> None:
    path = tmp_path / "tiny_imagenet" / "classes_0.npz"
    write_npz(path, wnids=np.array(["n01"]))
    with pytest.raises(ValueError, match=r"classes_0.npz has no array train_jpeg: replace it"):
        files.tiny_imagenet(tmp_path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"classes_0.npz is damaged .*: replace it"):
        files.tiny_imagenet(tmp_path)
    strip = np.frombuffer(jpeg(tmp_path / "x.jpg", side=32), np.uint8)
    entry: dict[str, Any] = {"webp": strip, "webp_sizes": np.array([len(strip)]), "fine_label_names": np.array(["a"])}
    write_npz(tmp_path / "cifar100" / "train_0.npz", **entry, fine_labels=np.array([200]))
    with pytest.raises(ValueError, match=r"train_0.npz has label 200, outside 0 to 99"):
        files.cifar100(tmp_path)
    write_npz(tmp_path / "cifar100" / "train_0.npz", **entry, fine_labels=np.array([0, 1]))
    with pytest.raises(ValueError, match=r"strip 0 in .*train_0.npz has 32x32 pixels instead of 64x32"):
        files.cifar100(tmp_path)
    write_npz(tmp_path / "cifar100" / "train_0.npz", **entry, fine_labels=np.array([0]))
    with pytest.raises(ValueError, match=r"test.npz is missing"):
        files.cifar100(tmp_path)
    write_npz(
        tmp_path / "cifar100" / "train_0.npz", **{**entry, "webp_sizes": np.array([3])}, fine_labels=np.array([0])
    )
    with pytest.raises(ValueError, match="sizes add up to 3"):
        files.cifar100(tmp_path)


# Real data ---------------------------------------------------------------------------------------------------------


@pytest.mark.data
@needs_shared
def test_both_layouts_of_cifar100_give_the_same_tensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "npz" / "cifar100").mkdir(parents=True)
    for name in ("train_0.npz", "test.npz"):
        (tmp_path / "npz" / "cifar100" / name).symlink_to(SHARED.resolve() / "cifar100" / name)
    archived = files.cifar100(tmp_path / "npz")
    folder = tmp_path / files.CIFAR100_FOLDER
    folder.mkdir()
    shuffle = np.random.default_rng(0).permutation(10_000)
    for name, part in zip(("train", "test"), archived, strict=True):
        pixels, labels = part.images.reshape(-1, 3072).numpy()[shuffle], part.labels.numpy()[shuffle].tolist()
        (folder / name).write_bytes(pickle.dumps({"data": pixels, "fine_labels": labels}, protocol=4))
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": list(archived[0].class_names)}))
    publish(folder, monkeypatch)
    for left, right in zip(archived, files.cifar100(tmp_path), strict=True):
        assert torch.equal(left.images, right.images)
        assert torch.equal(left.labels, right.labels)
        assert torch.bincount(left.labels).tolist() == [100] * 100
        assert left.class_names == right.class_names
    mean, std = channel_statistics(archived[1].images)
    assert np.allclose(mean, archived[0].mean, atol=3e-3)
    assert np.allclose(std, archived[0].std, atol=3e-3)
    first = archived[0].labels[:1000]  # the first images are a mixed subset, not the first classes
    assert len(first.unique()) == 100


@pytest.mark.data
@needs_shared
def test_both_layouts_of_tiny_imagenet_give_the_same_tensors(tmp_path: Path) -> None:
    folder = tmp_path / files.TINY_FOLDER
    with np.load(SHARED / "tiny_imagenet" / "classes_0.npz") as z:
        archive = {key: z[key] for key in z.files}
    for split in ("train", "val"):
        every = slice(None, None, 25)  # 400 training images, 20 a class, and 40 of validation
        ends, lines = np.cumsum(archive[f"{split}_sizes"])[every], {}
        labels, boxes, names, sizes = (
            archive[f"{split}_{part}"][every] for part in ("labels", "boxes", "files", "sizes")
        )
        raw = archive[f"{split}_jpeg"].tobytes()
        blobs = [raw[end - size : end] for end, size in zip(ends, sizes, strict=True)]
        for blob, label, box, name in zip(blobs, labels, boxes, names, strict=True):
            wnid = str(archive["wnids"][label])
            here = folder / "train" / wnid / "images" if split == "train" else folder / "val" / "images"
            here.mkdir(parents=True, exist_ok=True)
            (here / str(name)).write_bytes(blob)
            listing = here.parent / (f"{wnid}_boxes.txt" if split == "train" else "val_annotations.txt")
            row = [str(name), *([wnid] if split == "val" else []), *map(str, box)]
            lines.setdefault(listing, []).append("\t".join(row))
        for listing, content in lines.items():
            listing.write_text("\n".join(content) + "\n")
        parts = {"jpeg": np.frombuffer(b"".join(blobs), np.uint8), "labels": labels, "boxes": boxes, "files": names}
        archive.update({f"{split}_{part}": value for part, value in {**parts, "sizes": sizes}.items()})
    write_npz(tmp_path / "npz" / "tiny_imagenet" / "classes_0.npz", **archive)
    for left, right in zip(files.tiny_imagenet(tmp_path / "npz"), files.tiny_imagenet(tmp_path), strict=True):
        assert left.num_classes == 20
        assert left.class_names == right.class_names
        for name in ("images", "labels", "boxes"):
            assert torch.equal(getattr(left, name), getattr(right, name))
        assert left.boxes is not None
        assert left.boxes.max() == 64
