"""Limited labels: a share of the training images is nested, the same for all runs, and named in the record."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from engine import small_run
from PIL import Image
from training.folder import named

from training.config import Data, Execution, Mix, Run
from training.data.feeds import FolderFeed, first_share
from training.data.sets import load
from training.loop import fit
from training.process import Process


def test_shares_are_nested_firsts_of_the_set_and_the_test_set_stays() -> None:
    whole, test = load(Data("digits", 8))
    for share, count in ((0.15, 150), (0.3, 300), (0.5, 500), (1.0, 1000)):
        train, same = load(Data("digits", 8, share=share))
        assert len(train) == count
        assert torch.equal(train.images, whole.images[:count])
        assert torch.equal(train.labels, whole.labels[:count])
        assert torch.equal(same.images, test.images)


def test_a_share_of_cifar_is_the_share_of_50000(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUMIX_DATA", str(shared_data))
    sizes = [len(load(Data("cifar100", 32, share=share))[0]) for share in (0.15, 0.3, 0.5)]
    assert sizes == [7500, 15000, 25000]
    labels = load(Data("cifar100", 32, share=0.15))[0].labels
    assert labels.bincount(minlength=100).unique().numel() > 10  # drawn at random: not 75 of every class


@pytest.mark.parametrize(("share", "train_size"), [(0.0, 0), (0.5, 100), (1.5, 0), (-0.1, 0)])
def test_what_is_no_share_is_refused(share: float, train_size: int) -> None:
    with pytest.raises(ValueError, match=r"Data.share must (be above|lie between) 0"):
        Data("digits", 8, train_size=train_size, share=share)


def test_shares_of_files_are_nested_and_named() -> None:
    small, large = (first_share(1000, share) for share in (0.15, 0.3))
    assert (len(small), len(set(large))) == (150, 300)
    assert small == large[:150] == first_share(1000, 0.15)
    assert named(1000, small) != named(1000, large)
    assert max(small) > 800  # not the first classes of the folder


def results(directory: Path, run: Run) -> list[str]:
    """The names of the subset in result.json of two seeds, as far as there are any."""
    found = []
    for seed in (0, 1):
        fit(run, seed, directory / run.key / str(seed))
        written = json.loads((directory / run.key / str(seed) / "result.json").read_text())
        found += [written["subset"]] if "subset" in written else []
    return found


def test_the_record_names_the_subset_where_there_is_one(tmp_path: Path) -> None:
    short = small_run(epochs=2)
    assert results(tmp_path, short) == []
    first = results(tmp_path, short.replace(data=Data("digits", 8, share=0.1)))
    plain = results(tmp_path, short.replace(data=Data("digits", 8, share=0.1), mix=Mix()))
    larger = results(tmp_path, short.replace(data=Data("digits", 8, share=0.2)))
    assert len(first) == 2
    assert set(first) == set(plain)  # equal for every method and seed
    assert set(first).isdisjoint(larger)
    assert len(first[0]) == 16


def test_class_folders_give_a_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for split in ("train", "val"):
        for name in ("n01", "n02"):
            folder = tmp_path / "imagenet" / split / name
            folder.mkdir(parents=True)
            for i in range(8):
                Image.fromarray(np.full((20, 20, 3), 16 * i, dtype=np.uint8)).save(folder / f"{i}.JPEG")
    monkeypatch.setenv("LUMIX_DATA", str(tmp_path))
    run = small_run(data=Data("imagenet", 16, crop_scale=0.5, share=0.5), batch_size=4)
    feed = FolderFeed(run, 0, Process(0, 1, torch.device("cpu")), Execution(workers=0))
    assert (feed.updates_per_epoch, feed.subset) == (2, named(16, first_share(16, 0.5)))
    assert sum(len(labels) for _, labels in feed.train(0, 0)) == 8
    assert sum(len(labels) for _, labels in feed.test()) == 16
    mixed = FolderFeed(run.replace(count_mixed=True), 0, Process(0, 1, torch.device("cpu")), Execution(workers=0))
    sorted_labels, shuffled = (torch.cat([labels for _, labels in each.test()]) for each in (feed, mixed))
    assert sorted_labels.tolist() == [0] * 8 + [1] * 8
    assert shuffled.bincount().tolist() == [8, 8]
    assert (shuffled != shuffled.roll(-1)).sum() > 2  # neighbours of two classes, which are mixed, are no exception
