"""Laws of resident data: addressed randomness, the embedded sets, loading, batched augmentation."""

import hashlib
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits  # here, because its import moves the state of `random`

from training.config import Data
from training.data import augment, is_resident, load, normalise
from training.embedded import FAMILIES, SHAPES_MEAN, SHAPES_STD, digits, shapes
from training.imageset import ImageSet, boxes_of, channel_statistics
from training.rng import epoch_order, step_generator, stream_seed

pytestmark = pytest.mark.usefixtures("global_state_untouched")


def rows(images: torch.Tensor) -> list[bytes]:
    return [image.numpy().tobytes() for image in images]


# Randomness by address ---------------------------------------------------------------------------------------------


def test_stream_seeds_are_fixed_and_differ_in_every_part_of_the_address() -> None:
    assert (
        stream_seed(0, 1, "mix")
        == int.from_bytes(hashlib.blake2b(b"(0, 1, 'mix')", digest_size=8).digest(), "little") // 2
    )
    addresses = [(s, r, t, n) for s in range(4) for r in range(3) for t in range(50) for n in ("mix", "augment")]
    assert len({stream_seed(*address) for address in addresses}) == len(addresses)
    assert stream_seed(1, 23) != stream_seed(12, 3)


def test_step_generators_do_not_depend_on_history() -> None:
    first = torch.rand(5, generator=step_generator(3, 0, 7, "mix"))
    torch.rand(100, generator=step_generator(3, 0, 6, "mix"))
    assert torch.equal(first, torch.rand(5, generator=step_generator(3, 0, 7, "mix")))
    others = [(4, 0, 7, "mix"), (3, 1, 7, "mix"), (3, 0, 8, "mix"), (3, 0, 7, "label")]
    assert all(not torch.equal(first, torch.rand(5, generator=step_generator(*other))) for other in others)


def test_epoch_order_is_a_permutation_of_its_own_for_each_epoch_and_seed() -> None:
    orders = [epoch_order(97, seed, epoch) for seed in range(3) for epoch in range(3)]
    assert all(torch.equal(order.sort().values, torch.arange(97)) for order in orders)
    assert len(set(rows(torch.stack(orders)))) == 9
    assert torch.equal(orders[4], epoch_order(97, 1, 1))


# ImageSet ----------------------------------------------------------------------------------------------------------


def small_set(**changes: Any) -> ImageSet:
    values: dict[str, Any] = {
        "images": torch.arange(2 * 3 * 4 * 4).reshape(2, 3, 4, 4).to(torch.uint8),
        "labels": torch.tensor([0, 1]),
        "num_classes": 2,
        "mean": (0.5,) * 3,
        "std": (0.25,) * 3,
    }
    return ImageSet(**{**values, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": torch.zeros(2, 3, 4, 4)}, r"images must be uint8 \[2, C, H, W\], not float32 \[2, 3, 4, 4\]"),
        ({"images": torch.zeros(3, 3, 4, 4, dtype=torch.uint8)}, r"not uint8 \[3, 3, 4, 4\]"),
        ({"labels": torch.tensor([0.0, 1.0])}, "labels must be int64"),
        ({"labels": torch.tensor([0, 2])}, "label 2 is outside the 2 classes"),
        ({"labels": torch.tensor([-1, 0])}, "label -1 is outside"),
    ],
)
def test_image_set_refuses(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_set(**changes)


def test_image_set_slices_and_indexes_all_its_parts() -> None:
    scenes = shapes(20, seed=5)
    chosen = torch.tensor([3, 1, 19])
    part = scenes[chosen]
    for name in ("images", "labels", "masks", "boxes"):
        assert torch.equal(getattr(part, name), getattr(scenes, name)[chosen])
    assert len(scenes[::3]) == 7
    with pytest.raises(TypeError, match="slice or a tensor"):
        scenes[2]  # type: ignore[index]


def test_boxes_are_tight() -> None:
    masks = torch.zeros(2, 6, 7, dtype=torch.uint8)
    masks[0, 1:3, 2:7] = 1
    masks[1, 5, 0] = masks[1, 2, 3] = 1
    assert boxes_of(masks).tolist() == [[1, 3, 2, 7], [2, 6, 0, 4]]


def test_channel_statistics_are_those_of_the_scaled_images() -> None:
    images = shapes(50, seed=9).images
    mean, std = channel_statistics(images)
    scaled = images.double() / 255
    torch.testing.assert_close(torch.tensor(mean), scaled.mean((0, 2, 3)).float())
    torch.testing.assert_close(torch.tensor(std), scaled.std((0, 2, 3), correction=0).float())


# Digits ------------------------------------------------------------------------------------------------------------


def test_digits_are_scikit_learns_split_into_disjoint_parts() -> None:
    train, test = digits()
    assert (train.images.shape, test.images.shape) == ((1000, 1, 8, 8), (797, 1, 8, 8))
    source = np.rint(load_digits().images * 255 / 16).astype(np.uint8)
    everything = sorted(rows(train.images) + rows(test.images))
    assert everything == sorted(image.tobytes() for image in source)
    assert not set(rows(train.images)) & set(rows(test.images))
    assert train.images.min() == 0
    assert train.images.max() == 255
    assert torch.bincount(train.labels, minlength=10).min() > 80
    standard = normalise(train.images, train.mean, train.std)
    torch.testing.assert_close(standard.mean(), torch.tensor(0.0), atol=1e-5, rtol=0)
    torch.testing.assert_close(standard.std(), torch.tensor(1.0), atol=1e-4, rtol=0)


def test_the_order_of_digits_never_changes() -> None:
    train, _ = digits()
    assert train.labels[:12].tolist() == [2, 1, 4, 2, 4, 3, 0, 9, 2, 2, 6, 9]
    assert torch.equal(train.images, digits()[0].images)


# Shapes ------------------------------------------------------------------------------------------------------------


def test_shapes_depend_on_the_seed_alone() -> None:
    first, again, other = shapes(40, seed=1), shapes(40, seed=1), shapes(40, seed=2)
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.labels, again.labels)
    assert not torch.equal(first.images, other.images)


