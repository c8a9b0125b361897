"""Sets of files: each published layout is read back, hostile files are named, timm's transforms, addressed draws."""

import io
import math
import os
import pickle
import random
import signal
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from photographs import LABELS, WRITERS, picture
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.datasets import ImageFolder

from evaluation.ten_crop import drive
from training.config import Data
from training.data.feeds import SeededDataset
from training.data.files import ClassFolders, file_set, files_of_run, ignore_signals, read_image, train_transform

IMAGENET = Data(
    "imagenet", 32, flip=True, crop_scale=0.08, rand_augment="rand-m9-mstd0.5-inc1", erasing=0.25, test_crop=0.875
)

pytestmark = pytest.mark.usefixtures("global_state_untouched")


@pytest.fixture(params=WRITERS)
def name(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a set, of which a copy of three classes lies under the data root."""
    WRITERS[request.param](tmp_path)
    monkeypatch.setenv("LUMIX_DATA", str(tmp_path))
    return str(request.param)


@pytest.mark.parametrize("split", LABELS)
def test_a_layout_is_read_back(name: str, split: str) -> None:
    files = file_set(name, split)
    assert (len(files), len(files.classes)) == (len(LABELS[split]), 3)
    assert [files[i][1] for i in range(len(files))] == LABELS[split]
    assert all(type(files[i][1]) is int for i in range(len(files)))
    greys = [np.asarray(files[i][0]).mean() for i in range(len(files))]
    np.testing.assert_allclose(greys, [40 * label for label in LABELS[split]], atol=2)


def test_labels_are_known_without_opening_a_file(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "open", None)
    data = Data(name, 28, labels=3, crop_scale=0.5)
    assert files_of_run(data, 2, 2)[3].tolist() == LABELS["train"]


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


@pytest.mark.parametrize(
    ("absent", "folder"), [("cub200", "CUB_200_2011"), ("aircraft", "fgvc-aircraft-2013b"), ("cars", "stanford_cars")]
)
def test_a_missing_set_is_named(absent: str, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUMIX_DATA", str(tmp_path))
    with pytest.raises(ValueError, match=f"{tmp_path / folder} does not hold {absent} .*set LUMIX_DATA"):
        file_set(absent, "val")


def test_a_set_whose_lists_are_empty_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUMIX_DATA", str(tmp_path))
    birds = tmp_path / "CUB_200_2011"
    (birds / "images" / "001.A").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(birds / "images" / "001.A" / "a.jpg")
    for name in ("images.txt", "train_test_split.txt"):
        (birds / name).write_text("")
    with pytest.raises(ValueError, match=r"does not hold cub200 .*name no image of train.*fresh copy"):
        file_set("cub200", "train")


def test_class_folders_are_torchvisions_without_loops_and_pipes(tmp_path: Path) -> None:
    for folder in ("b", "a", "a/more"):
        for i in range(3):
            picture(tmp_path / folder / f"{i}.jpg", i)
    (tmp_path / "a" / "notes.txt").write_text("no image")
    (tmp_path / "c").symlink_to(tmp_path / "b")
    plain = ImageFolder(str(tmp_path))
    assert (ClassFolders(tmp_path).samples, ClassFolders(tmp_path).classes) == (plain.samples, plain.classes)
    os.mkfifo(tmp_path / "b" / "pipe.jpg")
    (tmp_path / "b" / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "d").symlink_to(tmp_path)
    (tmp_path / "e").symlink_to("e")
    (tmp_path / "a" / "more" / "up").symlink_to(tmp_path)
    assert ClassFolders(tmp_path).samples == plain.samples
    (tmp_path / "f").mkdir()
    with pytest.raises(ValueError, match=r"is no folder of class folders with images \(class f has no images\)"):
        ClassFolders(tmp_path)
    with pytest.raises(ValueError, match=r"nowhere is no folder of class folders .*LUMIX_DATA"):
        ClassFolders(tmp_path / "nowhere")


def bomb(side: int) -> bytes:
    """A PNG of black, of side x side pixels, in few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")


def test_bad_images_are_named_and_none_is_waited_for(tmp_path: Path) -> None:
    content = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 80, 3), dtype=np.uint8)).save(content, "JPEG")
    whole = content.getvalue()
    bad = {
        "cut.jpg": whole[:800],
        "empty.jpg": b"",
        "text.jpg": b"hello",
        "page.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "large.png": bomb(9500),
        "huge.png": bomb(60000),
    }
    for file, data in bad.items():
        (tmp_path / file).write_bytes(data)
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    for file in (*bad, "pipe.jpg", "folder.jpg", "missing.jpg"):
        with pytest.raises(ValueError, match=rf"{file} cannot be read as an image .*fresh copy"):
            read_image(tmp_path / file)
    (tmp_path / "whole.jpg").write_bytes(whole)
    assert (read_image(tmp_path / "whole.jpg").size, read_image(tmp_path / "whole.jpg").mode) == ((80, 64), "RGB")


