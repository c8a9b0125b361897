"""Sets in memory: randomness by address, digits and scenes, CIFAR and Tiny-ImageNet from files, augmentation."""

import hashlib
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits  # here, because its import moves the state of `random`
from torchvision.datasets import CIFAR10, CIFAR100
from torchvision.datasets.utils import calculate_md5

from training.config import Data
from training.data import sets
from training.data.sets import (
    FAMILIES,
    SHAPES_MEAN,
    SHAPES_STD,
    augment,
    boxes_of,
    channel_statistics,
    digits,
    is_resident,
    load,
    normalise,
    shapes,
)
from training.rng import endless_batches, epoch_order, step_generator, stream_seed

pytestmark = pytest.mark.usefixtures("global_state_untouched")


def rows(images: torch.Tensor) -> list[bytes]:
    return [image.numpy().tobytes() for image in images]


def test_stream_seeds_are_fixed_and_differ_in_every_part_of_the_address() -> None:
    digest = hashlib.blake2b(b"(0, 1, 'mix')", digest_size=8).digest()
    assert stream_seed(0, 1, "mix") == int.from_bytes(digest, "little") // 2
    addresses = [(s, r, t, n) for s in range(4) for r in range(3) for t in range(50) for n in ("mix", "augment")]
    assert len({stream_seed(*address) for address in addresses}) == len(addresses)
    draws = [torch.rand(5, generator=step_generator(*address)) for address in [(3, 0, 7, "mix")] * 2 + addresses[:3]]
    assert torch.equal(draws[0], draws[1])
    assert not any(torch.equal(draws[0], other) for other in draws[2:])


def test_epoch_order_is_a_permutation_of_its_own_for_each_epoch_and_seed() -> None:
    orders = [epoch_order(97, seed, epoch) for seed in range(3) for epoch in range(3)]
    assert all(torch.equal(order.sort().values, torch.arange(97)) for order in orders)
    assert len(set(rows(torch.stack(orders)))) == 9
    assert torch.equal(orders[4], epoch_order(97, 1, 1))


@pytest.mark.parametrize(("n", "size"), [(10, 4), (10, 25), (7, 7)])
def test_batches_without_end_are_passes_over_everything(n: int, size: int) -> None:
    def first(start: int, count: int) -> list[torch.Tensor]:
        batches = endless_batches(n, size, 0, start)
        return [next(batches) for _ in range(count)]

    whole = first(0, 12)
    assert {len(batch) for batch in whole} == {size}
    complete = [part.tolist() for part in torch.cat(whole).split(n) if len(part) == n]
    assert all(sorted(part) == list(range(n)) for part in complete)
    assert len({tuple(part) for part in complete}) == len(complete)  # each in an order of its own
    for start in (1, 5, 11):
        assert torch.equal(first(start, 1)[0], whole[start])


def test_boxes_are_tight_also_of_enlarged_masks() -> None:
    masks = torch.zeros(2, 6, 7, dtype=torch.uint8)
    masks[0, 1:3, 2:7] = 1
    masks[1, 5, 0] = masks[1, 2, 3] = 1
    assert boxes_of(masks).tolist() == [[1, 3, 2, 7], [2, 6, 0, 4]]
    scenes = shapes(10, seed=0).enlarged(3)
    assert scenes.masks is not None
    assert torch.equal(scenes.boxes, boxes_of(scenes.masks))


def test_digits_are_scikit_learns_split_into_disjoint_parts_in_an_order_that_stays() -> None:
    train, test = digits()
    assert (train.images.shape, test.images.shape) == ((1000, 1, 8, 8), (797, 1, 8, 8))
    source = np.rint(load_digits().images * 255 / 16).astype(np.uint8)
    assert sorted(rows(train.images) + rows(test.images)) == sorted(image.tobytes() for image in source)
    assert not set(rows(train.images)) & set(rows(test.images))
    assert train.labels[:12].tolist() == [2, 1, 4, 2, 4, 3, 0, 9, 2, 2, 6, 9]
    standard = normalise(train.images, train.mean, train.std)
    torch.testing.assert_close(standard.mean(), torch.tensor(0.0), atol=1e-5, rtol=0)
    torch.testing.assert_close(standard.std(), torch.tensor(1.0), atol=1e-4, rtol=0)