@pytest.mark.parametrize("family", FAMILIES)
def test_masks_of_shapes_are_the_object(family: str) -> None:
    scenes = shapes(300, seed=3, family=family)
    assert scenes.masks is not None
    assert scenes.boxes is not None
    assert set(scenes.masks.unique().tolist()) == {0, 1}
    assert scenes.masks.sum((1, 2)).min() >= 12
    red = scenes.images[:, 0].float()
    inside, outside = scenes.masks.bool(), ~scenes.masks.bool()
    for image, mask, ground in zip(red, inside, outside, strict=True):
        colour, background = image[mask].median(), image[ground].median()
        assert colour > background + 60
        nearer = (image - colour).abs() < (image - background).abs()
        assert nearer[mask].float().mean() > 0.9  # the antialiased outline is half of each
        assert nearer[ground].float().mean() < 0.1
    assert torch.equal(scenes.boxes, boxes_of(scenes.masks))


def test_shapes_are_balanced_and_the_unseen_classes_are_others() -> None:
    seen, unseen = shapes(500, seed=0), shapes(500, seed=0, family="unseen shapes")
    assert torch.bincount(seen.labels).tolist() == [50] * 10
    assert torch.bincount(unseen.labels).tolist() == [100] * 5
    assert not set(seen.class_names) & set(unseen.class_names)


def test_shapes_statistics_are_the_stated_ones() -> None:
    mean, std = channel_statistics(shapes(2000, seed=0).images)
    assert np.allclose(mean, SHAPES_MEAN, atol=2e-3)
    assert np.allclose(std, SHAPES_STD, atol=2e-3)


def test_a_disc_covers_its_own_area() -> None:
    scenes = shapes(400, seed=4)
    assert scenes.masks is not None
    assert scenes.boxes is not None
    disc = scenes.labels == scenes.class_names.index("disc")
    top, bottom, left, right = scenes.boxes[disc].unbind(1)
    share = scenes.masks[disc].sum((1, 2)) / ((bottom - top) * (right - left))
    assert abs(share.mean().item() - np.pi / 4) < 0.03


# load --------------------------------------------------------------------------------------------------------------


