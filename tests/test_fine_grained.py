"""Fine-grained sets: each published layout is read back, resized before its crop, and named where it is missing."""

from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from engine import small_run
from PIL import Image
from torch import Tensor

from evaluation.ten_crop import drive
from training.config import FINE_GRAINED, Data, Execution
from training.feed import FolderFeed, build_feed
from training.folder import file_set, image_folder, labels_of, train_transform
from training.parts import SelfTuning
from training.process import Process

LABELS = {"train": [0, 0, 1, 1, 2, 2], "val": [0, 1, 2]}  # of every copy here; grey 40 x label tells the class


def picture(path: Path, label: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((40, 60, 3), 40 * label, dtype=np.uint8)).save(path)


def write(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def cub200(root: Path) -> None:
    folder, rows = root / "CUB_200_2011", []
    for split, labels in LABELS.items():
        rows += [(f"{label + 1:03}.Bird_{label}/{split}_{i}.jpg", label, split) for i, label in enumerate(labels)]
    for path, label, _ in rows:
        picture(folder / "images" / path, label)
    write(folder / "images.txt", [f"{i} {path}" for i, (path, _, _) in enumerate(rows, 1)])
    write(folder / "image_class_labels.txt", [f"{i} {label + 1}" for i, (_, label, _) in enumerate(rows, 1)])
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


@pytest.fixture(params=FINE_GRAINED)
def name(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a set, of which a copy of three classes lies under the data root."""
    {"cub200": cub200, "aircraft": aircraft, "cars": cars}[request.param](tmp_path)
    monkeypatch.setenv("LUMIX_DATA", str(tmp_path))
    return str(request.param)


def test_ten_crops_are_judged_together(name: str) -> None:
    """Each image is one grey, so that any crop of it tells its class."""

    class ByGrey(torch.nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            assert images.shape[1:] == (3, 28, 28)
            grey = 255 * images.mean((1, 2, 3))
            return -(grey.unsqueeze(1) - torch.tensor([0.0, 40.0, 200.0])).abs()

    card = {"data": name, "image_size": 28, "mean": (0.0,) * 3, "std": (1.0,) * 3}
    outcome = drive(ByGrey(), card, {"resize": 32}, "cpu")
    assert outcome.n_samples == 3
    assert outcome.values == {"top1": pytest.approx(200 / 3)}  # grey 80 of class 2 is nearer to 40 than to 200
    with pytest.raises(ValueError, match="and digits is held in memory"):
        drive(ByGrey(), {**card, "data": "digits"}, {"resize": 32}, "cpu")


@pytest.mark.parametrize("split", LABELS)
def test_a_layout_is_read_back(name: str, split: str) -> None:
    files = file_set(name, split)
    assert (len(files), len(files.classes)) == (len(LABELS[split]), 3)
    assert [files[i][1] for i in range(len(files))] == LABELS[split]
    greys = [np.asarray(files[i][0]).mean() for i in range(len(files))]
    np.testing.assert_allclose(greys, [40 * label for label in LABELS[split]], atol=2)


def test_it_trains_by_batches_of_whole_labels(name: str) -> None:
    data = Data(name, 28, flip=True, crop_scale=0.5, test_crop=0.875)
    feed = FolderFeed(small_run(data=data, batch_size=3), 0, Process(0, 1, torch.device("cpu")), Execution(workers=0))
    batches = [*feed.train(0, 0), *feed.test()]
    assert feed.num_classes == 3
    assert [images.shape for images, _ in batches] == [(3, 3, 28, 28)] * 3
    assert all(labels.dtype == torch.int64 for _, labels in batches)


def semi_feed(name: str, workers: int = 0, rank: int = 0, world: int = 1, seed: int = 0) -> FolderFeed:
    data = Data(name, 28, labels=3, flip=True, crop_scale=0.2, rand_augment="rand-m9-mstd0.5-inc1", test_crop=0.875)
    run = small_run(data=data, batch_size=4, task=SelfTuning(), epochs=2, epoch_steps=3)
    feed = build_feed(run, seed, Process(rank, world, torch.device("cpu")), Execution(workers=workers))
    assert isinstance(feed, FolderFeed)
    return feed


def tensors(feed: FolderFeed, epoch: int = 0, start: int = 0) -> list[list[Tensor]]:
    """For each update: both labelled views, both unlabelled ones, labels."""
    return [[*views.labelled, *views.unlabelled, labels] for views, labels in feed.train(epoch, start)]


def test_labels_are_known_without_opening_a_file(name: str) -> None:
    assert labels_of(file_set(name, "train")).tolist() == LABELS["train"]


def test_views_of_labelled_and_unlabelled_files(name: str) -> None:
    feed = semi_feed(name)
    assert feed.updates_per_epoch == 3
    assert feed.subset not in ("", semi_feed(name, seed=2).subset)
    steps = [tensors(feed, 0), tensors(feed, 1)]
    assert [len(epoch) for epoch in steps] == [3, 3]
    for query, key, unlabelled, _, labels in steps[0] + steps[1]:
        assert query.shape == unlabelled.shape == (4, 3, 28, 28)
        assert labels.bincount(minlength=3).min() >= 1  # passes without end over one image of each class
        assert not torch.equal(query, key)
        assert not torch.equal(query, unlabelled)
    assert not torch.equal(steps[0][0][0], steps[1][0][0])


def test_views_of_files_depend_on_the_address_alone(name: str) -> None:
    whole = tensors(semi_feed(name), 1)
    for feed in (semi_feed(name), semi_feed(name, workers=1)):
        for found, wanted in zip(tensors(feed, 1, start=1), whole[1:], strict=True):
            assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    for rank in range(2):
        for found, wanted in zip(tensors(semi_feed(name, rank=rank, world=2), 1), whole, strict=True):
            assert all(torch.equal(a, b[rank::2]) for a, b in zip(found, wanted, strict=True))


def test_labelled_files_alone_are_the_same(name: str) -> None:
    """The task "mix" with labels and steps sees the labelled images of the semi-supervised task."""
    feed = semi_feed(name)
    data = Data(name, 28, labels=3, flip=True, crop_scale=0.2, test_crop=0.875)
    run = small_run(data=data, batch_size=4, epochs=2, epoch_steps=3)
    alone = FolderFeed(run, 0, Process(0, 1, torch.device("cpu")), Execution(workers=0))
    assert (alone.subset, alone.updates_per_epoch) == (feed.subset, 3)
    assert [b[-1].tolist() for b in tensors(feed)] == [labels.tolist() for _, labels in alone.train(0, 0)]


def test_training_images_are_resized_before_the_crop(name: str) -> None:
    transform = train_transform(Data(name, 224, flip=True, crop_scale=0.5))
    names = [type(step).__name__ for step in transform.transforms]
    assert names[:3] == ["Resize", "RandomResizedCropAndInterpolation", "RandomHorizontalFlip"]
    assert transform.transforms[0](Image.new("RGB", (600, 400))).size == (384, 256)
    assert transform.transforms[1].scale == (0.5, 1.0)
    with pytest.raises(ValueError, match=f"Data.pipeline 'fast' cannot resize {name} before the crop"):
        image_folder(Data(name, 224, crop_scale=0.5, pipeline="fast"), "train")


@pytest.mark.parametrize(
    ("absent", "folder"), [("cub200", "CUB_200_2011"), ("aircraft", "fgvc-aircraft-2013b"), ("cars", "stanford_cars")]
)
def test_a_missing_set_is_named(absent: str, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUMIX_DATA", str(tmp_path))
    with pytest.raises(ValueError, match=f"{tmp_path / folder} does not hold {absent} .*set LUMIX_DATA"):
        image_folder(Data(absent, 224), "val")
