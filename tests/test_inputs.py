"""Batches that people have: videos and signals, labels of all kinds, missing classes, dense targets, masks, dtypes."""

import numpy as np
import pytest
import torch
from batches import MODES, build_loss, dense_target, images_of, labels_of, random_logits, stream
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

import lumix
from lumix.batch import Kind
from lumix.inputs import IGNORED
from lumix.integrations.timm import Criterion
from lumix.integrations.timm import Mixup as TimmMixup
from lumix.mixers.base import NoMix
from lumix.mixers.paste import mix_by_selecting, mix_images

NETWORK = torch.nn.Conv2d(3, 4, 4, 4)
ANY = {
    "mixup": lumix.Mixup,
    "cutmix": lumix.CutMix,
    "drawn": lambda **options: lumix.CutMix(correct_lam=False, box_rule="full", **options),
    "minmax": lambda **options: lumix.CutMix(minmax=(0.3, 0.8), **options),
    "switch": lumix.Switch,
}
IMAGES_ALONE = {
    "FMix": lumix.FMix(),
    "ResizeMix": lumix.ResizeMix(),
    "SaliencyMix": lumix.SaliencyMix(),
    "PuzzleMix": lumix.PuzzleMix(),
    "AttentiveCutMix": lumix.AttentiveCutMix(NETWORK, cells=2, size=None),
    "ManifoldMix": lumix.ManifoldMix(layers=("",)),
    "RandomLambda": lumix.RandomLambda(patch=4),
    "RandomShuffle": lumix.RandomShuffle(lumix.Mixup(), 4),
}
MIXERS = [*(make() for make in ANY.values()), *IMAGES_ALONE.values(), lumix.Either(lumix.Mixup(), lumix.CutMix())]
INTEGERS = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]


def network(images):
    return images.mean((2, 3)) @ torch.eye(3, 10)


class Network(torch.nn.Module):
    def forward(self, images):
        return network(images)


def run(mixer, images, labels, seed=0):
    return mixer(images, labels, stream(seed), Network())


@pytest.mark.parametrize("name", ANY)
@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_videos_are_mixed_frame_by_frame_alike(name, data):
    """Weights, partners and box are those of one image; every frame is mixed as this image, in any layout and path."""
    options = {"mode": data.draw(st.sampled_from(MODES)), "prob": data.draw(st.sampled_from([1.0, 0.6]))}
    dtype = data.draw(st.sampled_from([torch.float32, torch.float16, torch.uint8, torch.float64]))
    size, frames, height, width = (data.draw(st.integers(low, high)) for low, high in ((1, 5), (1, 4), (2, 9), (2, 9)))
    seed, layout = data.draw(st.integers(0, 99)), data.draw(st.sampled_from(["plain", "last", "frames_first"]))
    video = (255 * torch.rand(size, frames, 3, height, width, generator=stream(seed))).to(dtype).transpose(1, 2)
    if layout != "frames_first":
        video = video.contiguous(memory_format=torch.channels_last_3d if layout == "last" else torch.contiguous_format)
    before, labels, mixer = video.clone(), labels_of(size), ANY[name](**options)
    plan = mixer.draw(video.shape, stream(seed))
    batch = mixer.apply(video, labels, plan)
    stills = [
        mixer.apply(video[:, :, t], labels, mixer.draw(video[:, :, t].shape, stream(seed))) for t in range(frames)
    ]
    assert torch.equal(batch.images, torch.stack([still.images for still in stills], dim=2))
    assert torch.equal(batch.own_weight, stills[0].own_weight)
    assert torch.equal(batch.own_mask(), stills[0].own_mask())
    assert torch.equal(video, before)
    if layout != "frames_first":
        assert batch.images.stride() == video.stride() or 1 in video.shape
    frames_as_channels = video.flatten(1, 2)
    assert torch.equal(mix_by_selecting(frames_as_channels, plan).view(video.shape), batch.images)
    assert mix_images(video, plan, inplace=True) is video
    assert torch.equal(video, batch.images)