def test_load_takes_the_first_images_and_enlarges_by_repetition() -> None:
    pool, test = load(Data("digits", 8))
    train, _ = load(Data("digits", 8, train_size=300))
    assert torch.equal(train.images, pool.images[:300])
    large, large_test = load(Data("digits", 32, train_size=300))
    assert large.images.shape == (300, 1, 32, 32)
    assert torch.equal(large.images[:, :, 1::4, 3::4], train.images)
    assert torch.equal(large.images[:, :, ::4, ::4], train.images)
    assert torch.equal(large_test.labels, test.labels)
    assert large.mean == train.mean


def test_enlarged_masks_and_boxes_fit_the_enlarged_image() -> None:
    scenes = shapes(10, seed=0).enlarged(3)
    assert scenes.masks is not None
    assert scenes.boxes is not None
    assert torch.equal(scenes.boxes, boxes_of(scenes.masks))


def test_loaded_sets_are_shared() -> None:
    assert load(Data("shapes", 16))[0].images.data_ptr() == load(Data("shapes", 16, flip=True))[0].images.data_ptr()
    assert not torch.equal(load(Data("shapes", 16))[0].images[:1000], load(Data("shapes", 16))[1].images)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Data("digits", 8, train_size=1001), "train_size 1001 is larger than the 1000 training images of digits"),
        (Data("digits", 12), "image_size of digits must be a multiple or a whole part of its own 8 pixels, not 12"),
        (Data("digits", 8, erasing=0.25), "Data.erasing is for images read from files"),
        (Data("digits", 8, rand_augment="rand-m9"), "Data.rand_augment is for images read from files"),
        (Data("digits", 8, repeats=3), "Data.repeats is for images read from files"),
        (Data("digits", 8, crop_padding=8), "crop_padding 8 must be below"),
        (Data("imagenet", 224), "imagenet is read from files"),
    ],
)
def test_load_refuses(data: Data, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(data)
    assert not is_resident("imagenet")


# Augmentation ------------------------------------------------------------------------------------------------------


def images_of(batch: int = 64, side: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8, generator=generator)


def test_augment_does_nothing_unless_asked() -> None:
    images = images_of()
    assert augment(images, Data("digits", 8), torch.Generator()) is images


def test_flips_are_mirror_images_of_about_half_and_undo_themselves() -> None:
    images, data = images_of(400), Data("digits", 6, flip=True)
    flipped = augment(images, data, torch.Generator().manual_seed(1))
    kept = (flipped == images).flatten(1).all(1)
    assert torch.equal(flipped[~kept], images[~kept].flip(3))
    assert 150 < int(kept.sum()) < 250
    assert torch.equal(augment(flipped, data, torch.Generator().manual_seed(1)), images)


@pytest.mark.parametrize("flip", [False, True])
def test_every_crop_is_a_window_of_the_reflected_image_and_all_windows_occur(flip: bool) -> None:
    images, padding = images_of(1).expand(4000, 3, 6, 6), 2
    before = images.clone()
    crops = augment(images, Data("digits", 6, flip=flip, crop_padding=padding), torch.Generator().manual_seed(2))
    assert torch.equal(images, before)
    assert crops.dtype == torch.uint8
    padded = torch.nn.functional.pad(images[:1].float(), (padding,) * 4, mode="reflect").to(torch.uint8)
    if flip:
        padded = torch.cat([padded, padded.flip(3)])
    windows = padded.unfold(2, 6, 1).unfold(3, 6, 1).permute(0, 2, 3, 1, 4, 5).reshape(-1, 3, 6, 6)
    counts = dict.fromkeys(rows(windows.contiguous()), 0)
    assert len(counts) == (50 if flip else 25)
    for crop in rows(crops):
        counts[crop] += 1  # KeyError for anything that is no window
    assert min(counts.values()) > 0.5 * 4000 / len(counts)
    assert max(counts.values()) < 1.6 * 4000 / len(counts)


def test_normalise_is_to_tensor_and_normalize_of_torchvision() -> None:
    from torchvision.transforms.v2.functional import normalize, to_dtype

    images, mean, std = images_of(), (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    expected = normalize(to_dtype(images, torch.float32, scale=True), list(mean), list(std))
    torch.testing.assert_close(normalise(images, mean, std), expected, atol=1e-5, rtol=1e-5)
    last = images.to(memory_format=torch.channels_last)
    assert normalise(last, mean, std).is_contiguous(memory_format=torch.channels_last)
