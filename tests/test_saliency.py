"""The saliency detector against OpenCV and against its definition pixel by pixel."""

import numpy as np
import pytest
import torch
from batches import images_of
from sklearn.datasets import load_sample_images

from lumix.mixers.saliency import CHUNK_PIXELS, fine_grained_saliency, peaks, reference_float_saliency
from lumix.mixers.saliencymix import IMAGENET_MEAN, IMAGENET_STD
from training.data.sets import digits, shapes

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.uint8]
MEAN, STD = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))


def normalised(images):
    return (images.float() / 255 - MEAN) / STD


def opencv_saliency(images):
    """OpenCV's own maps [B, H, W] float32 of images [B, 3 or 1, H, W] uint8, or float32 (then with the slip)."""
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
    "photographs 64": lambda: crops(64),
    "photographs 32": lambda: crops(32, 20),
    "photographs 16": lambda: crops(16, 20),
    "shapes 16": lambda: shapes(100, 0).images,
    "digits 8": lambda: digits()[0].images[:100],
    "grey 64": lambda: crops(64)[:, 1:2],
    "rectangles 40x13": lambda: rectangles(40, 13),
    "rectangles 13x40": lambda: rectangles(13, 40),
    "rectangles 33x57": lambda: rectangles(33, 57),
    "rectangles 230x150": lambda: rectangles(230, 150),
    "noise 3x2": lambda: images_of(20, torch.uint8, 3, 2),
    "constant": lambda: torch.full((2, 3, 20, 20), 77, dtype=torch.uint8),
}


@pytest.mark.parametrize("name", PICTURES)
def test_maps_of_bytes_are_opencvs(name):
    """Law of methods.md 4.7: at least 98.6 % of the pixels and every peak. Up to 256 x 256 pixels it is all of them."""
    images = PICTURES[name]()
    ours, theirs = fine_grained_saliency(images), opencv_saliency(images)
    assert (ours.dtype, ours.shape) == (torch.float32, (len(images), *images.shape[-2:]))
    assert torch.equal(ours, theirs)
    assert torch.equal(peaks(ours), peaks(theirs))


def test_maps_of_large_images_agree_with_opencv_but_for_its_rounded_sums():
    images = torch.from_numpy(load_sample_images().images[1][:400, :600].copy()).permute(2, 0, 1).unsqueeze(0)
    ours, theirs = fine_grained_saliency(images), opencv_saliency(images)
    assert (ours == theirs).float().mean() >= 0.986
    assert torch.equal(peaks(ours), peaks(theirs))


@pytest.mark.parametrize("name", [name for name in PICTURES if "rectangles" not in name and name != "noise 3x2"])
def test_the_published_slip_is_what_opencv_makes_of_floats(name):
    """Centres are read from the low bytes of floats, so the order of every rounding counts."""
    images = PICTURES[name]()
    images = normalised(images) if images.shape[1] == 3 else (images / 255 - 0.4) / 0.3
    ours, theirs = reference_float_saliency(images), opencv_saliency(images)
    assert (ours == theirs).float().mean() >= 0.986
    assert torch.equal(peaks(ours), peaks(theirs))


def slow_map(image):
    """The map [H, W] of one image [3, H, W] uint8 by the formulas of methods.md 4.7, pixel after pixel."""
    blue, green, red = image.astype(float)
    grey = np.rint(0.114 * blue + 0.587 * green + 0.299 * red)
    height, width = grey.shape
    for _ in range(2):
        wide = np.pad(grey, 1, mode="reflect")
        weights = np.outer([1, 2, 1], [1, 2, 1]) / 16
        blurred = [[(wide[y : y + 3, x : x + 3] * weights).sum() + 0.5 for x in range(width)] for y in range(height)]
        grey = np.floor(np.array(blurred))
    on, off = np.zeros_like(grey), np.zeros_like(grey)
    for n in (12, 24, 48, 28, 56, 112):
        for y in range(height):
            for x in range(width):
                window = grey[max(0, y - n + 1) : y + n + 1, max(0, x - n + 1) : x + n + 1]
                mean = (window.sum() - grey[y, x]) / (window.size - 1)
                on[y, x] += np.trunc(max(0, grey[y, x] - mean))
                off[y, x] += np.trunc(max(0, mean - grey[y, x]))
    on, off = (np.trunc(255 * part / max(part.max(), 1)) for part in (on, off))
    return np.trunc(255 * (on + off) / max(on.max(), off.max(), 1)) % 256 / 255


