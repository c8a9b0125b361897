"""The law of every mixer: all that is random is in its draws, and nothing but its result changes."""

from dataclasses import fields, is_dataclass, replace
from functools import partial

import pytest
import torch
from batches import PLANNED, images_of, labels_of, stream
from test_attentive import brightness
from test_puzzle import puzzle_batch
from torch import Tensor, nn

from lumix import (
    AttentiveCutMix,
    CutMix,
    Either,
    FMix,
    ManifoldMix,
    MixedBatch,
    Mixup,
    PuzzleMix,
    RandomLambda,
    RandomShuffle,
    ResizeMix,
    SaliencyMix,
)
from lumix.mixers.base import NoMix

WHOLE = {
    "fmix": FMix,
    "resizemix": ResizeMix,
    "attentive": partial(AttentiveCutMix, brightness, size=None),
    "saliencymix": SaliencyMix,
    "puzzlemix": PuzzleMix,
}
MIXERS = {
    "none": NoMix,
    **{f"{name}_{mode}": partial(make, mode=mode) for name, make in PLANNED.items() for mode in ("batch", "elem")},
    **WHOLE,
    "manifold": ManifoldMix,
    "random_lambda": partial(RandomLambda, patch=8),
    "shuffle": lambda: RandomShuffle(CutMix(mode="elem"), 8),
    "either": lambda: Either(Mixup(), PuzzleMix(), prob=0.7),
    "shuffled_either": lambda: RandomShuffle(Either(ResizeMix(), SaliencyMix(prob=0.5)), 8),
}


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 10))


def tensors(value):
    """All tensors in a dataclass, also in those that it holds."""
    if isinstance(value, Tensor):
        return [value]
    return [t for f in fields(value) for t in tensors(getattr(value, f.name))] if is_dataclass(value) else []


def assert_same(first: MixedBatch, second: MixedBatch) -> None:
    for name, one, other in zip(MixedBatch._fields, first, second, strict=True):
        assert torch.equal(one, other) if isinstance(one, Tensor) else one == other, name


@pytest.mark.parametrize("name", MIXERS)
def test_a_call_is_apply_of_draw_and_apply_changes_and_draws_nothing(name, net):
    mixer, (images, labels, _, _) = MIXERS[name](), puzzle_batch(6, 16)
    before = images.clone(), labels.clone()
    for seed in range(6):
        generator, again = stream(seed), stream(seed)
        batch = mixer(images, labels, generator, net)
        draws = mixer.draw(images.shape, again)
        assert torch.equal(generator.get_state(), again.get_state())
        kept = [t.clone() for t in tensors(draws)]
        for _ in range(2):
            assert_same(mixer.apply(images, labels, draws, net), batch)
        assert all(torch.equal(a, b) for a, b in zip(tensors(draws), kept, strict=True))
        assert torch.equal(images, before[0])
        assert torch.equal(labels, before[1])


@pytest.mark.parametrize("name", MIXERS)
def test_draws_for_another_batch_are_refused_in_one_sentence(name, net):
    mixer, (images, labels, _, _) = MIXERS[name](), puzzle_batch(6, 16)
    draws = mixer.draw((4, 3, 16, 16), stream())
    with pytest.raises(ValueError, match=r"the draws are for 4 images, the batch has 6: draw with images\.shape"):
        mixer.apply(images, labels, draws, net)


@pytest.mark.parametrize("name", WHOLE)
def test_an_unmixed_batch_draws_nothing_further(name):
    """Partners and the question whether to mix; the method's own draws would move the streams of finished runs."""
    mixer, generator = WHOLE[name](prob=0.0), stream()
    draws = mixer.draw((6, 3, 16, 16), generator)
    assert not draws.mixes
    other = stream()
    torch.randperm(6, generator=other)
    torch.rand(1, generator=other, dtype=torch.float64)
    assert torch.equal(generator.get_state(), other.get_state())


def test_draws_can_be_changed_by_hand():
    images, labels = images_of(6), labels_of(6)
    draws = CutMix().draw(images.shape, stream())
    batch = CutMix().apply(images, labels, replace(draws, partner=torch.arange(6).roll(-1)))
    assert batch.partner.tolist() == [1, 2, 3, 4, 5, 0]
    resized = ResizeMix().draw(images.shape, stream())
    batch = ResizeMix().apply(images, labels, replace(resized, box=torch.tensor([2, 6, 1, 4])))
    assert (batch.own_weight == 1 - 12 / 96).all()
