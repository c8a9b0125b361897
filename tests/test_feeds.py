"""Feeds: samplers, balanced and nested subsets, views of labelled and unlabelled images, from memory and from files."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from engine import small_run
from photographs import WRITERS
from torch import Tensor

from lumix import CrossEntropy
from lumix.registry import get_part
from lumix.semi import Views
from training.config import Data, Execution, Loss, Mix, Optim, Run
from training.data.feeds import BatchSampler, FolderFeed, build_feed, first_share, labelled_rows, name_of_rows
from training.data.sets import load, normalise
from training.loop import fit
from training.parts import FixMatch, Mixed
from training.process import Process
from training.rng import epoch_order
from training.run_directory import RunError

STRONG: dict[str, Any] = {"strong": "rand-m5-n2-mstd101-inc1", "cutout": 0.5}
PLAIN = Loss(terms=(CrossEntropy(),))


def a_run(task: Any = None, labels: int = 40, data: dict[str, Any] | None = None, **changes: Any) -> Run:
    """FixMatch on digits, 3 epochs of 4 updates with 8 labelled and 16 unlabelled images."""
    data = {"crop_padding": 1, **STRONG} if data is None else data
    run = small_run(
        data=Data("digits", 8, labels=labels, **data),
        task=task or FixMatch(ratio=2),
        loss=PLAIN,
        mix=Mix(),
        epochs=3,
        epoch_steps=4,
        batch_size=8,
        optim=Optim(lr=5e-3, ema_decay=0.9, ema_reported=True),
    )
    return run.replace(**changes)


def a_feed(run: Run, seed: int = 0, rank: int = 0, world: int = 1, workers: int = 0) -> Any:
    return build_feed(run, seed, Process(rank, world, torch.device("cpu")), Execution(workers=workers))


def tensors(batches: Any) -> list[Tensor]:
    return [t for views, labels in batches for t in (*views.labelled, *views.unlabelled, labels)]


def test_the_sampler_follows_the_epochs_order_and_drops_the_rest() -> None:
    sampler = BatchSampler(23, 5, seed=3)
    sampler.begin(2)
    assert list(sampler) == [(2, i, int(index)) for i, index in enumerate(epoch_order(23, 3, 2)[:20])]


@pytest.mark.parametrize("options", [{}, {"repeats": 3}, {"endless": 6}])
@pytest.mark.parametrize("world", [1, 2, 4])
def test_ranks_share_every_update_and_go_on_from_any(world: int, options: dict[str, int]) -> None:
    whole, shares = ([BatchSampler(50, 8, 0, rank, count, **options) for rank in range(count)] for count in (1, world))
    for sampler in (*whole, *shares):
        sampler.begin(3)
    everything, parts = list(whole[0]), [list(share) for share in shares]
    assert [len(part) for part in parts] == [48 // world] * world
    for update in range(6):
        local = slice(update * 8 // world, (update + 1) * 8 // world)
        together = sorted(address for part in parts for address in part[local])
        assert together == everything[update * 8 : (update + 1) * 8]
    for share, part in zip(shares, parts, strict=True):
        share.begin(3, 2)
        assert list(share) == part[2 * 8 // world :]


def test_repeated_augmentation_shows_a_third_of_the_images_three_times() -> None:
    counts = Counter(index for _, _, index in BatchSampler(1281, 64, seed=0, repeats=3))
    assert sum(counts.values()) == 20 * 64
    assert sorted(counts.values(), reverse=True) == [3] * 426 + [2]
    ranks = [[i for _, _, i in BatchSampler(1281, 63, 0, r, 3, repeats=3)] for r in range(3)]
    assert ranks[0] == ranks[1] == ranks[2]  # as in DeiT's sampler, the views of an image go to different processes


def test_labelled_images_are_balanced_nested_and_chosen_by_the_seed() -> None:
    train, _ = load(Data("digits", 8))
    rows = {(seed, n): labelled_rows(train.labels, 10, n, seed) for seed in (0, 1) for n in (10, 40, 100)}
    for (seed, count), chosen in rows.items():
        assert train.labels[chosen].bincount().tolist() == [count // 10] * 10
        assert bool((chosen.diff() > 0).all())
        assert set(chosen.tolist()) <= set(rows[seed, 100].tolist())
    assert not torch.equal(rows[0, 40], rows[1, 40])


def test_all_methods_get_the_same_labelled_images(tmp_path: Path) -> None:
    fixmatch, alone = a_feed(a_run()), a_feed(a_run(Mixed(), data={"crop_padding": 1}))
    assert fixmatch.subset == alone.subset != a_feed(a_run(), seed=1).subset
    assert (len(fixmatch.train_set), len(fixmatch.everything)) == (40, 1000)
    for (views, labels), (images, same) in zip(fixmatch.train(1, 0), alone.train(1, 0), strict=True):
        assert torch.equal(labels, same)
        assert torch.equal(views.labelled[0], images)
    result = fit(a_run(Mixed(), data={}), 0, tmp_path)
    assert (result["steps"], result["epochs"], result["subset"]) == (12, 3, fixmatch.subset)


def test_a_share_has_a_name_which_is_the_same_for_all() -> None:
    def subset(share: float, seed: int = 0, **changes: Any) -> str:
        return a_feed(small_run(data=Data("digits", 8, share=share), **changes), seed).subset

    assert subset(1.0) == ""
    assert subset(0.1) == subset(0.1, seed=1) == subset(0.1, mix=Mix()) != subset(0.2)


@pytest.mark.parametrize("task", ["fixmatch", "pseudo_label", "mixmatch"])
def test_a_feed_goes_on_from_any_update(task: str) -> None:
    part = get_part(task).cls()
    run = a_run(part, data={"crop_padding": 1, **(STRONG if task == "fixmatch" else {})})
    whole = [*a_feed(run).train(0, 0), *a_feed(run).train(1, 0)]
    assert len(whole) == 8
    later = list(a_feed(run).train(1, 2))
    assert all(torch.equal(a, b) for a, b in zip(tensors(whole[6:]), tensors(later), strict=True))
    others = list(a_feed(run, seed=1).train(1, 2))
    assert not any(torch.equal(a, b) for a, b in zip(tensors(later)[:3], tensors(others)[:3], strict=True))


def test_processes_share_a_batch() -> None:
    run = a_run(data={"cutout": 1e-9})  # no draws that differ by rank
    (views, labels), *_ = a_feed(run).train(0, 0)
    shares = [next(iter(a_feed(run, rank=rank, world=2).train(0, 0))) for rank in (0, 1)]
    assert torch.equal(torch.stack([labels for _, labels in shares], 1).flatten(), labels)
    for kind in ("labelled", "unlabelled"):
        parts = [getattr(part, kind)[0] for part, _ in shares]
        assert torch.equal(torch.stack(parts, 1).flatten(0, 1), getattr(views, kind)[0])


def test_views_are_of_the_same_images_and_as_many_as_the_task_asks_for() -> None:
    views: Views
    for task, data, counts in (
        (FixMatch(ratio=2), {"cutout": 0.5}, (8, 16, 16)),
        (get_part("pseudo_label").cls(), {}, (8, 8)),
        (get_part("mixmatch").cls(), {}, (8, 8, 8)),
    ):
        feed = a_feed(a_run(task, data=data))
        (views, _), *_ = feed.train(0, 0)
        assert tuple(map(len, (*views.labelled, *views.unlabelled))) == counts
        if "cutout" not in data and len(views.unlabelled) > 1:  # without crop and flip the weak views are the images
            assert torch.equal(*views.unlabelled)
        if "cutout" in data:
            weak, strong = views.unlabelled
            grey = normalise(torch.full((1, 1, 1, 1), feed.grey[0], dtype=torch.uint8), feed.mean, feed.std)
            changed = weak != strong
            assert 0 < changed.float().mean() < 0.25  # the largest square has a quarter of the pixels
            assert bool((strong[changed] == grey.item()).all())


@pytest.mark.parametrize(("name", "size"), [("digits", 8), ("shapes", 16)])
def test_rand_augment_works_on_grey_and_coloured_images(name: str, size: int) -> None:
    run = a_run(data=STRONG).replace(data=Data(name, size, labels=40, **STRONG))
    (views, _), *_ = a_feed(run).train(0, 0)
    weak, strong = views.unlabelled
    assert weak.shape == strong.shape
    assert (weak != strong).flatten(1).any(1).float().mean() > 0.8


@pytest.fixture(params=WRITERS)
def name(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    WRITERS[request.param](tmp_path)
    monkeypatch.setenv("LUMIX_DATA", str(tmp_path))
    return str(request.param)


def of_files(name: str, task: str, **changes: Any) -> Run:
    data = Data(name, 28, labels=3, flip=True, crop_scale=0.2, rand_augment="rand-m9-mstd0.5-inc1", test_crop=0.875)
    run = small_run(data=data, batch_size=4, task=get_part(task).cls(), epochs=2, epoch_steps=3)
    return run.replace(**changes)


def test_it_trains_by_batches_of_whole_labels(name: str) -> None:
    feed = a_feed(of_files(name, "mix", epoch_steps=0, batch_size=3))
    batches = [*feed.train(0, 0), *feed.test()]
    assert feed.num_classes == 3
    assert [images.shape for images, _ in batches] == [(3, 3, 28, 28)] * 2
    assert all(labels.dtype == torch.int64 for _, labels in batches)


def test_views_of_labelled_and_unlabelled_files(name: str) -> None:
    feed = a_feed(of_files(name, "self_tuning"))
    assert (feed.updates_per_epoch, feed.subset) != (3, a_feed(of_files(name, "self_tuning"), seed=2).subset)
    alone = a_feed(of_files(name, "mix"))
    assert alone.subset == feed.subset != ""
    steps = [list(feed.train(0, 0)), list(feed.train(1, 0))]
    assert [len(epoch) for epoch in steps] == [3, 3]
    for views, labels in steps[0] + steps[1]:
        (query, key), (unlabelled, _) = views.labelled, views.unlabelled
        assert query.shape == unlabelled.shape == (4, 3, 28, 28)
        assert labels.bincount(minlength=3).min() >= 1  # passes without end over one image of each class
        assert not torch.equal(query, key)
        assert not torch.equal(query, unlabelled)
    assert [labels.tolist() for _, labels in alone.train(0, 0)] == [labels.tolist() for _, labels in steps[0]]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_views_of_files_depend_on_the_address_alone(name: str) -> None:
    run = of_files(name, "self_tuning")
    whole = list(a_feed(run).train(1, 0))
    for workers in (0, 1):
        later = a_feed(run, workers=workers).train(1, 1)
        assert all(torch.equal(a, b) for a, b in zip(tensors(later), tensors(whole[1:]), strict=True))
    for rank in range(2):
        share = a_feed(run, rank=rank, world=2).train(1, 0)
        assert all(torch.equal(a, b[rank::2]) for a, b in zip(tensors(share), tensors(whole), strict=True))


def test_shares_of_files_are_nested_named_and_shuffled_for_mixing(tmp_path: Path, monkeypatch: Any) -> None:
    small, large = (first_share(1000, share) for share in (0.15, 0.3))
    assert (len(small), len(set(large))) == (150, 300)
    assert small == large[:150] == first_share(1000, 0.15)
    assert max(small) > 800  # not the first classes of the folder
    WRITERS["imagenet"](tmp_path)
    monkeypatch.setenv("LUMIX_DATA", str(tmp_path))
    run = small_run(data=Data("imagenet", 16, crop_scale=0.5, share=0.5), batch_size=3)
    feed = a_feed(run)
    assert isinstance(feed, FolderFeed)
    assert (feed.updates_per_epoch, feed.subset) == (1, name_of_rows(6, first_share(6, 0.5)))
    feeds = [a_feed(run.replace(count_mixed=mixed)) for mixed in (False, True)]
    orders = [torch.cat([labels for _, labels in each.test()]) for each in feeds]
    assert orders[0].tolist() == [0, 1, 2] == sorted(orders[1].tolist()) != orders[1].tolist()


def test_what_would_be_ignored_is_refused() -> None:
    with pytest.raises(ValueError, match="must be a multiple of the 10 classes"):
        a_feed(a_run(labels=45))
    with pytest.raises(ValueError, match="asks for 200 images of each class, and one has"):
        a_feed(a_run(labels=2000))
    with pytest.raises(ValueError, match=r"fixmatch learns from unlabelled images: give Data\.labels"):
        a_run(labels=0)
    with pytest.raises(ValueError, match=r"Run\.epoch_steps, for which there is no pass over both"):
        a_run(epoch_steps=0)
    with pytest.raises(ValueError, match="make the strong views of unlabelled images, and mix takes no views"):
        a_run(Mixed())
    with pytest.raises(ValueError, match="fixmatch takes weak, strong views"):
        a_run(data={})
    files = Data("cub200", 224, crop_scale=0.5, labels=600, strong="rand-m5-n1-mstd101-inc1")
    with pytest.raises(RunError, match="fixmatch takes strong views, which are made of sets held in memory alone"):
        a_feed(small_run(data=files, task=FixMatch(), epoch_steps=4, mix=Mix(), loss=PLAIN))
    with pytest.raises(ValueError, match="has neither warm-up nor a floor"):
        Optim(lr=0.1, schedule="cosine_7_16")
    with pytest.raises(ValueError, match=r"Data.share must be above 0"):
        Data("digits", 8, share=0.5, train_size=100)