def test_shapes_depend_on_the_seed_alone_and_are_balanced() -> None:
    first, again, other = shapes(500, seed=1), shapes(500, seed=1), shapes(500, seed=2)
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.images, other.images)
    assert torch.bincount(first.labels).tolist() == [50] * 10
    unseen = shapes(500, seed=0, family="unseen shapes")
    assert torch.bincount(unseen.labels).tolist() == [100] * 5
    assert not set(first.class_names) & set(unseen.class_names)


@pytest.mark.parametrize("family", FAMILIES)
def test_masks_of_shapes_are_the_object(family: str) -> None:
    scenes = shapes(300, seed=3, family=family)
    assert scenes.masks is not None
    assert set(scenes.masks.unique().tolist()) == {0, 1}
    assert scenes.masks.sum((1, 2)).min() >= 12
    for image, mask in zip(scenes.images[:, 0].float(), scenes.masks.bool(), strict=True):
        colour, background = image[mask].median(), image[~mask].median()
        assert colour > background + 60
        nearer = (image - colour).abs() < (image - background).abs()
        assert nearer[mask].float().mean() > 0.9  # the antialiased outline is half of each
        assert nearer[~mask].float().mean() < 0.1
    assert torch.equal(scenes.boxes, boxes_of(scenes.masks))


def test_shapes_statistics_are_the_stated_ones() -> None:
    scenes = shapes(2000, seed=0)
    mean, std = channel_statistics(scenes.images)
    assert np.allclose(mean, SHAPES_MEAN, atol=2e-3)
    assert np.allclose(std, SHAPES_STD, atol=2e-3)


def test_load_takes_the_first_images_and_enlarges_by_repetition() -> None:
    pool, test = load(Data("digits", 8))
    train, _ = load(Data("digits", 8, train_size=300))
    assert torch.equal(train.images, pool.images[:300])
    large, large_test = load(Data("digits", 32, train_size=300))
    assert torch.equal(large.images[:, :, 1::4, 3::4], train.images)
    assert torch.equal(large.images[:, :, ::4, ::4], train.images)
    assert torch.equal(large_test.labels, test.labels)
    assert load(Data("shapes", 16))[0].images.data_ptr() == load(Data("shapes", 16, flip=True))[0].images.data_ptr()


