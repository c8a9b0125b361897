"""ImageNet folders: timm's transforms, addressed augmentation, the resumable sampler, workers that outlive signals."""

import math
import os
import pickle
import random
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset
from training.folder import EpochSampler, image_folder, train_loader

from training.config import Data
from training.data.files import SeededDataset, ignore_signals, train_transform
from training.rng import epoch_order

IMAGENET = Data(
    "imagenet", 32, flip=True, crop_scale=0.08, rand_augment="rand-m9-mstd0.5-inc1", erasing=0.25, test_crop=0.875
)


pytestmark = pytest.mark.usefixtures("global_state_untouched")


@pytest.fixture
def imagenet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two classes of four training and one validation image each, of different sizes."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 1)):
        for wnid in ("n01", "n02"):
            folder = tmp_path / "imagenet" / split / wnid
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (40 + 5 * i, 60, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{wnid}_{i}.JPEG")
    monkeypatch.setenv("LUMIX_DATA", str(tmp_path))
    return tmp_path / "imagenet"


# Transforms --------------------------------------------------------------------------------------------------------


def test_test_images_are_resized_and_cropped_in_the_middle(imagenet: Path) -> None:
    val = image_folder(IMAGENET, "val")
    assert (len(val), val.classes) == (2, ["n01", "n02"])
    image, label = val[1]
    assert (image.shape, image.dtype, label) == ((3, 32, 32), torch.float32, 1)
    source = Image.open(imagenet / "val" / "n02" / "n02_0.JPEG").convert("RGB")  # 60 wide, 40 high
    short = math.floor(32 / 0.875)
    resized = source.resize((int(short * 60 / 40), short), Image.Resampling.BICUBIC)
    left, top = round((resized.width - 32) / 2), round((resized.height - 32) / 2)
    pixels = np.asarray(resized.crop((left, top, left + 32, top + 32)), dtype=np.float32) / 255
    expected = (pixels - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(image.permute(1, 2, 0).numpy(), expected, atol=1e-5)


def test_training_images_are_augmented(imagenet: Path) -> None:
    train = SeededDataset(image_folder(IMAGENET, "train"), seed=0)
    views = torch.stack([train[0, position, 2][0] for position in range(8)])
    assert views.shape == (8, 3, 32, 32)
    assert len(views.unique(dim=0)) == 8


def test_the_transform_holds_what_the_data_ask_for() -> None:
    names = [type(step).__name__ for step in train_transform(IMAGENET).transforms]
    assert names[0] == "RandomResizedCropAndInterpolation"
    assert names[1:3] == ["RandomHorizontalFlip", "RandAugment"]
    assert names[-1] == "RandomErasing"
    plain = [type(step).__name__ for step in train_transform(Data("imagenet", 32, crop_scale=0.08)).transforms]
    assert not {"RandomHorizontalFlip", "RandAugment", "RandomErasing", "ColorJitter"} & set(plain)


def test_posterize_at_full_strength_keeps_one_bit() -> None:
    step = next(s for s in train_transform(IMAGENET).transforms if type(s).__name__ == "RandAugment")
    posterize = next(op for op in step.ops if op.name.startswith("Posterize"))
    assert posterize.level_fn(10, {}) == (1,)  # timm's own answer is 0, which Pillow 13 refuses
    assert posterize.level_fn(5, {}) == (2,)
    posterize = pickle.loads(pickle.dumps(posterize))  # as a spawned worker receives it
    posterize.prob, posterize.magnitude, posterize.magnitude_std = 1.0, 10, 0
    ramp = Image.fromarray(np.tile(np.arange(256, dtype=np.uint8), (4, 1))).convert("RGB")
    assert set(np.asarray(posterize(ramp)).ravel().tolist()) == {0, 128}


def test_bad_folders_and_images_are_named(imagenet: Path) -> None:
    broken = imagenet / "train" / "n01" / "n01_2.JPEG"
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"n01_2.JPEG cannot be read as an image .*fresh copy"):
        image_folder(IMAGENET, "train")[2]
    with pytest.raises(ValueError, match="crop_scale must be above 0"):
        image_folder(Data("imagenet", 32), "train")
    (imagenet / "val").rename(imagenet / "validation")
    with pytest.raises(ValueError, match=r"imagenet/val is no folder of class folders .*LUMIX_DATA"):
        image_folder(IMAGENET, "val")
    (imagenet / "val" / "n01").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"imagenet/val is no folder of class folders with images"):
        image_folder(IMAGENET, "val")


