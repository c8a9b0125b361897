"""SaliencyMix: the detector against OpenCV and its definition, its boxes by the draws repeated by hand."""

import numpy as np
import pytest
import torch
from batches import images_of, labels_of, stream
from sklearn.datasets import load_sample_images

from lumix.batch import Kind
from lumix.mixers.paste import box_around, visible_share
from lumix.mixers.saliencymix import IMAGENET_MEAN, IMAGENET_STD, SaliencyMix, fine_grained_saliency, peaks
from lumix.random import draw_beta, draw_partners, draw_uniform
from training.data.sets import digits, shapes

MEAN, STD = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))


def normalised(images):
    return (images.float() / 255 - MEAN) / STD


def opencv_saliency(images):
    """OpenCV's own maps [B, H, W] float32 of images [B, 3 or 1, H, W] uint8."""
    detector = pytest.importorskip("cv2").saliency.StaticSaliencyFineGrained_create()
    pixels = images.permute(0, 2, 3, 1).contiguous().numpy()
    return torch.stack([torch.from_numpy(detector.computeSaliency(image)[1]) for image in pixels])


def crops(side, count=4):
    """Crops of scikit-learn's two photographs, uint8 [2 * count, 3, side, side]."""
    rng = np.random.default_rng(side)
    pictures = []
    for photograph in load_sample_images().images:
        for _ in range(count):
            top, left = (rng.integers(length - side + 1) for length in photograph.shape[:2])
            pictures.append(photograph[top : top + side, left : left + side].transpose(2, 0, 1))
    return torch.from_numpy(np.stack(pictures))


def rectangles(height, width, count=12):
    """Images [count, 3, H, W] uint8 of three random rectangles each, on noise in every other one."""
    rng = np.random.default_rng(height * 1000 + width)
    images = rng.integers(0, 30, (count, 3, height, width)).astype(np.uint8)
    images[::2] = 20
    for image in images:
        for _ in range(3):
            rows, columns = (np.sort(rng.integers(0, length + 1, 2)) for length in (height, width))
            image[:, rows[0] : rows[1], columns[0] : columns[1]] = rng.integers(0, 256, (3, 1, 1))
    return torch.from_numpy(images)


PICTURES = {
    "photographs 224": lambda: crops(224),
    "photographs 32": lambda: crops(32, 20),
    "shapes 16": lambda: shapes(100, 0).images,
    "digits 8": lambda: digits()[0].images[:100],
    "grey 64": lambda: crops(64)[:, 1:2],
    "rectangles 40x13": lambda: rectangles(40, 13),
    "rectangles 33x57": lambda: rectangles(33, 57),
    "rectangles 230x150": lambda: rectangles(230, 150),
    "noise 3x2": lambda: images_of(20, torch.uint8, 3, 2),
    "constant": lambda: torch.full((2, 3, 20, 20), 77, dtype=torch.uint8),
}


@pytest.mark.parametrize("name", PICTURES)
def test_maps_are_opencvs(name):
    """Law of methods.md 4.7: at least 98.6 % of the pixels and every peak. Up to 256 x 256 pixels it is all of them."""
    images = PICTURES[name]()
    ours, theirs = fine_grained_saliency(images), opencv_saliency(images)
    assert (ours.dtype, ours.shape) == (torch.float32, (len(images), *images.shape[-2:]))
    assert torch.equal(ours, theirs)
    assert torch.equal(peaks(ours), peaks(theirs))


def test_a_batch_is_its_images_and_is_left_alone():
    images = crops(64, 10)
    before, together = images.clone(), fine_grained_saliency(images)
    assert torch.equal(together, torch.cat([fine_grained_saliency(image.unsqueeze(0)) for image in images]))
    assert torch.equal(together, fine_grained_saliency(images.contiguous(memory_format=torch.channels_last)))
    assert torch.equal(images, before)


@pytest.mark.gpu
def test_maps_are_the_same_on_the_gpu():
    images = crops(64)
    assert torch.equal(fine_grained_saliency(images.to("cuda")).cpu(), fine_grained_saliency(images))