def test_shares_are_nested_firsts_of_the_set_and_the_test_set_stays() -> None:
    whole, test = load(Data("digits", 8))
    for share, count in ((0.15, 150), (0.3, 300), (1.0, 1000)):
        train, same = load(Data("digits", 8, share=share))
        assert len(train) == count
        assert torch.equal(train.images, whole.images[:count])
        assert torch.equal(same.images, test.images)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Data("digits", 8, train_size=1001), "train_size 1001 is larger than the 1000 training images of digits"),
        (Data("digits", 12), "image_size of digits must be a multiple or a whole part of its own 8 pixels, not 12"),
        (Data("digits", 8, erasing=0.25), "Data.erasing is for images read from files"),
        (Data("digits", 8, crop_padding=8), "crop_padding 8 must be below"),
        (Data("imagenet", 224), "imagenet is read from files"),
    ],
)
def test_load_refuses(data: Data, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(data)
    assert not is_resident("imagenet")


def images_of(batch: int = 64, side: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8, generator=generator)


def test_flips_are_mirror_images_of_about_half_and_undo_themselves() -> None:
    images, data = images_of(400), Data("digits", 6, flip=True)
    assert augment(images, Data("digits", 8), torch.Generator()) is images
    flipped = augment(images, data, torch.Generator().manual_seed(1))
    kept = (flipped == images).flatten(1).all(1)
    assert torch.equal(flipped[~kept], images[~kept].flip(3))
    assert 150 < int(kept.sum()) < 250
    assert torch.equal(augment(flipped, data, torch.Generator().manual_seed(1)), images)


@pytest.mark.parametrize("flip", [False, True])
def test_every_crop_is_a_window_of_the_reflected_image_and_all_windows_occur(flip: bool) -> None:
    images, padding = images_of(1).expand(4000, 3, 6, 6), 2
    before = images.clone()
    crops = augment(images, Data("digits", 6, flip=flip, crop_padding=padding), torch.Generator().manual_seed(2))
    assert torch.equal(images, before)
    padded = torch.nn.functional.pad(images[:1].float(), (padding,) * 4, mode="reflect").to(torch.uint8)
    if flip:
        padded = torch.cat([padded, padded.flip(3)])
    windows = padded.unfold(2, 6, 1).unfold(3, 6, 1).permute(0, 2, 3, 1, 4, 5).reshape(-1, 3, 6, 6)
    counts = dict.fromkeys(rows(windows.contiguous()), 0)
    assert len(counts) == (50 if flip else 25)
    for crop in rows(crops):
        counts[crop] += 1  # KeyError for anything that is no window
    assert min(counts.values()) > 0.5 * 4000 / len(counts)
    assert max(counts.values()) < 1.6 * 4000 / len(counts)


def test_normalise_is_to_tensor_and_normalize_of_torchvision() -> None:
    from torchvision.transforms.v2.functional import normalize, to_dtype

    images, mean, std = images_of(), (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    expected = normalize(to_dtype(images, torch.float32, scale=True), list(mean), list(std))
    torch.testing.assert_close(normalise(images, mean, std), expected, atol=1e-5, rtol=1e-5)
    last = images.to(memory_format=torch.channels_last)
    assert normalise(last, mean, std).is_contiguous(memory_format=torch.channels_last)


def publish(root: Path, monkeypatch: pytest.MonkeyPatch, kind: Any = CIFAR100, count: int = 6) -> Path:
    """A few images in torchvision's layout, which it takes for the published ones."""
    folder, rng = root / kind.base_folder, np.random.default_rng(0)
    labels, names = ("fine_labels", "fine_label_names") if kind is CIFAR100 else ("labels", "label_names")
    content: dict[str, Any] = {"meta": {names: [f"class {i}" for i in range(100)]}}
    for name in ("train", "test"):
        data = rng.integers(0, 256, (count, 3072), dtype=np.uint8)
        content[name] = {"data": data, labels: list(range(count))}
    folder.mkdir(parents=True)
    for name, entry in content.items():
        (folder / name).write_bytes(pickle.dumps(entry, protocol=2))
    train, test, meta = ([name, calculate_md5(str(folder / name))] for name in ("train", "test", "meta"))
    monkeypatch.setattr(kind, "train_list", [train])
    monkeypatch.setattr(kind, "test_list", [test])
    monkeypatch.setattr(kind, "meta", {"filename": meta[0], "key": names, "md5": meta[1]})
    return folder


@pytest.mark.parametrize(("name", "kind"), [("cifar10", CIFAR10), ("cifar100", CIFAR100)])
def test_cifar_of_torchvisions_layout(name: str, kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = publish(tmp_path, monkeypatch, kind)
    train, test = sets.cifar(name, tmp_path)
    entry = pickle.loads((folder / "train").read_bytes())
    stored = {
        row.tobytes(): y for row, y in zip(entry["data"], entry.get("labels", entry.get("fine_labels")), strict=True)
    }
    assert {image: int(y) for image, y in zip(rows(train.images), train.labels, strict=True)} == stored
    assert (len(test), train.class_names[3], train.images.is_contiguous()) == (6, "class 3", True)


class Evil:
    """Unpickles by calling a function."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("code of the file was run",))


@pytest.mark.parametrize("content", [b"", pickle.dumps({"data": Evil()}), None])
@pytest.mark.parametrize("name", ["train", "meta"])
def test_other_pickles_than_the_published_are_never_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes | None, capsys: Any
) -> None:
    folder = publish(tmp_path, monkeypatch)
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=r"cifar-100-python is not the published, complete CIFAR-100 .*fresh copy"):
        sets.cifar("cifar100", tmp_path)
    assert "code of the file" not in capsys.readouterr().out


def test_a_missing_set_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_internet(*_: Any, **__: Any) -> None:
        raise OSError("no route")

    monkeypatch.setattr(CIFAR100, "download", no_internet)
    monkeypatch.setenv("LUMIX_DATA", str(tmp_path))
    with pytest.raises(ValueError, match=r"CIFAR-100 is not in .*cannot be downloaded \(no route\): put it there"):
        load(Data("cifar100", 32))
    with pytest.raises(ValueError, match=r"Tiny-ImageNet is not in .*LUMIX_DATA"):
        load(Data("tiny_imagenet", 64))
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv("LUMIX_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"LUMIX_DATA is '.*nowhere', which is no folder: set it to"):
        load(Data("cifar100", 32))


def test_a_download_appears_only_when_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = publish(tmp_path / "source", monkeypatch)
    monkeypatch.setattr(CIFAR100, "download", lambda self: shutil.copytree(source, Path(self.root) / source.name))
    assert len(sets.cifar("cifar100", tmp_path / "data")[0]) == 6
    assert [path.name for path in (tmp_path / "data").iterdir()] == [source.name]


def jpeg(path: Path, side: int = 64, grey: bool = False) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(path.name)).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels[..., 0] if grey else pixels).save(path, "JPEG")
    return path.read_bytes()


def write_tiny(root: Path) -> Path:
    """Two classes of two training images and one of validation, one of them grey."""
    folder = root / "tiny-imagenet-200"
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
    train, val = sets.tiny_imagenet(tmp_path)
    assert train.class_names == ("n01", "n02")
    assert (sorted(train.labels.tolist()), sorted(val.labels.tolist())) == ([0, 0, 1, 1], [0, 1])
    assert train.images.shape == (4, 3, 64, 64)
    assert train.boxes is not None
    assert train.boxes.tolist() == [[2, 51, 1, 41]] * 4


def test_bad_tiny_imagenet_files_are_named(tmp_path: Path) -> None:
    folder = write_tiny(tmp_path)
    image = folder / "train" / "n01" / "images" / "n01_0.JPEG"
    image.write_bytes(image.read_bytes()[:300])
    with pytest.raises(ValueError, match=r"n01_0.JPEG cannot be read as an image .*fresh copy"):
        sets.tiny_imagenet(tmp_path)
    jpeg(image, side=32)
    with pytest.raises(ValueError, match=r"n01_0.JPEG has 32x32 pixels instead of 64x64"):
        sets.tiny_imagenet(tmp_path)
    image.unlink()
    with pytest.raises(ValueError, match=r"n01_0.JPEG cannot be read as an image"):
        sets.tiny_imagenet(tmp_path)
    for odd in ("x", "²", "9" * 30):
        (folder / "val" / "val_annotations.txt").write_text(f"val_0.JPEG\tn01\t0\t0\t{odd}\t63\n")
        with pytest.raises(ValueError, match=r"val_annotations.txt, line 1, is not"):
            sets.tiny_imagenet(tmp_path)
    for none in ("", "val_0.JPEG\tn99\t0\t0\t1\t63\n"):
        (folder / "val" / "val_annotations.txt").write_text(none)
        with pytest.raises(ValueError, match="val lists no image of a class of train"):
            sets.tiny_imagenet(tmp_path)
    shutil.rmtree(folder / "train")
    with pytest.raises(ValueError, match="train has no class folders"):
        sets.tiny_imagenet(tmp_path)


@pytest.mark.data
def test_real_sets_are_whole_and_begin_with_a_mixed_subset(real_data: Path) -> None:
    for name, size, count in (("cifar100", 32, 500), ("tiny_imagenet", 64, 500)):
        train, _ = load(Data(name, size))
        assert set(torch.bincount(train.labels).tolist()) == {count}
        assert len(train.labels[:1000].unique()) == train.num_classes
        mean, std = channel_statistics(train.images[:2000])
        assert np.allclose(mean, train.mean, atol=5e-2)
        assert np.allclose(std, train.std, atol=5e-2)
    assert len(load(Data("cifar100", 32, share=0.15))[0]) == 7500
    assert os.environ["LUMIX_DATA"] == str(real_data)
