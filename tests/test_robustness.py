"""What the robustness protocols share, and shuffling: counts, batches, processes, edges."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from evaluation.robustness import accuracy, fgsm, shuffling
from evaluation.robustness.grids import GRIDS, fitting_grids
from training.data.sets import ImageSet

CARD = {"data": "digits", "image_size": 8, "mean": [0.3], "std": [0.4]}
DRAWS = {"draw": "per_image", "repetitions": 2, "seed": 0, "batch": 300}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ------------------------------------------------------------------------------------------------- metrics


def test_accuracy_counts_samples_and_ties_go_to_the_lower_class():
    logits = torch.tensor([[1.0, 1.0, 0.0], [0.0, 2.0, 2.0], [3.0, 1.0, 2.0]])
    assert accuracy.correct(logits, torch.tensor([0, 2, 0])).tolist() == [True, False, True]
    assert accuracy.percent(2, 3) == pytest.approx(200 / 3)
    assert (accuracy.percent(0, 1), accuracy.percent(7, 7)) == (0, 100)
    for count, samples in ((0, 0), (2, 1), (-1, 5)):
        with pytest.raises(ValueError, match="there must be samples"):
            accuracy.percent(count, samples)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_scores_that_are_no_numbers_are_an_error(bad):
    with pytest.raises(ValueError, match="not all finite"):
        accuracy.correct(torch.tensor([[0.0, bad]]), torch.tensor([0]))


# ------------------------------------------------------------------------------------------------- drivers


class Always(nn.Module):
    """Answers one class."""

    def __init__(self, answer: int) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return nn.functional.one_hot(torch.full((len(images),), self.answer), 10).float()


def few_images(labels: list[int]):
    return lambda card: ImageSet(
        torch.full((len(labels), 1, 8, 8), 9, dtype=torch.uint8), torch.tensor(labels, dtype=torch.int64), 10, (), ()
    )


@pytest.mark.parametrize(("labels", "top1"), [([3], 100.0), ([3, 3, 3], 100.0), ([4, 4], 0.0), ([3, 4, 5], 100 / 3)])
def test_one_sample_all_right_all_wrong(labels, top1, monkeypatch):
    monkeypatch.setattr(accuracy, "test_images", few_images(labels))
    outcome = shuffling.drive(Always(3), CARD, {"grids": [1, 4, 16], **DRAWS}, "cpu")
    assert outcome.n_samples == len(labels)
    assert outcome.values == pytest.approx(dict.fromkeys(("grid_1", "grid_4", "grid_16", "average"), top1))


def test_no_images_are_an_error(monkeypatch):
    monkeypatch.setattr(accuracy, "test_images", few_images([]))
    with pytest.raises(ValueError, match="test set of digits holds no images"):
        fgsm.drive(Always(3), CARD, {"radius": 8, "batch": 300}, "cpu")


def test_batches_do_not_change_what_has_no_draw(trained):
    model, card, _ = trained
    found = [fgsm.drive(model, card, {"radius": 8, "batch": batch}, "cpu").values for batch in (797, 100)]
    assert found[0] == found[1]


def test_images_of_files_go_through_resize_and_centre_crop(tmp_path, monkeypatch):
    for label in ("n01", "n02"):
        folder = tmp_path / "imagenet" / "val" / label
        folder.mkdir(parents=True)
        for number in range(2):
            pixels = np.random.default_rng(number).integers(0, 256, (300, 400, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    monkeypatch.setenv("LUMIX_DATA", str(tmp_path))
    card = {"data": "imagenet", "image_size": 224}
    found = list(accuracy.pixel_batches(card, "cpu", 3))
    assert [(place, images.shape[0], labels.tolist()) for place, images, labels in found] == [
        (0, 3, [0, 0, 1]),
        (1, 1, [1]),
    ]
    picture = Image.open(tmp_path / "imagenet" / "val" / "n01" / "1.png").resize((341, 256), Image.Resampling.BILINEAR)
    wanted = np.asarray(picture.crop((58, 16, 282, 240)), dtype=np.float32) / 255
    np.testing.assert_allclose(found[0][1][1].permute(1, 2, 0).numpy(), wanted, atol=1e-6)
    shuffled = list(accuracy.pixel_batches(card, "cpu", 4, shuffle_seed=1))
    assert sorted(shuffled[0][2].tolist()) == [0, 0, 1, 1]


# ------------------------------------------------------------------------------------------------- shuffling


@pytest.mark.parametrize(("grid", "rows", "columns"), [(4, 2, 2), (8, 2, 4), (16, 4, 4), (32, 4, 8)])
def test_shuffled_patches_are_those_of_the_order(grid, rows, columns):
    assert GRIDS[grid] == (rows, columns)
    images = torch.rand(3, 2, 8, 16, generator=generator())
    order = torch.randperm(grid, generator=generator())
    found = shuffling.shuffle_grid(images, order, rows, columns)
    high, wide = 8 // rows, 16 // columns

    def patch(pixels, i):
        top, left = i // columns * high, i % columns * wide
        return pixels[..., top : top + high, left : left + wide]

    for i, source in enumerate(order.tolist()):
        assert bool((patch(found, i) == patch(images, source)).all())
    assert bool((shuffling.shuffle_grid(found, order.argsort(), rows, columns) == images).all())
    assert bool((shuffling.shuffle_grid(images, torch.arange(grid), rows, columns) == images).all())


def test_each_image_may_have_its_own_order_and_bad_grids_are_refused():
    images = torch.rand(2, 1, 8, 8, generator=generator())
    orders = torch.stack([torch.arange(4), torch.tensor([3, 2, 1, 0])])
    found = shuffling.shuffle_grid(images, orders, 2, 2)
    assert bool((found[0] == images[0]).all())
    assert bool((found[1] == shuffling.shuffle_grid(images[1:], orders[1], 2, 2)[0]).all())
    with pytest.raises(ValueError, match="3 x 3 does not divide an image of 8 x 8"):
        shuffling.shuffle_grid(images, torch.arange(9), 3, 3)
    with pytest.raises(ValueError, match="order must have 16 entries"):
        shuffling.shuffle_grid(images, orders, 4, 4)


def test_grids_of_the_three_scales():
    assert fitting_grids(8, 2) == [1, 4, 8, 16]
    assert fitting_grids(32, 4) == [1, 4, 8, 16, 32, 64]
    assert fitting_grids(224, 16) == [1, 4, 8, 16, 32, 64, 196]


def test_shuffling_is_repeatable_and_its_draws_differ(trained):
    model, card, _ = trained
    arguments = {"grids": [1, 16], **DRAWS, "batch": 200}
    first = shuffling.drive(model, card, arguments, "cpu").values
    assert shuffling.drive(model, card, arguments, "cpu").values == first
    assert shuffling.drive(model, card, {**arguments, "seed": 1}, "cpu").values["grid_1"] == first["grid_1"]
    assert shuffling.drive(model, card, {**arguments, "draw": "per_batch"}, "cpu").values != first
    with pytest.raises(ValueError, match="draw must be one of per_batch, per_image, not 'per_set'"):
        shuffling.drive(model, card, {**arguments, "draw": "per_set"}, "cpu")
