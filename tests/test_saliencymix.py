"""SaliencyMix: its boxes by the draws repeated by hand, what its detector sees, and what it refuses."""

import pytest
import torch
from batches import images_of, labels_of, stream

from lumix.batch import Kind
from lumix.draws import draw_beta, draw_partners, draw_uniform
from lumix.mixers.boxes import box_around, visible_share
from lumix.mixers.saliency import fine_grained_saliency, peaks, reference_float_saliency
from lumix.mixers.saliencymix import IMAGENET_MEAN, IMAGENET_STD, SaliencyMix
from training.data.sets import shapes

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.uint8]
MEAN, STD = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))


def normalised(images):
    return (images.float() / 255 - MEAN) / STD


def spots(size, height=24, width=20, seed=0):
    """Dark images uint8 with one bright pixel each, and the places [size, 2] of the pixels, away from the border."""
    places = torch.stack([torch.randint(2, n - 2, (size,), generator=stream(seed)) for n in (height, width)], 1)
    images = torch.zeros(size, 3, height, width, dtype=torch.uint8)
    images[torch.arange(size), :, places[:, 0], places[:, 1]] = 255
    return images, places


def expected_boxes(scope, size, places, height, width, alpha=1.0):
    """Partners and boxes by the draws of SaliencyMix, made once more by hand."""
    generator = stream()
    partner, _, _ = draw_partners(size, "elem", "permutation", generator)
    draw_uniform(1, generator)
    weight = draw_beta(alpha, 1 if scope == "batch_first" else size, generator)
    centre = places[partner][: len(weight)]
    box = box_around(weight, centre, height, width)
    box = torch.where((visible_share(box, height, width) < 1).unsqueeze(1), box, 0)  # nothing pasted, no box
    return partner, box.expand(size, 4)


@pytest.mark.parametrize("scope", ["batch_first", "sample"])
@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_boxes_are_centred_on_the_partners_peak(scope, alpha):
    """On maps of one bright pixel each; batch_first takes that of the first sample's partner for all (Q1)."""
    images, places = spots(7)
    mixer = SaliencyMix(alpha, scope=scope)
    draws = mixer.draw(images.shape, stream())
    batch = mixer.apply(images, labels_of(7), draws, saliency=images[:, 0].float())
    partner, box = expected_boxes(scope, 7, places, 24, 20, alpha)
    assert torch.equal(batch.partner, partner)
    assert torch.equal(batch.box, box)
    torch.testing.assert_close(batch.own_weight, visible_share(box, 24, 20).float())
    inside = torch.stack([(box[:, 0] < box[:, 1]), (box[:, 2] < box[:, 3])]).all(0)
    for i in inside.nonzero().flatten().tolist() if scope == "sample" else [0]:
        if inside[i]:
            row, column = places[partner[i]].tolist()
            assert (batch.images[i, :, row, column] == 255).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("scope", ["batch_first", "sample"])
@pytest.mark.parametrize("saliency_input", ["uint8", "reference_float"])
def test_the_partners_box_is_pasted_and_weighed_by_what_stays_visible(dtype, channels_last, scope, saliency_input):
    for size, seed in ((1, 0), (5, 1), (6, 2)):
        images, labels = images_of(size, dtype, height=13, width=9), labels_of(size)
        images = images.contiguous(memory_format=torch.channels_last) if channels_last else images
        before = images.clone(), labels.clone()
        batch = SaliencyMix(scope=scope, saliency_input=saliency_input)(images, labels, stream(seed))
        own = batch.own_mask()
        assert torch.equal(batch.images, torch.where(own == 1, images, images[batch.partner]))
        assert batch.images.dtype == dtype
        assert batch.images.is_contiguous(
            memory_format=torch.channels_last if channels_last else torch.contiguous_format
        )
        torch.testing.assert_close(batch.own_weight, own.mean((1, 2, 3)))
        assert torch.equal(batch.partner_labels, labels[batch.partner])
        assert torch.equal(batch.is_kind(Kind.BOX), batch.own_weight < 1)
        assert torch.equal(images, before[0])
        assert torch.equal(labels, before[1])
        assert len(batch.box.unique(dim=0)) == 1 or scope == "sample"


@pytest.mark.parametrize("saliency_input", ["uint8", "reference_float"])
def test_the_detector_sees_the_pixels_or_the_floats(saliency_input):
    pixels = shapes(12, 0).images
    floats = normalised(pixels)
    mixer = SaliencyMix(scope="sample", saliency_input=saliency_input)
    assert torch.equal(mixer.saliency(pixels), fine_grained_saliency(pixels))
    wanted = fine_grained_saliency(pixels) if saliency_input == "uint8" else reference_float_saliency(floats)
    assert torch.equal(mixer.saliency(floats), wanted)
    batch = mixer(floats, labels_of(12), stream())
    _, box = expected_boxes("sample", 12, peaks(wanted), 16, 16)
    assert torch.equal(batch.box, box)


def test_normalisation_is_undone_to_the_byte():
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    for channels, mean, std in ((3, IMAGENET_MEAN, IMAGENET_STD), (1, (0.31,), (0.29,)), (2, (0.1, 0.9), (0.2, 2.0))):
        images = pixels.expand(2, channels, 16, 16)
        shift, scale = (torch.tensor(values).view(-1, 1, 1) for values in (mean, std))
        floats = (images / 255 - shift) / scale
        assert torch.equal(SaliencyMix(mean=mean, std=std).to_bytes(floats), images)
    clipped = SaliencyMix(mean=(0.5,), std=(1.0,)).to_bytes(torch.tensor([-3.0, 3.0]).view(1, 1, 1, 2))
    assert clipped.flatten().tolist() == [0, 255]


def test_the_generator_decides_everything():
    images, labels = shapes(6, 0).images, labels_of(6)
    first, second = (SaliencyMix()(images, labels, stream()) for _ in range(2))
    assert torch.equal(first.images, second.images)
    assert not torch.equal(first.images, SaliencyMix()(images, labels, stream(3)).images)


def test_gradients_pass_by_the_detector():
    images = images_of(4).requires_grad_()
    for saliency_input in ("uint8", "reference_float"):
        batch = SaliencyMix(saliency_input=saliency_input)(images, labels_of(4), stream())
        batch.images.sum().backward()
    assert images.grad is not None


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SaliencyMix(0), "alpha must be above 0, not 0"),
        (lambda: SaliencyMix(scope="all"), "scope must be one of batch_first, sample, not 'all'"),
        (lambda: SaliencyMix(saliency_input="float"), "saliency_input must be one of uint8, reference_float, not"),
        (lambda: SaliencyMix(box_rule="odd"), "box_rule must be one of legacy, full"),
        (lambda: SaliencyMix(pairing="roll"), "pairing must be one of flip, permutation"),
        (lambda: SaliencyMix(prob=1.5), r"prob must lie between 0 and 1, not 1\.5"),
        (lambda: SaliencyMix(mean=(0.5,)), "mean and std must have one entry a channel each, not 1 and 3"),
        (
            lambda: SaliencyMix()(images_of(2)[:, :1], labels_of(2), stream()),
            "mean and std have 3 entries, the images 1 channels: give SaliencyMix the mean and std",
        ),
        (lambda: SaliencyMix(pairing="flip")(images_of(5), labels_of(5), stream()), "flip pairing needs an even"),
        (lambda: SaliencyMix()(images_of(2), labels_of(2).float(), stream()), "labels must be class indices"),
    ],
)
def test_what_cannot_be_mixed_is_refused_in_one_sentence(build, message):
    with pytest.raises(ValueError, match=message):
        build()