# Addressed augmentation --------------------------------------------------------------------------------------------


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


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_workers_do_not_change_what_is_drawn() -> None:
    sampler = EpochSampler(12, 4, seed=1)
    alone, workers = (train_loader(Noise(), sampler, count) for count in (0, 2))
    for epoch in range(2):
        sampler.set_epoch(epoch)
        for (a, index_a), (b, index_b) in zip(alone, workers, strict=True):
            assert torch.equal(a, b)
            assert torch.equal(index_a, index_b)
        sampler.set_epoch(epoch, start_position=8)
        resumed = list(workers)
        assert len(resumed) == 1
        assert torch.equal(resumed[0][0], a)


# Sampler -----------------------------------------------------------------------------------------------------------


def positions(sampler: EpochSampler) -> list[int]:
    return [position for _, position, _ in sampler]


def test_the_sampler_follows_the_epochs_order_and_drops_the_rest() -> None:
    sampler = EpochSampler(23, 5, seed=3)
    sampler.set_epoch(2)
    assert list(sampler) == [(2, i, int(index)) for i, index in enumerate(epoch_order(23, 3, 2)[:20])]


@pytest.mark.parametrize("repeats", [1, 3])
@pytest.mark.parametrize("world", [1, 2, 4])
def test_ranks_share_every_update_of_one_process(world: int, repeats: int) -> None:
    whole = list(EpochSampler(50, 8, seed=0, repeats=repeats))
    shares = [list(EpochSampler(50, 8, seed=0, rank=r, world=world, repeats=repeats)) for r in range(world)]
    assert [len(share) for share in shares] == [48 // world] * world
    for update in range(6):
        local = slice(update * 8 // world, (update + 1) * 8 // world)
        together = sorted(address for share in shares for address in share[local])
        assert together == whole[update * 8 : (update + 1) * 8]


def test_repeated_augmentation_shows_a_third_of_the_images_three_times() -> None:
    sampler = EpochSampler(1281, 64, seed=0, repeats=3)
    counts = Counter(index for _, _, index in sampler)
    assert sum(counts.values()) == 20 * 64
    assert sorted(counts.values(), reverse=True) == [3] * 426 + [2]
    ranks = [[i for _, _, i in EpochSampler(1281, 63, seed=0, rank=r, world=3, repeats=3)] for r in range(3)]
    assert ranks[0] == ranks[1] == ranks[2]  # as in DeiT's sampler, the views of an image go to different processes


@pytest.mark.parametrize("rank", [0, 1])
def test_a_resumed_sampler_goes_on_where_it_stopped(rank: int) -> None:
    sampler = EpochSampler(50, 8, seed=0, rank=rank, world=2, repeats=3)
    sampler.set_epoch(4)
    whole = list(sampler)
    sampler.set_epoch(4, start_position=3 * 8)
    assert list(sampler) == whole[3 * 4 :]


def test_the_paper_has_1251_updates() -> None:
    sampler = EpochSampler(1_281_167, 1024, seed=0, repeats=3)
    sampler.set_epoch(0, start_position=1250 * 1024)
    assert len(positions(sampler)) == 1024


def test_workers_ignore_the_signals_of_the_scheduler() -> None:
    child = os.fork()
    if not child:
        ignore_signals(0)
        for name in (signal.SIGTERM, signal.SIGUSR2, signal.SIGCONT):
            os.kill(os.getpid(), name)
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
