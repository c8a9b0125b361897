"""Planned mixers against slow per-sample arithmetic, in new memory and in place; what every mixer keeps; errors."""

from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from batches import ALL_MIXERS, MODES, PLANNED, images_of, labels_of, mix, stream
from hypothesis import given, settings
from hypothesis import strategies as st

from lumix import CutMix, Kind, Mixup, RandomLambda, RandomShuffle, Switch
from lumix.batch import inside_box
from lumix.mixers import paste
from lumix.mixers.paste import MixPlan, apply_plan, blend, mix_by_selecting

LAYOUTS = {
    "contiguous": lambda x: x,
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(2, 3),
    "strided": lambda x: x.repeat_interleave(2, dim=3)[..., ::2],
    "one channel": lambda x: x[:, :1].contiguous(),
}
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.uint8]


def slowly(images, plan):
    """The mixed images of a plan, one sample after the other, from the definitions."""
    mixed = []
    for i, j in enumerate(plan.partner.tolist()):
        own, other = images[i].clone(), images[j]
        if plan.kind[i] == Kind.BLEND:
            weight = plan.own_weight[i].item()
            own = blended = own.to(torch.float64) * weight + other.to(torch.float64) * (1 - weight)
            own = (blended if images.is_floating_point() else blended.round()).to(images.dtype)
        top, bottom, left, right = plan.box[i].tolist()
        own[:, top:bottom, left:right] = other[:, top:bottom, left:right]
        mixed.append(own)
    return torch.stack(mixed)


PATHS = ["small", "small, no NumPy", "large", "large, no NumPy"]


@contextmanager
def path(name):
    """The ways for small and for large batches on the CPU, also without NumPy."""

    def refuse(tensor):
        raise RuntimeError("Numpy is not available")

    with pytest.MonkeyPatch.context() as patch:
        for limit in ("LARGE", "PIECE") if "large" in name else ():
            patch.setattr(paste, limit, 1)
        if "no NumPy" in name:
            patch.setattr(torch.Tensor, "numpy", refuse)
        yield


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(sorted(PLANNED)),
    mode=st.sampled_from(MODES),
    dtype=st.sampled_from(DTYPES),
    layout=st.sampled_from(sorted(LAYOUTS)),
    way=st.sampled_from(PATHS),
    case=st.sampled_from([("flip", 6), ("permutation", 1), ("permutation", 7)]),
    seed=st.integers(0, 99),
)
def test_images_are_what_the_plan_says_in_new_memory_and_in_place(name, mode, dtype, layout, way, case, seed):
    """Per-sample arithmetic, and bit for bit the way for devices. Memory format is kept, the caller's images too."""
    pairing, size = case
    mixer = PLANNED[name](mode=mode, pairing=pairing, prob=0.8)
    images, labels = LAYOUTS[layout](images_of(size, dtype)), labels_of(size)
    before, plan = images.clone(), mixer.draw(images.shape, stream(seed))
    with path(way):
        batch = mixer(images, labels, stream(seed))
        assert torch.equal(images, before)
        written = replace(mixer, inplace=True)(images, labels, stream(seed))
    assert torch.equal(batch.images, mix_by_selecting(before, plan))
    # half an ulp of the sum, and for uint8 a tie rounded the other way
    tolerance = {torch.uint8: 1.0, torch.float16: 1e-3, torch.bfloat16: 8e-3}.get(dtype, 1e-6)
    torch.testing.assert_close(batch.images, slowly(before, plan), rtol=0, atol=tolerance)
    assert batch.images.dtype == dtype
    for result in (batch.images, mix_by_selecting(before, plan)):
        if layout in ("contiguous", "channels_last"):
            assert result.is_contiguous(
                memory_format=torch.channels_last if layout == "channels_last" else torch.contiguous_format
            )
    assert written.images is images
    assert torch.equal(images, batch.images)
    for field in ("partner_labels", "own_weight", "kind"):
        assert torch.equal(getattr(written, field), getattr(batch, field))


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
            patch.setattr(paste, "LARGE", 0)
        assert torch.equal(apply_plan(images, labels_of(7), plan).images, expected)
        assert torch.equal(apply_plan(images, labels_of(7), plan, inplace=True).images, expected)
    assert torch.equal(images, expected)


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
@pytest.mark.parametrize("way", PATHS)
def test_autograd_notices_what_was_written(mode, way):
    """NumPy writes past autograd, which must still refuse gradients of the pixels that were there before."""
    images = images_of(6)
    weight = torch.ones(1, requires_grad=True)
    product = (weight * images).sum()
    with path(way):
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