@pytest.mark.parametrize(("height", "width"), [(8, 8), (15, 29), (30, 14)])
def test_maps_follow_the_definition(height, width):
    images = rectangles(height, width, 3)
    ours = fine_grained_saliency(images).numpy()
    theirs = np.stack([slow_map(image) for image in images.numpy()])
    assert (np.abs(ours - theirs) < 1e-6).mean() >= 0.986  # float64 here truncates elsewhere than float32
    assert np.array_equal(ours.reshape(3, -1).argmax(1), theirs.reshape(3, -1).argmax(1))


@pytest.mark.parametrize("detector", [fine_grained_saliency, reference_float_saliency])
def test_a_batch_is_its_images_and_is_left_alone(detector):
    images = crops(64, 40)  # more than are looked at at a time on the CPU
    assert images[:, 0].numel() > CHUNK_PIXELS
    images = images if detector is fine_grained_saliency else normalised(images)
    before, together = images.clone(), detector(images)
    assert torch.equal(together, torch.cat([detector(image.unsqueeze(0)) for image in images]))
    assert torch.equal(together, detector(images.contiguous(memory_format=torch.channels_last)))
    assert torch.equal(images, before)
    assert 0 <= together.min() <= together.max() <= 1


@pytest.mark.gpu
def test_maps_are_the_same_on_the_gpu():
    images = crops(64)
    assert torch.equal(fine_grained_saliency(images.to("cuda")).cpu(), fine_grained_saliency(images))
    slip = reference_float_saliency(normalised(images).to("cuda")).cpu()
    assert (slip == reference_float_saliency(normalised(images))).float().mean() >= 0.986


def test_the_peak_is_the_first_largest_value_in_row_major_order():
    maps = torch.zeros(3, 4, 5)
    maps[0, 2, 4] = maps[0, 2, 3] = maps[0, 3, 0] = 1
    maps[1, 3, 4] = 0.5
    assert peaks(maps).tolist() == [[2, 3], [3, 4], [0, 0]]


def test_bytes_find_the_object_and_the_slip_does_not():
    """methods.md 4.7, Q2: with the published slip the peak falls inside the object little more often than by chance."""
    scenes = shapes(200, 0)
    chance = scenes.masks.float().mean().item()
    rates = {}
    for name, maps in (
        ("bytes", fine_grained_saliency(scenes.images)),
        ("slip", reference_float_saliency(normalised(scenes.images))),
    ):
        rows, columns = peaks(maps).unbind(1)
        rates[name] = scenes.masks[torch.arange(200), rows, columns].float().mean().item()
    assert rates["bytes"] > chance + 0.2
    assert rates["slip"] < chance + 0.1


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: fine_grained_saliency(images_of(2)), r"reads images of dtype torch\.uint8, not torch\.float32"),
        (lambda: reference_float_saliency(images_of(2).half()), r"dtype torch\.float32, not torch\.float16"),
        (lambda: fine_grained_saliency(images_of(2)[:, :2]), r"images \[B, 3 or 1, H, W\], not of shape \[2, 2, 12, 8"),
        (lambda: fine_grained_saliency(images_of(2)[0]), r"not of shape \[3, 12, 8\]"),
    ],
)
def test_what_cannot_be_detected_is_refused_in_one_sentence(build, message):
    with pytest.raises(ValueError, match=message):
        build()