@pytest.mark.parametrize("name", ANY)
@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_signals_keep_the_share_that_their_labels_say(name, data):
    size, length = data.draw(st.integers(1, 6)), data.draw(st.integers(4, 300))
    mixer = ANY[name](mode=data.draw(st.sampled_from(MODES)))
    signals = torch.arange(size, dtype=torch.float64).view(-1, 1, 1).expand(-1, 2, length).contiguous()
    if data.draw(st.booleans()):
        signals = signals.mT.contiguous().mT
    plan = mixer.draw(signals.shape, stream(data.draw(st.integers(0, 99))))
    batch = mixer.apply(signals, labels_of(size), plan)
    assert batch.images.shape == signals.shape
    cut = batch.is_cut()
    own = (batch.images[:, 0] == signals[:, 0]) | (batch.partner == torch.arange(size)).unsqueeze(1)
    if name != "drawn":
        moved = cut & (batch.partner != torch.arange(size))
        assert torch.allclose(own.float().mean(1)[moved], batch.own_weight[moved], atol=1e-6)
    expected = batch.own_weight * signals[:, 0, 0] + (1 - batch.own_weight) * signals[batch.partner, 0, 0]
    assert torch.allclose(batch.images[~cut].mean((1, 2)), expected[~cut].double(), atol=1e-5)
    assert torch.equal(mix_by_selecting(signals.unsqueeze(2), plan).squeeze(2), batch.images)
    assert mix_images(signals, plan, inplace=True) is signals
    assert torch.equal(signals, batch.images)


@pytest.mark.parametrize("name", IMAGES_ALONE)
@pytest.mark.parametrize("shape", [(4, 3, 16), (4, 3, 2, 16, 16), (4, 16)])
def test_other_mixers_refuse_videos_and_signals_by_name(name, shape):
    message = rf"{name} mixes images \[B, C, H, W\], not a batch of shape"
    with pytest.raises(ValueError, match=message):
        run(IMAGES_ALONE[name], torch.rand(shape), labels_of(4))
    with pytest.raises(ValueError, match=message):
        IMAGES_ALONE[name].draw(torch.Size(shape), stream())


def test_draws_are_for_a_shape():
    with pytest.raises(ValueError, match=r"use images\.shape"):
        lumix.Mixup().draw(torch.rand(4, 3, 8, 8), stream())


@pytest.mark.parametrize("mixer", [*MIXERS, NoMix()], ids=lambda mixer: type(mixer).__name__)
@pytest.mark.parametrize("dtype", [*INTEGERS, torch.uint16, torch.uint32])
def test_labels_of_any_integer_dtype_are_taken_and_left_as_they_are(mixer, dtype):
    images = images_of(4, height=8)
    expected = run(mixer, images, labels_of(4))
    for labels in (labels_of(4).to(dtype), labels_of(4).to(dtype).view(4, 1)):
        batch = run(mixer, images, labels)
        assert torch.equal(batch.labels, expected.labels)
        assert batch.labels.dtype == batch.partner_labels.dtype == torch.int64
        assert torch.equal(batch.images, expected.images)
        assert labels.dtype == dtype