def test_test_images_are_resized_and_cropped_in_the_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    WRITERS["imagenet"](tmp_path)
    path = tmp_path / "imagenet" / "val" / "n01" / "1.JPEG"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(path)
    monkeypatch.setenv("LUMIX_DATA", str(tmp_path))
    image, label = files_of_run(IMAGENET)[2][1]
    assert (image.shape, image.dtype, label) == ((3, 32, 32), torch.float32, 1)
    short = math.floor(32 / 0.875)
    resized = Image.open(path).convert("RGB").resize((int(short * 60 / 40), short), Image.Resampling.BICUBIC)
    left, top = round((resized.width - 32) / 2), round((resized.height - 32) / 2)
    pixels = np.asarray(resized.crop((left, top, left + 32, top + 32)), dtype=np.float32) / 255
    expected = (pixels - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(image.permute(1, 2, 0).numpy(), expected, atol=1e-5)


def test_the_transform_holds_what_the_data_ask_for() -> None:
    names = [type(step).__name__ for step in train_transform(IMAGENET).transforms]
    assert names[:3] == ["RandomResizedCropAndInterpolation", "RandomHorizontalFlip", "RandAugment"]
    assert names[-1] == "RandomErasing"
    plain = [type(step).__name__ for step in train_transform(Data("imagenet", 32, crop_scale=0.08)).transforms]
    assert not {"RandomHorizontalFlip", "RandAugment", "RandomErasing", "ColorJitter"} & set(plain)
    with pytest.raises(ValueError, match="crop_scale must be above 0"):
        train_transform(Data("imagenet", 32))
    fine = train_transform(Data("cars", 224, flip=True, crop_scale=0.5))
    assert [type(step).__name__ for step in fine.transforms][:2] == ["Resize", "RandomResizedCropAndInterpolation"]
    assert fine.transforms[0](Image.new("RGB", (600, 400))).size == (384, 256)


def test_posterize_at_full_strength_keeps_one_bit() -> None:
    step = next(s for s in train_transform(IMAGENET).transforms if type(s).__name__ == "RandAugment")
    posterize = next(op for op in step.ops if op.name.startswith("Posterize"))
    assert (posterize.level_fn(10, {}), posterize.level_fn(5, {})) == ((1,), (2,))  # timm: 0 bits
    posterize = pickle.loads(pickle.dumps(posterize))  # as a spawned worker receives it
    posterize.prob, posterize.magnitude, posterize.magnitude_std = 1.0, 10, 0
    ramp = Image.fromarray(np.tile(np.arange(256, dtype=np.uint8), (4, 1))).convert("RGB")
    assert set(np.asarray(posterize(ramp)).ravel().tolist()) == {0, 128}


class Noise(Dataset[tuple[Any, Any]]):
    """Draws from all three global sources, as timm's transforms do."""

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        if index < 0:
            raise IndexError(index)
        return torch.tensor([random.random(), np.random.rand(), torch.rand(()).item()], dtype=torch.float64), index

    def __len__(self) -> int:
        return 12


def test_a_sample_depends_on_its_address_alone() -> None:
    data = SeededDataset(Noise(), seed=4)
    first = data[1, 5, 3][0]
    data[1, 6, 3]
    assert torch.equal(first, data[1, 5, 3][0])
    others = [data[2, 5, 3][0], data[1, 4, 3][0], SeededDataset(Noise(), seed=5)[1, 5, 3][0]]
    assert all((first != other).all() for other in others)
    with pytest.raises(IndexError):  # and the fixture checks that the random state is restored after an error
        data[0, 0, -1]


def test_workers_ignore_the_signals_of_the_scheduler() -> None:
    child = os.fork()
    if not child:
        ignore_signals(0)
        for name in (signal.SIGTERM, signal.SIGUSR2, signal.SIGCONT):
            os.kill(os.getpid(), name)
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
