"""Feeds of labelled and unlabelled images: balanced, nested and reproducible subsets, streams, views, cutout."""

from pathlib import Path
from typing import Any

import pytest
import torch
from batches import stream
from engine import small_run
from torch import Tensor

from lumix import CrossEntropy
from lumix.registry import get_part
from lumix.semi.views import Views
from training.config import Data, Execution, Loss, Mix, Optim, Run
from training.data import labelled_rows, load, normalise
from training.feed import build_feed
from training.parts import FixMatch, Mixed
from training.process import Process
from training.resident_feed import ResidentFeed
from training.rng import endless_batches
from training.run_directory import RunError
from training.semi_feed import SemiFeed, cutout

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


def a_feed(run: Run, seed: int = 0, rank: int = 0, world: int = 1) -> Any:
    return build_feed(run, seed, Process(rank, world, torch.device("cpu")), Execution())


def tensors(batches: list[Any]) -> list[Tensor]:
    return [t for views, labels in batches for t in (*views.labelled, *views.unlabelled, labels)]


# ------------------------------------------------------------------------------------------------- labels


def test_labelled_images_are_balanced_nested_and_chosen_by_the_seed() -> None:
    train, _ = load(Data("digits", 8))
    rows = {(seed, n): labelled_rows(train.labels, 10, n, seed) for seed in (0, 1) for n in (10, 40, 100)}
    for (seed, count), chosen in rows.items():
        assert train.labels[chosen].bincount().tolist() == [count // 10] * 10
        assert bool((chosen.diff() > 0).all())
        assert set(chosen.tolist()) <= set(rows[seed, 100].tolist())
    assert not torch.equal(rows[0, 40], rows[1, 40])


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [(45, "must be a multiple of the 10 classes"), (2000, "asks for 200 images of each class, and one has")],
)
def test_labels_that_cannot_be_had_are_refused(labels: int, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        a_feed(a_run(labels=labels))


def test_all_methods_get_the_same_labelled_images() -> None:
    fixmatch = a_feed(a_run())
    alone = a_feed(a_run(Mixed(), data={"crop_padding": 1}))
    assert isinstance(alone, ResidentFeed)
    assert not isinstance(alone, SemiFeed)
    assert fixmatch.subset == alone.subset != a_feed(a_run(), seed=1).subset
    assert (len(fixmatch.train_set), len(fixmatch.unlabelled)) == (40, 1000)
    pairs = zip(fixmatch.train(1, 0), alone.train(1, 0), strict=True)
    for (views, labels), (images, same) in pairs:
        assert torch.equal(labels, same)
        assert torch.equal(views.labelled[0], images)


# ------------------------------------------------------------------------------------------------- streams


@pytest.mark.parametrize(("n", "size"), [(10, 4), (10, 25), (7, 7)])
def test_batches_without_end_are_passes_over_everything(n: int, size: int) -> None:
    def first(start: int, count: int) -> list[Tensor]:
        batches = endless_batches(n, size, 0, start)
        return [next(batches) for _ in range(count)]

    whole = first(0, 12)
    assert {len(batch) for batch in whole} == {size}
    passes = torch.cat(whole).split(n)
    complete = [part.tolist() for part in passes if len(part) == n]
    assert all(sorted(part) == list(range(n)) for part in complete)
    assert len({tuple(part) for part in complete}) == len(complete)  # each in an order of its own
    for start in (1, 5, 11):
        assert all(torch.equal(a, b) for a, b in zip(first(start, 1), whole[start:], strict=False))


@pytest.mark.parametrize("task", ["fixmatch", "pseudo_label", "mixmatch"])
def test_a_feed_goes_on_from_any_update(task: str) -> None:
    run = a_run(get_part(task).cls(), data={"crop_padding": 1, **(STRONG if task == "fixmatch" else {})})
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


# ------------------------------------------------------------------------------------------------- views


def test_views_are_of_the_same_images_and_as_many_as_the_task_asks_for() -> None:
    views: Views
    for task, data, counts in (
        ("fixmatch", {"cutout": 0.5}, (8, 16, 16)),
        ("pseudo_label", {}, (8, 8)),
        ("mixmatch", {}, (8, 8, 8)),
    ):
        run = a_run(get_part(task).cls(**({"ratio": 2} if task == "fixmatch" else {})), data=data)
        (views, _), *_ = a_feed(run).train(0, 0)
        assert tuple(map(len, (*views.labelled, *views.unlabelled))) == counts
        if task == "mixmatch":  # without crop and flip the weak views are the images
            assert torch.equal(*views.unlabelled)
    run = a_run(data={"cutout": 0.5})
    feed = a_feed(run)
    (views, _), *_ = feed.train(0, 0)
    weak, strong = views.unlabelled
    grey = normalise(torch.full((1, 1, 1, 1), feed.grey[0], dtype=torch.uint8), feed.mean, feed.std)
    changed = weak != strong
    assert 0 < changed.float().mean() < 0.25  # the largest square has a quarter of the pixels
    assert bool((strong[changed] == grey.item()).all())


def test_rand_augment_works_on_grey_and_coloured_images() -> None:
    for name, size in (("digits", 8), ("shapes", 16)):
        run = a_run(data=STRONG).replace(data=Data(name, size, labels=40, **STRONG))
        (views, _), *_ = a_feed(run).train(0, 0)
        weak, strong = views.unlabelled
        assert weak.shape == strong.shape
        assert (weak != strong).flatten(1).any(1).float().mean() > 0.8


def test_cutout_is_a_square_inside_the_image_of_any_place() -> None:
    images = torch.full((400, 3, 16, 16), 9, dtype=torch.uint8)
    hit = cutout(images, 0.5, (1, 2, 3), stream()) != 9
    assert bool((images == 9).all())
    assert torch.equal(hit[:, 0], hit[:, 1])
    rows, columns = hit[:, 0].any(2).sum(1), hit[:, 0].any(1).sum(1)
    assert torch.equal(hit[:, 0].sum((1, 2)), rows * columns)
    assert int(rows.max()) == int(columns.max()) == 8
    assert int(rows.min()) == 0
    middle = hit[:, 0, 4:-4, 4:-4].float().mean(0)
    assert bool((middle > 0).all())
    assert bool((hit[:, 0, 0] | hit[:, 0, -1]).any())


# ------------------------------------------------------------------------------------------------- refusals


def test_what_would_be_ignored_is_refused() -> None:
    with pytest.raises(ValueError, match=r"fixmatch learns from unlabelled images: give Data\.labels"):
        a_run(labels=0)
    with pytest.raises(ValueError, match=r"Run\.epoch_steps, for which there is no pass over both"):
        a_run(epoch_steps=0)
    with pytest.raises(ValueError, match="make the strong views of unlabelled images, and mix takes no views"):
        a_run(Mixed())
    with pytest.raises(ValueError, match="fixmatch takes weak, strong views"):
        a_run(data={})
    with pytest.raises(ValueError, match=r"FixMatch\.ratio must be"):
        a_feed(a_run(FixMatch(ratio=0)))
    files = Data("cub200", 224, crop_scale=0.5, labels=600, strong="rand-m5-n1-mstd101-inc1")
    with pytest.raises(RunError, match="fixmatch takes strong views, which are made of sets held in memory alone"):
        a_feed(small_run(data=files, task=FixMatch(), epoch_steps=4, mix=Mix(), loss=PLAIN))
    with pytest.raises(ValueError, match="has neither warm-up nor a floor"):
        Optim(lr=0.1, schedule="cosine_7_16")


def test_a_run_counted_in_steps_evaluates_and_stops_by_them(tmp_path: Path) -> None:
    from training.loop import fit

    result = fit(a_run(Mixed(), data={}), 0, tmp_path)
    assert (result["steps"], result["epochs"]) == (12, 3)
    assert result["subset"] == a_feed(a_run()).subset