@pytest.mark.parametrize(
    ("labels", "remedy"),
    [
        ([0, 1, 2, 3], r"not list: use torch\.as_tensor\(labels\)"),
        (np.arange(4), r"not ndarray: use torch\.as_tensor\(labels\)"),
        (None, r"not NoneType"),
        (torch.eye(4), r"labels\.argmax\(1\); .* batch\.mix_targets\(labels\)"),
        (torch.eye(4, dtype=torch.int64), r"labels\.argmax\(1\); .* batch\.mix_targets\(labels\)"),
        (torch.rand(4), r"batch\.mix_targets\(labels\.view\(-1, 1\)\)"),
        (torch.zeros(4, dtype=torch.complex64), "not torch.complex64"),
        (torch.zeros(4, 2, 2, dtype=torch.int64), "B = 4 images, not of shape"),
        (torch.zeros((), dtype=torch.int64), "B = 4 images, not of shape"),
        (torch.zeros(4, dtype=torch.bool), r"not torch\.bool"),
        (torch.zeros(4, dtype=torch.int64, device="meta"), "labels are on meta and images on cpu"),
    ],
)
@pytest.mark.parametrize("mixer", [*MIXERS, TimmMixup(num_classes=10)], ids=lambda mixer: type(mixer).__name__)
def test_other_labels_are_refused_with_the_remedy(mixer, labels, remedy):
    with pytest.raises(ValueError, match=remedy):
        mixer(images_of(4, height=8), labels) if isinstance(mixer, TimmMixup) else run(
            mixer, images_of(4, height=8), labels
        )


@pytest.mark.parametrize("mixer", MIXERS, ids=lambda mixer: type(mixer).__name__)
@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(4, 3, 8, 8, dtype=torch.complex64),
        torch.zeros(4, 3, 8, 8, dtype=torch.complex128),
        torch.zeros(4, 3, 8, 8, dtype=torch.bool),
        torch.zeros(4, 3, 8, 8, dtype=torch.float8_e4m3fn),
        torch.zeros(4, 3, 8, 8, dtype=torch.uint16),
        torch.zeros(4, 3, 8, 8).to_sparse(),
        np.zeros((4, 3, 8, 8)),
        [torch.zeros(3, 8, 8)] * 4,
        None,
    ],
    ids=lambda images: str(getattr(images, "dtype", type(images).__name__)),
)
def test_images_that_mixing_would_falsify_are_refused(mixer, images):
    with pytest.raises(ValueError, match="images must be") as error:
        run(mixer, images, labels_of(4))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("mode", MODES)
def test_wide_integers_lose_nothing(dtype, mode):
    """Two equal images blend to themselves: numbers beyond 2**24 too, which float32 does not hold."""
    images = torch.full((4, 1, 8, 8), 2**30 + 1, dtype=dtype)
    for mixer in (lumix.Mixup(mode=mode), lumix.CutMix(mode=mode), lumix.Switch(mode=mode), lumix.FMix(max_soft=0.2)):
        plan = mixer.draw(images.shape, stream())
        assert torch.equal(mixer.apply(images, labels_of(4), plan).images, images)
        if isinstance(mixer, lumix.Mixup):
            assert torch.equal(mix_by_selecting(images, plan), images)
            assert torch.equal(mix_images(images.clone(), plan, inplace=True), images)


RULES = {
    "area": lumix.AreaRule(),
    "lumix": lumix.LUMixRule(),
    "both": lumix.LUMixRule(apply_to="both", scores="sigmoid", detach=False),
}
LOSSES = {"ce": {}, "ce_r": {"eta": 0.7}, "bce": {"kind": "bce"}, "bce_r": {"kind": "bce", "eta": 0.5}}


def with_missing(size, seed, ignored=IGNORED):
    labels = labels_of(size, seed) % 5
    return labels.masked_fill(torch.rand(size, generator=stream(seed)) < 0.3, ignored)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("loss", LOSSES)
