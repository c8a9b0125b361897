"""The laws of every mixer: all that is random is in its draws, nothing but its result changes, batches are complete."""

from dataclasses import fields, is_dataclass, replace
from functools import partial

import pytest
import torch
from batches import PLANNED, images_of, labels_of, other_defaults, stream
from hypothesis import given, settings
from hypothesis import strategies as st
from test_attentive import brightness
from test_puzzle import puzzle_batch
from test_saliencymix import normalised
from torch import Tensor, nn

import lumix
from lumix.integrations.streams import StepStream
from lumix.mixers.base import NoMix
from lumix.random import wide
from training.data.sets import shapes

WHOLE = {
    "fmix": lumix.FMix,
    "soft_fmix": partial(lumix.FMix, max_soft=0.2),
    "resizemix": lumix.ResizeMix,
    "attentive": partial(lumix.AttentiveCutMix, brightness, size=None),
    "saliencymix": lumix.SaliencyMix,
    "puzzlemix": lumix.PuzzleMix,
}
MIXERS = {
    "none": NoMix,
    **{f"{name}_{mode}": partial(make, mode=mode) for name, make in PLANNED.items() for mode in ("batch", "elem")},
    **WHOLE,
    "manifold": partial(lumix.ManifoldMix, ("",)),
    "random_lambda": partial(lumix.RandomLambda, patch=8),
    "shuffle": lambda: lumix.RandomShuffle(lumix.CutMix(mode="elem"), 8),
    "either": lambda: lumix.Either(lumix.Mixup(), lumix.PuzzleMix(), prob=0.7),
    "shuffled_either": lambda: lumix.RandomShuffle(lumix.Either(lumix.ResizeMix(), lumix.SaliencyMix(prob=0.5)), 8),
}
NET = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 10, bias=False))
BYTES = (torch.uint8, torch.int16)
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16, *BYTES)


class Net(nn.Module):
    """A linear network in the precision of what it is given."""

    def forward(self, images):
        return images.float().flatten(1) @ torch.linspace(-1, 1, 7680, device=images.device).view(768, 10)


def tensors(value):
    """All tensors in a dataclass, also in those that it holds."""
    if isinstance(value, Tensor):
        return [value]
    return [t for f in fields(value) for t in tensors(getattr(value, f.name))] if is_dataclass(value) else []


def assert_same(first: lumix.MixedBatch, second: lumix.MixedBatch) -> None:
    for name, one, other in zip(lumix.MixedBatch._fields, first, second, strict=True):
        assert torch.equal(one, other) if isinstance(one, Tensor) else one == other, name


@pytest.mark.parametrize("name", MIXERS)
@settings(max_examples=20, deadline=None, derandomize=True)
@given(dtype=st.sampled_from(DTYPES), last=st.booleans(), size=st.sampled_from([1, 5, 6]), seed=st.integers(0, 999))
def test_a_batch_is_complete_and_apply_changes_and_draws_nothing(name, dtype, last, size, seed):
    """Any dtype, layout and size: what a call gives is `apply` of `draw`, and equals the same in float64."""
    mixer, exact = MIXERS[name](), "puzzle" not in name and name != "either"
    images = images_of(size, dtype, 16, 16) if dtype in BYTES else puzzle_batch(size, 16, seed=seed)[0].to(dtype)
    if dtype in BYTES and (not exact or name == "attentive" or "saliency" in name or "shuffled" in name):
        return  # they look at pixels as the network or the detector sees them
    images = images.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
    labels = labels_of(size)
    before, global_state = (images.clone(), labels.clone()), torch.get_rng_state()
    generator, again = stream(seed), stream(seed)
    batch = mixer(images, labels, generator, Net())
    draws = mixer.draw(images.shape, again)
    assert torch.equal(generator.get_state(), again.get_state())
    kept = [t.clone() for t in tensors(draws)]
    assert_same(mixer.apply(images, labels, draws, Net()), batch)
    assert all(map(torch.equal, tensors(draws), kept))
    assert all(map(torch.equal, (images, labels), before))
    assert torch.equal(torch.get_rng_state(), global_state)
    assert (batch.images.dtype, batch.images.shape) == (dtype, images.shape)
    layout = torch.channels_last if last else torch.contiguous_format
    assert batch.images.is_contiguous(memory_format=layout)
    assert batch.images.untyped_storage().data_ptr() != images.untyped_storage().data_ptr()
    assert torch.equal(batch.partner_labels, batch.labels[batch.partner])
    assert (batch.own_weight.dtype, batch.own_weight.shape) == (torch.float32, (size,))
    assert ((batch.own_weight >= 0) & (batch.own_weight <= 1)).all()
    types = (batch.kind.dtype, batch.partner.dtype, batch.labels.dtype)
    assert types == (torch.uint8, torch.int64, torch.int64)
    if exact and "saliency" not in name and "attentive" not in name and "shuffled" not in name:
        close = mixer.apply(images.double(), labels, draws, Net()).images
        tolerance = 0.6 if dtype in BYTES else 8e-3 if dtype.itemsize == 2 else 1e-6
        torch.testing.assert_close(batch.images.double(), close, rtol=0, atol=tolerance)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    images_in=st.sampled_from(DTYPES[:4]),
    network_in=st.sampled_from(DTYPES[:4]),
    puzzle=st.booleans(),
    autocast=st.booleans(),
    seed=st.integers(0, 99),
)
def test_the_network_is_asked_in_its_own_precision(images_in, network_in, puzzle, autocast, seed):
    """Images of any float dtype, a network of any other, under autocast or not: the mixed images keep theirs."""
    torch.manual_seed(seed)
    images, labels = puzzle_batch(4, 16, seed=seed)[0].to(images_in), labels_of(4)
    if puzzle:
        mixer, network = lumix.PuzzleMix(), nn.Sequential(nn.Flatten(), nn.Linear(768, 10)).to(network_in)
    else:
        network = nn.Conv2d(3, 4, 4, 4).to(network_in)
        mixer = lumix.AttentiveCutMix(network, cells=2, size=None)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        batch = mixer(images, labels, stream(seed), network)
    assert batch.images.dtype == images_in
    assert batch.images.isfinite().all()


