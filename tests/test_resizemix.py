"""ResizeMix against torch's own resizing of each partner, and the laws of its box."""

import pytest
import torch
from batches import images_of, labels_of, mix, stream
from torch.nn import functional as F

from lumix.batch import Kind
from lumix.draws import draw_integers, draw_partners, draw_uniform
from lumix.mixers.resizemix import ResizeMix

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.uint8]


def slowly(images, batch, interpolation):
    """The mixed images of a record, one sample after the other, in float64."""
    mixed = images.double().clone()
    top, bottom, left, right = batch.box[0].tolist()
    options = {} if interpolation == "nearest" else {"align_corners": False}
    for i, j in enumerate(batch.partner.tolist()):
        other = images[j : j + 1].double()
        mixed[i, :, top:bottom, left:right] = F.interpolate(
            other, (bottom - top, right - left), mode=interpolation, **options
        )[0]
    return mixed


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels_last", [False, True])
def test_every_partner_is_resized_whole_into_the_box(interpolation, dtype, channels_last):
    for size, seed in ((1, 0), (5, 1), (6, 2), (6, 3)):
        images, labels = images_of(size, dtype, height=13, width=9), labels_of(size)
        images = images.contiguous(memory_format=torch.channels_last) if channels_last else images
        before = images.clone(), labels.clone()
        batch = ResizeMix(interpolation=interpolation)(images, labels, stream(seed))
        assert batch.images.dtype == dtype
        assert batch.images.is_contiguous(
            memory_format=torch.channels_last if channels_last else torch.contiguous_format
        )
        exact = 0.501 if dtype == torch.uint8 else {torch.float16: 1e-3, torch.bfloat16: 8e-3}.get(dtype, 1e-6)
        tolerance = 0 if interpolation == "nearest" else exact
        torch.testing.assert_close(batch.images.double(), slowly(images, batch, interpolation), rtol=0, atol=tolerance)
        assert torch.equal(images, before[0])
        assert torch.equal(labels, before[1])


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (2, 2), (5, 3), (8, 8), (32, 20)])
@pytest.mark.parametrize(("low", "high"), [(0.0, 0.0), (0.1, 0.8), (1.0, 1.0)])
def test_a_box_is_never_empty_nor_outside(height, width, low, high):
    mixer = ResizeMix(low, high)
    for seed in range(100):
        top, bottom, left, right = mixer.draw_box(height, width, stream(seed)).tolist()
        assert 0 <= top < bottom <= height
        assert 0 <= left < right <= width
        assert bottom - top <= max(2, height * high)
        assert right - left <= max(2, width * high)


def test_the_box_is_tau_times_each_side_around_its_centre():
    """With the draws repeated by hand: tau, then row and column of the centre; odd sides lose a pixel (legacy)."""
    for seed in range(30):
        generator = stream(seed)
        tau = 0.1 + 0.7 * float(draw_uniform(1, generator))
        row, column = draw_integers(torch.tensor([40, 64]), generator).tolist()
        high, wide = max(2, int(40 * tau)) // 2, max(2, int(64 * tau)) // 2
        expected = [max(0, row - high), min(40, row + high), max(0, column - wide), min(64, column + wide)]
        assert ResizeMix().draw_box(40, 64, stream(seed)).tolist() == expected


def test_weights_are_what_can_be_seen():
    """Own images are 0 and partners 1, so the mean of a mixed image is the partner's share."""
    images = torch.zeros(2, 3, 12, 8)
    images[1] = 1
    for seed in range(20):
        batch = ResizeMix(pairing="flip")(images, labels_of(2), stream(seed))
        torch.testing.assert_close(batch.images[0].mean(), 1 - batch.own_weight[0])
        torch.testing.assert_close(batch.images[1].mean(), batch.own_weight[1])
        torch.testing.assert_close(batch.own_mask().mean((1, 2, 3)), batch.own_weight)


def test_the_record_is_a_cut_with_one_box_whose_pixels_moved():
    images, labels, batch = mix(ResizeMix())
    partner, _, _ = draw_partners(6, "batch", "permutation", stream())
    assert torch.equal(batch.partner, partner)
    assert torch.equal(batch.partner_labels, labels[partner])
    assert batch.is_kind(Kind.BOX).all()
    assert (batch.box == batch.box[0]).all()
    assert (batch.own_weight.dtype, batch.kind.dtype, batch.box.dtype) == (torch.float32, torch.uint8, torch.int64)
    assert batch.moved
    with pytest.raises(ValueError, match="masks do not follow"):
        batch.cut_masks(torch.zeros(6, 12, 8))
    again = mix(ResizeMix())[2]
    assert torch.equal(batch.images, again.images)
    assert not torch.equal(batch.images, ResizeMix()(images, labels, stream(1)).images)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ResizeMix(0.8, 0.1), r"shares of a side, 0 <= low <= high <= 1, not 0\.8, 0\.1"),
        (lambda: ResizeMix(high=1.5), "high must lie between 0 and 1, not 1.5"),
        (lambda: ResizeMix(interpolation="cubic"), "interpolation must be one of nearest, bilinear, not 'cubic'"),
        (lambda: ResizeMix(pairing="roll"), "pairing must be one of flip, permutation"),
        (lambda: ResizeMix(prob=2), "prob must lie between 0 and 1, not 2"),
        (lambda: mix(ResizeMix(pairing="flip"), 5), "flip pairing needs an even batch, not 5 images"),
        (lambda: ResizeMix()(images_of(4)[0], labels_of(4), stream()), r"ResizeMix mixes images \[B, C, H, W\], not"),
    ],
)
def test_bad_settings_are_refused_in_one_sentence(build, message):
    with pytest.raises(ValueError, match=message):
        build()
