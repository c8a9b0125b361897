"""FMix: its noise against NumPy's transforms, its masks by counting pixels, its mixing pixel by pixel."""

import math

import numpy as np
import pytest
import torch
from batches import images_of, labels_of, mix, stream

from lumix.batch import Kind
from lumix.mixers.fmix import FMix, low_frequency_image
from lumix.random import draw_beta, draw_normal, draw_partners, draw_uniform


@pytest.mark.parametrize(("height", "width"), [(12, 8), (8, 12), (9, 7), (7, 9), (4, 2), (2, 5), (32, 32)])
def test_the_image_is_numpys_with_the_wrong_axis_sliced(height, width):
    """Rows 0 and 1 of a [height, columns, 2] spectrum are taken as real and imaginary part of a [columns, 2] one."""
    columns = min(width, width // 2 + 1 + width % 2)
    draws = draw_normal((2, columns, 2), stream()).numpy()
    frequency = np.hypot(np.fft.fftfreq(height)[:2, None], np.fft.fftfreq(width)[:columns])
    spectrum = draws / np.maximum(frequency, 1 / max(height, width))[..., None] ** 3
    image = np.fft.irfftn(spectrum[0] + 1j * spectrum[1], (height, width), axes=(0, 1))
    ours = low_frequency_image(height, width, stream())
    np.testing.assert_allclose(ours.numpy(), (image - image.min()) / (image.max() - image.min()), atol=1e-9)


@pytest.mark.parametrize(("height", "width"), [(12, 8), (9, 7), (16, 16)])
def test_a_mask_has_its_share_of_pixels_rounded_up_or_down_by_a_fair_coin(height, width):
    ups = 0
    for seed in range(200):
        generator = stream(seed)
        share = draw_beta(1.0, 1, generator)
        mask = FMix().draw_mask(height, width, share, generator)
        assert (mask.dtype, mask.shape) == (torch.float32, (height, width))
        ones, exact = int((mask == 1).sum()), float(share) * height * width
        assert ones + int((mask == 0).sum()) == height * width
        assert ones in (math.floor(exact), math.ceil(exact))
        ups += ones == math.ceil(exact)
    assert 70 < ups < 130  # 100 expected, standard deviation 7


@pytest.mark.parametrize(
    ("soft", "share", "band"), [(0, 0.3, 0), (0.1, 0.5, 0.1), (0.1, 0.05, 0.05), (0.1, 0.97, 0.03)]
)
def test_a_mask_holds_the_brightest_pixels_and_falls_over_its_band(soft, share, band):
    """`max_soft` of the pixels on either side of the edge, at most the smaller share."""
    mask = FMix(max_soft=soft).draw_mask(20, 20, torch.tensor([share], dtype=torch.float64), stream())
    falling = mask.flatten()[low_frequency_image(20, 20, stream()).flatten().argsort(descending=True)]
    assert (falling.diff() <= 0).all()
    between = int(((falling > 0) & (falling < 1)).sum())
    assert abs(between - 2 * int(400 * band)) <= 2  # the ends of the band are 1 and 0
    assert float(mask.mean()) == pytest.approx(share, abs=2 / 400)


@pytest.mark.parametrize("max_soft", [0.0, 0.2])
def test_images_are_mixed_by_the_mask(max_soft):
    for size, seed in ((1, 0), (5, 1), (6, 2)):
        images = images_of(size, height=13, width=9)
        batch = FMix(max_soft=max_soft)(images, labels_of(size), stream(seed))
        own = batch.mask.double()
        expected = own * images.double() + (1 - own) * images[batch.partner].double()
        torch.testing.assert_close(batch.images.double(), expected, rtol=0, atol=1e-6 if max_soft else 0)


def test_the_batch_names_the_drawn_share_not_the_counted_one():
    _, labels, batch = mix(FMix(alpha=0.5))
    generator = stream()
    partner, _, _ = draw_partners(6, "batch", "permutation", generator)
    draw_uniform(1, generator)
    share = draw_beta(0.5, 1, generator).float()
    assert torch.equal(batch.own_weight, share.expand(6))
    assert torch.equal(batch.partner, partner)
    assert torch.equal(batch.partner_labels, labels[partner])
    assert batch.is_kind(Kind.MASK).all()
    assert (batch.mask.dtype, batch.mask.shape) == (torch.float32, (6, 1, 12, 8))
    assert (batch.mask == batch.mask[0]).all()
    masks = torch.arange(6).view(-1, 1, 1).expand(6, 12, 8)
    assert torch.equal(batch.cut_masks(masks), torch.where(batch.mask[:, 0] == 1, masks, masks[partner]))


def test_images_of_one_row_are_refused():
    with pytest.raises(ValueError, match="needs images of 2 rows or more, not 1"):
        mix(FMix(), height=1)
