"""ResizeMix against torch's own resizing of each partner, and the laws of its box."""

import pytest
import torch
from batches import images_of, labels_of, mix, stream
from torch.nn import functional as F

from lumix.batch import Kind
from lumix.mixers.resizemix import ResizeMix
from lumix.random import draw_integers, draw_uniform


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.uint8, torch.int8, torch.int16, torch.int64])
def test_every_partner_is_resized_whole_into_the_box(dtype):
    for size, seed in ((1, 0), (5, 1), (6, 2), (6, 3)):
        images = (100 * images_of(size, height=13, width=9)).to(dtype)
        batch = ResizeMix()(images, labels_of(size), stream(seed))
        top, bottom, left, right = batch.box[0].tolist()
        expected = images.double()
        resized = F.interpolate(expected, (bottom - top, right - left), mode="nearest")
        expected = expected.clone()
        expected[:, :, top:bottom, left:right] = resized[batch.partner]
        assert torch.equal(batch.images.double(), expected)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (2, 2), (5, 3), (8, 8), (40, 64)])
def test_the_box_is_tau_times_each_side_around_its_centre_and_never_empty(height, width):
    """With the draws repeated by hand: tau, then row and column of the centre; odd sides lose a pixel (legacy)."""
    for seed in range(50):
        generator = stream(seed)
        tau = 0.1 + 0.7 * float(draw_uniform(1, generator))
        row, column = draw_integers(torch.tensor([height, width]), generator).tolist()
        high, wide = max(2, int(height * tau)) // 2, max(2, int(width * tau)) // 2
        top, bottom, left, right = ResizeMix().draw_box(height, width, stream(seed)).tolist()
        assert [top, bottom] == [max(0, row - high), min(height, row + high)]
        assert [left, right] == [max(0, column - wide), min(width, column + wide)]
        assert top < bottom
        assert left < right


def test_weights_are_what_can_be_seen():
    """Own images are 0 and partners 1, so the mean of a mixed image is the partner's share."""
    images = torch.zeros(2, 3, 12, 8)
    images[1] = 1
    for seed in range(20):
        batch = ResizeMix(pairing="flip")(images, labels_of(2), stream(seed))
        torch.testing.assert_close(batch.images[0].mean(), 1 - batch.own_weight[0])
        torch.testing.assert_close(batch.images[1].mean(), batch.own_weight[1])
        torch.testing.assert_close(batch.own_mask().mean((1, 2, 3)), batch.own_weight)


def test_the_batch_is_cut_with_one_box_whose_pixels_moved():
    batch = mix(ResizeMix())[2]
    assert batch.is_kind(Kind.BOX).all()
    assert (batch.box == batch.box[0]).all()
    with pytest.raises(ValueError, match="masks do not follow"):
        batch.cut_masks(torch.zeros(6, 12, 8))