def test_device_path_compiles_as_one_graph():
    images, plan = images_of(6), Switch(mode="elem").draw((6, 3, 12, 8), stream())
    compiled = torch.compile(lambda x: mix_by_selecting(x, plan), fullgraph=True, backend="eager")
    assert torch.equal(compiled(images), mix_by_selecting(images, plan))


def test_blend_rounds_integers_to_the_nearest():
    own, other = torch.full((1, 1, 1, 1), 10, dtype=torch.uint8), torch.full((1, 1, 1, 1), 20, dtype=torch.uint8)
    assert blend(own, other, torch.tensor([0.24], dtype=torch.float64)).item() == 18


# ------------------------------------------------------------------------------------------------- batches


def test_slices_and_moves_of_a_batch():
    batch = mix(Switch(mode="elem"))[2]
    part = batch.rows(torch.tensor([4, 1]))
    assert torch.equal(part.images, batch.images[[4, 1]])
    assert torch.equal(part.own_weight, batch.own_weight[[4, 1]])
    assert batch.rows(slice(2, 5)).size == 3
    assert batch.to("meta").partner_labels.device.type == "meta"


def test_inside_box_counts_the_pixels_of_the_box():
    box = torch.tensor([[1, 4, 2, 7], [0, 0, 0, 0], [0, 12, 0, 8]])
    assert inside_box(box, 12, 8).sum((1, 2, 3)).tolist() == [15, 0, 96]


def test_blended_samples_have_no_mask_of_one_object_per_pixel():
    with pytest.raises(ValueError, match="cut masks of cut batches only"):
        mix(Mixup())[2].cut_masks(torch.zeros(6, 12, 8))


# ------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("make", ALL_MIXERS)
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x, y: (x, y.float()), r"class indices \[B\] of an integer dtype, not torch\.float32 of shape \[6\]"),
        (
            lambda x, y: (x, y.bool()),
            r"not torch\.bool of shape \[6\]: whole numbers become labels\.to\(torch\.int64\)",
        ),
        (lambda x, y: (x, y[:3]), r"labels must be \[B\] with B = 6 images, not of shape \[3\]"),
        (lambda x, y: (x[0, 0], y), r"mixes .*images \[B, C, H, W\].*, not a batch of shape \[12, 8\]"),
        (lambda x, y: (x[:0], y[:0]), r"a batch of shape \[0, .*\] is empty"),
    ],
)
def test_bad_batches_are_refused_in_one_sentence(make, spoil, message):
    with pytest.raises(ValueError, match=message):
        make()(*spoil(images_of(6), labels_of(6)), stream())


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: mix(Mixup(pairing="flip"), 5), "flip pairing needs an even batch, not 5 images: use drop_last=True"),
        (lambda: mix(RandomLambda(patch=4, pairing="flip"), 5), "even batch"),
        (lambda: CutMix(minmax=(0.8, 0.2)), "minmax must be two shares of a side"),
        (lambda: mix(CutMix(minmax=(0.1, 0.11))), "leaves no whole pixel for a side of 12"),
        (lambda: mix(RandomLambda(patch=5)), "patches of side 5 do not tile an image of 12 x 8"),
        (lambda: mix(RandomShuffle(Mixup(), patch=16)), "patches of side 16 do not tile"),
        (
            lambda: Mixup().apply(images_of(4), labels_of(4), Mixup().draw((6, 3, 12, 8), stream())),
            "draws are for 6 images, the",
        ),
    ],
)
def test_bad_settings_are_refused_in_one_sentence(build, message):
    with pytest.raises(ValueError, match=message):
        build()
