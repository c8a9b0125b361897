"""Mixing in place: the same bits as in new memory, for every plan, layout and path through lumix.mixers.cpu_mixing."""

from dataclasses import replace

import pytest
import torch
from batches import MODES, PLANNED, images_of, labels_of, stream
from hypothesis import given, settings
from hypothesis import strategies as st
from test_mixers import DTYPES, LAYOUTS

from lumix import CutMix, Kind, Mixup, Switch
from lumix.mixers import cpu_mixing
from lumix.mixers.apply import apply_plan, mix_by_selecting
from lumix.mixers.plan import MixPlan


@pytest.fixture(params=["small", "small, wide boxes", "small, no NumPy", "large", "large, no NumPy"])
def path(request, monkeypatch):
    """The ways for small batches, with boxes narrow or wide to gather, and for large ones; also without NumPy."""
    if request.param == "small, wide boxes":
        monkeypatch.setattr(cpu_mixing, "NARROW", 0)
    if "large" in request.param:
        monkeypatch.setattr(cpu_mixing, "LARGE", 0)
        monkeypatch.setattr(cpu_mixing, "REUSED", 0)
        monkeypatch.setattr(cpu_mixing, "PIECE", 1)
    if "no NumPy" in request.param:

        def refuse(tensor):
            raise RuntimeError("Numpy is not available")

        monkeypatch.setattr(torch.Tensor, "numpy", refuse)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", PLANNED)
@pytest.mark.usefixtures("path")
def test_in_place_gives_the_same_bits_in_the_callers_memory(name, mode, dtype, layout):
    for pairing, size in [("flip", 6), ("permutation", 1), ("permutation", 7)]:
        mixer = PLANNED[name](mode=mode, pairing=pairing, prob=0.8)
        images, labels = LAYOUTS[layout](images_of(size, dtype)), labels_of(size)
        plan = mixer.draw(images.shape, stream(size))
        copied = apply_plan(images, labels, plan)
        assert torch.equal(copied.images, mix_by_selecting(images, plan))
        batch = replace(mixer, inplace=True)(images, labels, stream(size))
        assert batch.images is images
        assert torch.equal(images, copied.images)
        for field in ("partner_labels", "own_weight", "kind"):
            assert torch.equal(getattr(batch, field), getattr(copied, field))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    partner=st.permutations(range(7)) | st.lists(st.integers(0, 6), min_size=7, max_size=7),
    kinds=st.lists(st.sampled_from(list(Kind)[:3]), min_size=7, max_size=7),
    large=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_any_partners_and_any_kinds(partner, kinds, large, seed):
    """Cycles of every length, with blended, pasted and unmixed samples in any order, and several readers of one."""
    images, kind = images_of(7, seed=seed), torch.tensor(kinds, dtype=torch.uint8)
    top, left = torch.randint(6, (2, 7), generator=stream(seed))
    boxes = torch.stack([top, top + 4, left, left + 2], dim=1)
    box = torch.where((kind == Kind.BOX)[:, None], boxes, 0)
    weight = torch.where(kind == Kind.NONE, 1.0, torch.rand(7, generator=stream(seed), dtype=torch.float64))
    plan = MixPlan(weight, torch.tensor(partner), kind, box, frozenset({*kinds, Kind.NONE}))
    expected = mix_by_selecting(images, plan)
    with pytest.MonkeyPatch.context() as patch:
        if large:
            patch.setattr(cpu_mixing, "LARGE", 0)
            patch.setattr(cpu_mixing, "REUSED", 0)
        assert torch.equal(apply_plan(images, labels_of(7), plan).images, expected)
        assert torch.equal(apply_plan(images, labels_of(7), plan, inplace=True).images, expected)
    assert torch.equal(images, expected)


def test_cycles_follow_the_partners_and_hold_each_sample_once():
    assert list(cpu_mixing.cycles([2, 1, 4, 0, 3])) == [[0, 2, 4, 3], [1]]
    order = torch.randperm(50, generator=stream()).tolist()
    found = list(cpu_mixing.cycles(order))
    assert sorted(i for cycle in found for i in cycle) == list(range(50))
    for cycle in found:
        assert [order[i] for i in cycle] == cycle[1:] + cycle[:1]


@pytest.mark.parametrize("mixer", [CutMix(inplace=True), Mixup(inplace=True), CutMix(mode="elem", inplace=True)])
def test_an_unmixed_batch_in_place_is_the_batch(mixer):
    images = images_of(6)
    before = images.clone()
    assert replace(mixer, prob=0.0)(images, labels_of(6), stream()).images is images
    assert torch.equal(images, before)


def test_images_that_share_memory_are_refused():
    images = images_of(1).expand(6, -1, -1, -1)
    with pytest.raises(
        ValueError, match=r"share memory \(expand\) cannot be mixed in place: use images.contiguous\(\)"
    ):
        Switch(mode="elem", inplace=True)(images, labels_of(6), stream())
    assert Switch(mode="elem")(images, labels_of(6), stream()).images.shape == images.shape


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.usefixtures("path")
def test_autograd_notices_what_was_written(mode):
    """NumPy writes past autograd, which must still refuse gradients of the pixels that were there before."""
    images = images_of(6)
    weight = torch.ones(1, requires_grad=True)
    product = (weight * images).sum()
    CutMix(mode=mode, inplace=True)(images, labels_of(6), stream())
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()


@pytest.mark.parametrize("name", PLANNED)
def test_gradients_reach_the_images_and_their_partners(name):
    """Writing would cut them off without a word; the sum of each image's gradient is what of it shows."""
    images = torch.rand(6, 3, 12, 8, generator=stream(), requires_grad=True)
    mixer = PLANNED[name](mode="elem")
    batch = mixer(images, labels_of(6), stream())
    assert torch.equal(batch.images, mixer(images.detach(), labels_of(6), stream()).images)
    (gradient,) = torch.autograd.grad(batch.images.mean((1, 2, 3)).sum(), images)
    shown = batch.own_weight.index_add(0, batch.partner, 1 - batch.own_weight)
    torch.testing.assert_close(gradient.sum((1, 2, 3)), shown)