def test_the_peak_is_the_first_largest_value_in_row_major_order():
    maps = torch.zeros(3, 4, 5)
    maps[0, 2, 4] = maps[0, 2, 3] = maps[0, 3, 0] = 1
    maps[1, 3, 4] = 0.5
    assert peaks(maps).tolist() == [[2, 3], [3, 4], [0, 0]]


def spots(size, height=24, width=20, seed=0):
    """Dark images uint8 with one bright pixel each, and the places [size, 2] of the pixels, away from the border."""
    places = torch.stack([torch.randint(2, n - 2, (size,), generator=stream(seed)) for n in (height, width)], 1)
    images = torch.zeros(size, 3, height, width, dtype=torch.uint8)
    images[torch.arange(size), :, places[:, 0], places[:, 1]] = 255
    return images, places


def expected_box(size, places, height, width, alpha=1.0):
    """Partners and box by the draws of SaliencyMix, made once more by hand: that of the first sample's partner (Q1)."""
    generator = stream()
    partner, _, _ = draw_partners(size, "elem", "permutation", generator)
    draw_uniform(1, generator)
    box = box_around(draw_beta(alpha, 1, generator), places[partner][:1], height, width)
    return partner, torch.where((visible_share(box, height, width) < 1).unsqueeze(1), box, 0).expand(size, 4)


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_the_box_is_centred_on_the_first_partners_peak(alpha):
    images, places = spots(7)
    mixer = SaliencyMix(alpha)
    batch = mixer.apply(images, labels_of(7), mixer.draw(images.shape, stream()), saliency=images[:, 0].float())
    partner, box = expected_box(7, places, 24, 20, alpha)
    assert torch.equal(batch.partner, partner)
    assert torch.equal(batch.box, box)
    torch.testing.assert_close(batch.own_weight, visible_share(box, 24, 20).float())


def test_the_partners_box_is_pasted_and_weighed_by_what_stays_visible():
    for size, seed in ((1, 0), (5, 1), (6, 2)):
        images = images_of(size, height=13, width=9)
        batch = SaliencyMix()(images, labels_of(size), stream(seed))
        own = batch.own_mask()
        assert torch.equal(batch.images, torch.where(own == 1, images, images[batch.partner]))
        torch.testing.assert_close(batch.own_weight, own.mean((1, 2, 3)))
        assert torch.equal(batch.is_kind(Kind.BOX), batch.own_weight < 1)


def test_the_detector_sees_the_pixels_of_floats_with_the_normalisation_undone():
    pixels = shapes(12, 0).images
    batch = SaliencyMix()(normalised(pixels), labels_of(12), stream())
    assert torch.equal(batch.box, expected_box(12, peaks(fine_grained_saliency(pixels)), 16, 16)[1])
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    for channels, mean, std in ((3, IMAGENET_MEAN, IMAGENET_STD), (1, (0.31,), (0.29,)), (2, (0.1, 0.9), (0.2, 2.0))):
        images = pixels.expand(2, channels, 16, 16)
        shift, scale = (torch.tensor(values).view(-1, 1, 1) for values in (mean, std))
        assert torch.equal(SaliencyMix(mean=mean, std=std).to_bytes((images / 255 - shift) / scale), images)
    clipped = SaliencyMix(mean=(0.5,), std=(1.0,)).to_bytes(torch.tensor([-3.0, 3.0]).view(1, 1, 1, 2))
    assert clipped.flatten().tolist() == [0, 255]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SaliencyMix(mean=(0.5,)), "mean and std must have one entry a channel each, not 1 and 3"),
        (
            lambda: SaliencyMix()(images_of(2)[:, :1], labels_of(2), stream()),
            "mean and std have 3 entries, the images 1 channels: give SaliencyMix the mean and std",
        ),
        (
            lambda: SaliencyMix()(images_of(2).to(torch.int16), labels_of(2), stream()),
            r"pixels of uint8 or normalised floats, not torch\.int16",
        ),
        (lambda: fine_grained_saliency(images_of(2)), r"reads images of dtype torch\.uint8, not torch\.float32"),
        (lambda: fine_grained_saliency(images_of(2)[:, :2]), r"images \[B, 3 or 1, H, W\], not of shape \[2, 2, 12, 8"),
    ],
)
def test_what_cannot_be_mixed_is_refused_in_one_sentence(build, message):
    with pytest.raises(ValueError, match=message):
        build()