@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 999),
    ignored=st.sampled_from([-100, -1, 255, 0]),
    mixer=st.sampled_from(["cutmix", "mixup", "switch"]),
)
def test_samples_without_a_class_add_nothing(rule, loss, seed, ignored, mixer):
    """The loss and its gradient are those of the samples that count, alone; without mixing as torch's cross entropy."""
    labels = with_missing(12, seed, ignored)
    batch = ANY[mixer](mode="elem", prob=0.7)(images_of(12), labels, stream(seed))
    criterion = build_loss(RULES[rule], **LOSSES[loss], smoothing=0.1)
    criterion.ignore_index = ignored
    logits = random_logits(12).requires_grad_()
    draws = criterion.draw(batch, stream(1))
    value = criterion(logits, batch, stream(1))
    shows = batch.kind != Kind.NONE
    counts = (batch.labels != ignored) & ((batch.partner_labels != ignored) | ~shows)
    found = criterion.counts(batch)
    assert counts.all() if found is None else torch.equal(found, counts)
    if not counts.any():
        assert value.isnan()
        return
    (gradient,) = torch.autograd.grad(value, logits)
    index = counts.nonzero().squeeze(1)
    part, rows = batch.rows(index), logits[index]
    weight = criterion.weights(rows, part, None if draws is None else draws[index])
    expected = criterion.per_sample(rows, part, weight)[0].mean()
    (wanted,) = torch.autograd.grad(expected, logits)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient, wanted)
    assert (gradient[~counts] == 0).all()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_without_mixing_it_is_torchs_cross_entropy(smoothing):
    labels, logits = torch.tensor([0, -100, 2, 3]), random_logits(4)
    batch = NoMix()(images_of(4), labels, stream())
    value = lumix.MixLoss(smoothing=smoothing)(logits, batch)
    torch.testing.assert_close(value, F.cross_entropy(logits, labels, label_smoothing=smoothing))
    nothing = NoMix()(images_of(4), torch.full((4,), -100), stream())
    assert lumix.MixLoss()(logits, nothing).isnan()  # as in torch
    unmixed = lumix.CutMix(prob=0.0)(images_of(4), labels, stream())  # partners are drawn, and none shows
    torch.testing.assert_close(lumix.MixLoss()(logits, unmixed), F.cross_entropy(logits, labels))


def test_missing_classes_under_compile():
    batch = lumix.CutMix(mode="elem")(images_of(12), with_missing(12, 3), stream())
    criterion, logits = build_loss(RULES["area"], eta=0.5), random_logits(12)
    compiled = torch.compile(criterion, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(logits, batch), criterion(logits, batch))


def test_missing_classes_in_the_drop_in():
    labels = torch.tensor([0, -100, 2, 3])
    mixup = TimmMixup(cutmix_alpha=1.0, num_classes=5)
    images, target = mixup(images_of(4), labels)
    logits = random_logits(4)
    counts = torch.tensor([True, False, False, True])  # of the flipped batch
    assert (target[~counts] == 0).all()
    assert torch.allclose(target[counts].sum(1), torch.tensor(1.0))
    per_sample = -(target * logits.log_softmax(1)).sum(1)
    torch.testing.assert_close(Criterion(lumix.MixLoss(smoothing=0.1))(logits, target), per_sample[counts].mean())
    with pytest.raises(ValueError, match=r"not -1 \.\. 3; samples without a class have -100"):
        mixup(images, torch.tensor([0, -1, -100, 3]))


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_one_logit_of_two_classes_is_refused_with_what_equals_it(shape):
    batch = lumix.CutMix()(images_of(4), torch.tensor([0, 1, 1, 0]), stream())
    z = torch.randn(shape, generator=stream())
    with pytest.raises(ValueError, match=r"give one logit .* torch\.cat\(\[torch\.zeros_like\(z\), z\], dim=1\)"):
        lumix.MixLoss()(z, batch)
    z = z.view(4, 1)
    two = lumix.MixLoss()(torch.cat([torch.zeros_like(z), z], dim=1), batch)
    one = F.binary_cross_entropy_with_logits(z, batch.mix_targets(torch.tensor([[0], [1], [1], [0]])))
    torch.testing.assert_close(two, one)


@pytest.mark.parametrize("mixer", MIXERS, ids=lambda mixer: type(mixer).__name__)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.int64, torch.bool])
def test_mixed_targets_of_one_hot_labels_are_the_dense_target(mixer, dtype):
    labels = labels_of(4)
    batch = run(mixer, images_of(4, height=8), labels)
    mixed = batch.mix_targets(F.one_hot(labels, 10).to(dtype))
    assert mixed.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(mixed.double(), dense_target(batch, batch.own_weight, 10))


