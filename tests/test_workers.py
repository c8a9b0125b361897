"""Draws in the workers of a DataLoader: new for each worker and epoch, the same again for the same seeds."""

from types import SimpleNamespace

import pytest
import torch
from batches import ALL_MIXERS, stream
from torch.utils.data import DataLoader, TensorDataset, default_collate

import lumix
from lumix import random as draws
from lumix.integrations.timm import Criterion, Mixup

ITEMS, BATCH, WORKERS = 48, 4, 2
DATA = TensorDataset(torch.rand(ITEMS, 3, 8, 8, generator=stream()), torch.arange(ITEMS) % 10)
BATCHES = ITEMS // BATCH


class Collate:
    """A collate_fn that a spawned worker can unpickle."""

    def __init__(self, mixer, seed=0):
        self.mixer, self.generator = mixer, stream(seed)

    def __call__(self, items):
        images, labels = default_collate(items)
        return self.mixer(images, labels, self.generator)


class Dropin:
    """timm's Mixup in a collate_fn."""

    def __init__(self, seed=0):
        self.mixup = Mixup(0.8, 1.0, num_classes=10, seed=seed)

    def __call__(self, items):
        return self.mixup(*default_collate(items))


def epochs(collate, seed=0, count=2, workers=WORKERS, **options):
    """The mixed images of each batch of some epochs."""
    loader = DataLoader(DATA, BATCH, num_workers=workers, collate_fn=collate, generator=stream(seed), **options)
    batches = [batch for _ in range(count) for batch in loader]
    return [batch[0] if isinstance(batch, list | tuple) else batch.images for batch in batches]


def pattern(images):
    """What was drawn, whatever the images: which share of each image is left."""
    return tuple(images.double().sum((1, 2, 3)).tolist())


def assert_equal(left, right):
    assert all(map(torch.equal, left, right))


@pytest.mark.parametrize(
    "make", [Dropin, *(lambda make=make: Collate(make()) for make in (ALL_MIXERS[0], *ALL_MIXERS[4:]))]
)
@pytest.mark.parametrize("persistent", [False, True])
def test_every_worker_and_epoch_draws_anew_and_reproducibly(make, persistent):
    options = {"persistent_workers": persistent, "multiprocessing_context": "fork"}
    first, again = (epochs(make(), **options) for _ in range(2))
    assert_equal(first, again)
    assert len({pattern(images) for images in first}) == len(first)  # the images of both epochs are the same
    assert not torch.equal(torch.stack(first), torch.stack(epochs(make(), seed=1, **options)))


def test_spawned_workers_draw_as_forked_ones():
    forked, spawned = (
        epochs(Collate(lumix.Mixup()), count=1, multiprocessing_context=context) for context in ("fork", "spawn")
    )
    assert_equal(forked, spawned)
    assert len({pattern(images) for images in spawned}) == BATCHES


def test_torch_manual_seed_decides_where_the_loader_has_no_generator():
    def weights():
        loader = DataLoader(DATA, BATCH, num_workers=WORKERS, collate_fn=Collate(lumix.Mixup()))
        return [float(batch.own_weight[0]) for _ in range(2) for batch in loader]

    with torch.random.fork_rng():
        runs = [(torch.manual_seed(seed), weights())[1] for seed in (5, 5, 6)]
    assert runs[0] == runs[1] != runs[2]


def test_without_workers_the_stream_is_the_callers():
    generator, twin = stream(3), stream(3)
    assert draws.for_worker(generator) is generator
    assert torch.equal(generator.get_state(), twin.get_state())
    images = epochs(Collate(lumix.Mixup(), 3), workers=0)
    for mixed, start in zip(images, [*range(0, ITEMS, BATCH)] * 2, strict=True):
        assert torch.equal(mixed, lumix.Mixup()(*DATA[start : start + BATCH], twin).images)


def test_the_rule_draws_apart_from_the_mixer_of_the_worker():
    """The target's stream is no copy of the worker's: lambda_r of a batch would be made of the draws of a later mix."""
    loader = DataLoader(DATA, BATCH, num_workers=1, collate_fn=Dropin(), generator=stream())
    targets = [target for _, target in loader]
    heads = [float(draws.draw_uniform(1, target.generator)) for target in targets]
    assert len(set(heads)) == BATCHES
    criterion = Criterion(lumix.MixLoss(lumix.LUMixRule(), smoothing=0.1))
    assert criterion(torch.zeros(BATCH, 10), targets[0]).isfinite()


def test_a_generator_of_a_device_is_refused_in_a_worker(monkeypatch):
    monkeypatch.setattr(draws, "get_worker_info", lambda: SimpleNamespace(seed=1))
    monkeypatch.setattr(draws, "device_of", lambda generator: generator.device)
    with pytest.raises(ValueError, match=r"a generator on cuda:0 cannot draw in a DataLoader's worker.*on the CPU"):
        draws.for_worker(SimpleNamespace(device=torch.device("cuda:0")))


def test_an_odd_seed_of_a_worker_is_no_trouble(monkeypatch):
    for seed in (0, -1, 2**63 + 5):
        monkeypatch.setattr(draws, "get_worker_info", lambda seed=seed: SimpleNamespace(seed=seed))
        generator = draws.for_worker(stream())
        first = torch.rand(1, generator=generator)
        assert not torch.equal(torch.rand(1, generator=draws.for_worker(generator)), first)  # seeded once