@pytest.mark.parametrize("name", [name for name in MIXERS if name != "none"])
def test_gradients_reach_the_images(name):
    """Each pixel of the result is a mean of pixels: its gradients sum to 1, but for what resizing leaves out."""
    images = puzzle_batch(6, 16)[0].requires_grad_()
    batch = MIXERS[name]()(images, labels_of(6), stream(), Net())
    (gradient,) = torch.autograd.grad(batch.images.sum(), images)
    torch.testing.assert_close(gradient.sum(), torch.tensor(float(images.numel())))


@pytest.mark.parametrize("name", MIXERS)
def test_draws_for_another_batch_are_refused_in_one_sentence(name):
    mixer, (images, labels, _, _) = MIXERS[name](), puzzle_batch(6, 16)
    draws = mixer.draw((4, 3, 16, 16), stream())
    with pytest.raises(ValueError, match=r"the draws are for 4 images, the batch has 6: draw with images\.shape"):
        mixer.apply(images, labels, draws, NET)


@pytest.mark.parametrize("name", MIXERS)
def test_the_default_device_and_dtype_do_not_matter(name):
    images, labels, _, saliency = puzzle_batch(6, 16)
    given_maps = {"saliency": saliency} if name == "puzzlemix" else {}
    mixer = MIXERS[name]() if name != "either" else lumix.Either(lumix.Mixup(), lumix.FMix())
    expected = mixer.apply(images, labels, mixer.draw(images.shape, stream()), **given_maps)
    with other_defaults():
        draws = mixer.draw(images.shape, torch.Generator("cpu").manual_seed(0))
        assert_same(mixer.apply(images, labels, draws, **given_maps), expected)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    name=st.sampled_from([name for name in MIXERS if "puzzle" not in name and name != "either"]),
    inside=st.booleans(),
    seed=st.integers(0, 99),
    writes=st.booleans(),
)
def test_every_mixer_gives_the_same_under_compile(name, inside, seed, writes):
    """With draws in the compiled function or outside, in place too."""
    mixer, (images, labels, _, _) = MIXERS[name](), puzzle_batch(6, 16)
    if writes and hasattr(mixer, "inplace"):
        mixer = replace(mixer, inplace=True)

    def step(pixels, draws):
        batch = mixer.apply(pixels, labels, mixer.draw(pixels.shape, stream(seed)) if draws is None else draws)
        return batch.images * 1, batch.own_weight * 1

    draws = None if inside else mixer.draw(images.shape, stream(seed))
    torch._dynamo.reset()
    found = torch.compile(step, backend="eager")(images.clone(), draws)
    for ours, expected in zip(found, step(images.clone(), draws), strict=True):
        torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("name", WHOLE)
def test_a_batch_is_mixed_with_probability_prob(name):
    """An unmixed one draws partners and the question alone: further draws would move the streams of finished runs."""
    images, labels = puzzle_batch(4, 16)[:2]
    mixer, generator, other = WHOLE[name](prob=0.0), stream(), stream()
    assert not mixer.draw(images.shape, generator).mixes
    torch.randperm(4, generator=other)
    torch.rand(1, generator=other, dtype=torch.float64)
    assert torch.equal(generator.get_state(), other.get_state())
    batch = mixer(images, labels, stream())
    assert torch.equal(batch.images, images)
    assert batch.is_kind(lumix.Kind.NONE).all()
    mixer = WHOLE[name](prob=0.3)
    assert 80 < sum(mixer.draw(images.shape, generator).mixes for _ in range(400)) < 160  # 120, standard deviation 9


@pytest.mark.gpu
@pytest.mark.parametrize("name", MIXERS)
def test_the_same_on_the_gpu(name):
    images, labels = normalised(shapes(6, 0).images), labels_of(6)
    batch, on_gpu = (MIXERS[name]()(images.to(x), labels.to(x), stream(), Net()) for x in ("cpu", "cuda"))
    torch.testing.assert_close(on_gpu.images.cpu(), batch.images, rtol=0, atol=1e-6)
    torch.testing.assert_close(on_gpu.own_weight.cpu(), batch.own_weight)


class OnMps(Tensor):
    """A tensor that says it were on Apple's GPU."""

    device = torch.device("mps")


def test_what_mps_cannot_do_is_said_or_done_on_the_cpu():
    generator = type("OnMps", (torch.Generator,), {"device": OnMps.device})()
    with pytest.raises(ValueError, match=r"MPS cannot draw float64: use torch\.Generator\(\) on the CPU"):
        lumix.CutMix().draw((4, 3, 8, 8), generator)
    mixer, (images, labels, _, _) = lumix.PuzzleMix(), puzzle_batch(4, 16)
    with pytest.raises(ValueError, match="float64, which MPS does not have"):
        mixer.mix(images.as_subclass(OnMps), labels, mixer.draw(images.shape, stream()), None)
    assert StepStream().next(0, 0, 0, OnMps.device).device.type == "cpu"
    assert [wide(torch.device(name)) for name in ("mps", "cuda")] == [torch.float32, torch.float64]