def test_multi_hot_targets_by_the_documented_path():
    images, targets = images_of(6), (torch.rand(6, 10, generator=stream()) < 0.3).float()
    for mixer in (lumix.Mixup(), lumix.CutMix(mode="elem"), lumix.Switch()):
        batch = mixer(images, torch.full((6,), IGNORED), stream())
        mixed = batch.mix_targets(targets)
        weight = batch.own_weight.unsqueeze(1)
        assert torch.equal(mixed, weight * targets + (1 - weight) * targets[batch.partner])
        assert F.binary_cross_entropy_with_logits(network(batch.images), mixed).isfinite()
        assert lumix.MixLoss()(network(batch.images), batch).isnan()  # it knows no class of any sample
    for wrong in (targets[:3], targets[:, 0], targets.tolist(), None):
        with pytest.raises(ValueError, match="targets must be a tensor"):
            batch.mix_targets(wrong)
    with pytest.raises(ValueError, match="part of a batch"):
        lumix.Mixup(pairing="flip")(images, labels_of(6), stream()).rows(slice(3)).mix_targets(targets[:3])


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_masks_of_every_layout_are_cut_alike(data):
    size, height, width = (data.draw(st.integers(low, 6)) for low in (1, 2, 2))
    planes, dtype = (
        data.draw(st.integers(1, size + 1)),
        data.draw(st.sampled_from([torch.uint8, torch.int64, torch.bool])),
    )
    mixer = data.draw(st.sampled_from([lumix.CutMix(mode="elem"), lumix.FMix()]))
    batch = mixer(images_of(size, height=height, width=width), labels_of(size), stream(data.draw(st.integers(0, 99))))
    masks = torch.randint(0, 2, (size, planes, height, width), generator=stream()).to(dtype)
    cut = batch.cut_masks(masks)
    assert cut.shape == masks.shape
    assert cut.dtype == dtype
    own = batch.own_mask()[:, 0] > 0.5
    for plane in range(planes):
        flat = masks[:, plane]
        assert torch.equal(batch.cut_masks(flat), cut[:, plane])
        assert torch.equal(cut[:, plane], torch.where(own, flat, flat[batch.partner]))


@pytest.mark.parametrize(
    "shape", [(6, 16, 12, 1), (6, 12, 16), (6, 16), (3, 16, 12), (6, 2, 1, 16, 12), (1, 6, 16, 12), (16, 12)]
)
def test_masks_of_another_shape_are_refused(shape):
    batch = lumix.CutMix()(images_of(6, height=16, width=12), labels_of(6), stream())
    with pytest.raises(ValueError, match=r"masks must be \[6, 16, 12\], or \[6, K, 16, 12\]"):
        batch.cut_masks(torch.zeros(shape))
    with pytest.raises(ValueError, match="masks must be a tensor"):
        batch.cut_masks(np.zeros((6, 16, 12)))


def test_masks_of_videos_and_signals():
    video = lumix.CutMix()(torch.rand(4, 3, 2, 8, 8), labels_of(4), stream(3))
    masks = torch.randint(0, 9, (4, 5, 2, 8, 8), generator=stream())
    cut = video.cut_masks(masks)
    assert torch.equal(video.cut_masks(masks[:, 1]), cut[:, 1])
    assert torch.equal(
        cut[:, 0, 1], torch.where(video.own_mask()[:, 0] > 0.5, masks[:, 0, 1], masks[video.partner, 0, 1])
    )
    signals = torch.rand(4, 3, 40)
    batch = lumix.CutMix()(signals, labels_of(4), stream(3))
    assert torch.equal(batch.cut_masks(signals), batch.images)
    assert torch.equal(batch.cut_masks(signals[:, 0]), batch.images[:, 0])
