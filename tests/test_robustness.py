"""Accuracy on corrupted images: counts and batches, FGSM, shuffling, occlusion, and hits on mixed images."""

import itertools

import numpy as np
import pytest
import torch
from batches import stream
from PIL import Image
from torch import nn
from torchvision.transforms import TenCrop

from evaluation import fgsm, images, models, occlusion, shuffling
from evaluation.arguments import ATTENDED, GRIDS, LOSSES, VARIANTS
from evaluation.ten_crop import ten_crop_logits
from training.data.sets import ImageSet
from training.mixed_accuracy import mixed_hits
from training.run_directory import read_result

CARD = {"data": "digits", "image_size": 8, "mean": [0.3], "std": [0.4]}
DRAWS = {"draw": "per_image", "repetitions": 2, "seed": 0, "batch": 300}


class Always(nn.Module):
    """Answers class 3."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return nn.functional.one_hot(torch.full((len(pixels),), 3), 10).float()


@pytest.mark.parametrize(
    ("labels", "top1"), [([3], 100.0), ([3, 3, 3], 100.0), ([4, 4], 0.0), ([3, 4, 5], 100 / 3), ([], None)]
)
def test_one_sample_all_right_all_wrong_none(labels, top1, monkeypatch):
    pixels = torch.full((len(labels), 1, 8, 8), 9, dtype=torch.uint8)
    few = ImageSet(pixels, torch.tensor(labels, dtype=torch.int64), 10, (), ())
    monkeypatch.setattr(images, "test_images", lambda card: few)
    if top1 is None:
        with pytest.raises(ValueError, match="test set of digits holds no images"):
            fgsm.drive(Always(), CARD, {"radius": 8, "batch": 300}, "cpu")
        return
    outcome = shuffling.drive(Always(), CARD, {"grids": [1, 4, 16], **DRAWS}, "cpu")
    assert outcome.n_samples == len(labels)
    assert outcome.values == pytest.approx(dict.fromkeys(("grid_1", "grid_4", "grid_16", "average"), top1))


def test_images_of_files_go_through_resize_and_centre_crop(tmp_path, monkeypatch):
    for label, number in itertools.product(("n01", "n02"), range(2)):
        folder = tmp_path / "imagenet" / "val" / label
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (300, 400, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    monkeypatch.setenv("LUMIX_DATA", str(tmp_path))
    found = list(images.pixel_batches({"data": "imagenet", "image_size": 224}, "cpu", 3))
    assert [(place, labels.tolist()) for place, _, labels in found] == [(0, [0, 0, 1]), (1, [1])]
    picture = Image.open(tmp_path / "imagenet" / "val" / "n01" / "1.png").resize((341, 256), Image.Resampling.BILINEAR)
    wanted = np.asarray(picture.crop((58, 16, 282, 240)), dtype=np.float32) / 255
    np.testing.assert_allclose(found[0][1][1].permute(1, 2, 0).numpy(), wanted, atol=1e-6)


def test_ten_crops_are_those_of_torchvision_with_summed_logits() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 6 * 6, 4), nn.Tanh())
    images = torch.rand(5, 3, 9, 11, generator=stream())
    wanted = torch.stack([torch.stack([model(crop[None])[0] for crop in TenCrop(6)(image)]).sum(0) for image in images])
    found = ten_crop_logits(model, images, 6)
    torch.testing.assert_close(found, wanted.detach())
    assert not found.requires_grad
    assert ten_crop_logits(lambda crop: torch.ones(1, 2, dtype=torch.bfloat16), images[:1], 4).dtype == torch.float32
    with pytest.raises(ValueError, match="bigger than input size"):
        ten_crop_logits(model, images, 10)


def test_fgsm_is_one_signed_step_within_the_image(trained):
    model, _, _ = trained
    pixels, labels = torch.rand(6, 1, 8, 8, generator=stream()), torch.arange(6)
    pixels[0, 0, 0] = 0.0
    before = pixels.clone()
    attacked = fgsm.fgsm(model, pixels, labels, 0.03)
    leaf = pixels.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(model(leaf), labels), leaf)
    assert torch.equal(pixels, before)
    torch.testing.assert_close(attacked, (pixels + 0.03 * gradient.sign()).clamp(0, 1))
    assert torch.equal(fgsm.fgsm(model, pixels, labels, 0.0), pixels)
    losses = [nn.functional.cross_entropy(model(x), labels).item() for x in (pixels, attacked)]
    assert losses[1] > losses[0]


def test_pixels_without_gradient_stay_and_nonsense_is_refused():
    def two_pixels(x):
        return torch.stack((x[:, 0, 0, 0], 2 * x[:, 0, 0, 1]), 1)

    pixels, labels = torch.rand(2, 1, 4, 4, generator=stream()), torch.tensor([0, 1])
    changed = (fgsm.fgsm(two_pixels, pixels, labels, 0.1) != pixels).nonzero()[:, 2:].tolist()
    assert {tuple(place) for place in changed} == {(0, 0), (0, 1)}
    with pytest.raises(ValueError, match="before normalisation"):
        fgsm.fgsm(two_pixels, pixels + 0.5, labels, 0.1)
    with pytest.raises(ValueError, match="radius must be at least 0"):
        fgsm.fgsm(two_pixels, pixels, labels, -0.1)


def test_fgsm_error_counts_what_was_wrong_before_whatever_the_batches(trained):
    model, card, _ = trained
    values = fgsm.drive(model, card, {"radius": 0, "batch": 300}, "cpu").values
    assert values["error"] == pytest.approx(100 - values["top1"])
    strong = [fgsm.drive(model, card, {"radius": 64, "batch": batch}, "cpu").values for batch in (797, 100)]
    assert strong[0] == strong[1]
    assert strong[0]["error"] > values["error"]


@pytest.mark.parametrize(("grid", "rows", "columns"), [(4, 2, 2), (8, 2, 4), (16, 4, 4), (32, 4, 8)])
def test_shuffled_patches_are_those_of_the_order(grid, rows, columns):
    assert GRIDS[grid] == (rows, columns)
    pixels = torch.rand(3, 2, 8, 16, generator=stream())
    orders = torch.stack([torch.randperm(grid, generator=stream(seed)) for seed in range(3)])
    found = shuffling.shuffle_grid(pixels, orders, rows, columns)
    high, wide = 8 // rows, 16 // columns

    def patch(image, i):
        top, left = i // columns * high, i % columns * wide
        return image[..., top : top + high, left : left + wide]

    for image, (b, order) in zip(found, enumerate(orders.tolist()), strict=True):
        assert all(torch.equal(patch(image, i), patch(pixels[b], source)) for i, source in enumerate(order))
    shared = shuffling.shuffle_grid(pixels, orders[1], rows, columns)
    assert torch.equal(shared[1], found[1])
    assert torch.equal(shuffling.shuffle_grid(shared, orders[1].argsort(), rows, columns), pixels)


def test_shuffling_is_repeatable_and_its_draws_differ(trained):
    model, card, _ = trained
    arguments = {"grids": [1, 16], **DRAWS, "batch": 200}
    first = shuffling.drive(model, card, arguments, "cpu").values
    assert shuffling.drive(model, card, arguments, "cpu").values == first
    assert shuffling.drive(model, card, {**arguments, "seed": 1}, "cpu").values["grid_1"] == first["grid_1"]
    assert shuffling.drive(model, card, {**arguments, "draw": "per_batch"}, "cpu").values != first
    with pytest.raises(ValueError, match="draw must be one of per_batch, per_image, not 'per_set'"):
        shuffling.drive(model, card, {**arguments, "draw": "per_set"}, "cpu")


def published_foreground(attention: list[float], mass: float) -> list[bool]:
    """The rule as its public code has it, for one image: sort ascending, normalise, add up, keep above 1 - mass."""
    order = sorted(range(len(attention)), key=attention.__getitem__)
    kept, running = [False] * len(attention), 0.0
    for index in order:
        running += attention[index] / sum(attention)
        kept[index] = running > 1 - mass
    return kept


@pytest.mark.parametrize("loss", [10, 40, 70, 90])
def test_attended_patches_go_by_the_published_rule(loss):
    attention = torch.rand(5, 49, generator=stream(), dtype=torch.float64) ** 3
    found = occlusion.attended_mask(attention * torch.arange(1, 6).view(-1, 1), "non_salient", loss)  # rows of any sum
    assert found.shape == (5, 7, 7)
    assert found.flatten(1).tolist() == [published_foreground(row, 1 - loss / 100) for row in attention.tolist()]
    assert torch.equal(found, ~occlusion.attended_mask(attention, "salient", 100 - loss))
    assert all(occlusion.attended_mask(attention, variant, 0).all() for variant in ATTENDED)
    with pytest.raises(ValueError, match="variant must be one of"):
        occlusion.attended_mask(attention, "salty", 10)
    with pytest.raises(ValueError, match="48 patches are no square grid"):
        occlusion.attended_mask(attention[:, 1:], "salient", 10)


def test_losses_by_count_are_the_papers_numbers_of_patches():
    attention = torch.rand(3, 196, generator=stream())
    dropped = [0, 19, 39, 58, 78, 98, 117, 137, 156, 176]
    for loss, count in zip(LOSSES, dropped, strict=True):
        random = occlusion.random_mask(14, loss, 3, stream()).flatten(1)
        assert random.sum(1).tolist() == [196 - count] * 3
        assert len(random.unique(dim=0)) == (3 if loss else 1)  # drawn for each set
        weakest = occlusion.attended_mask(attention, "non_salient_by_count", loss).flatten(1)
        strongest = occlusion.attended_mask(attention, "salient_by_count", loss).flatten(1)
        for row, gone, kept in zip(attention, ~weakest, strongest, strict=True):
            assert gone.sum() == (~kept).sum() == count
            if count:
                assert row[gone].max() <= row[~gone].min()
                assert row[~kept].min() >= row[kept].max()


def test_drop_zeroes_squares_of_pixels_and_nothing_else():
    pixels = torch.rand(2, 3, 8, 8, generator=stream()) + 0.1
    before = pixels.clone()
    keep = torch.rand(2, 4, 4, generator=stream()) < 0.5
    dropped = occlusion.apply_drop(pixels, keep)
    assert torch.equal(pixels, before)
    for b, row, column in itertools.product(range(2), range(8), range(8)):
        wanted = pixels[b, :, row, column] if keep[b, row // 2, column // 2] else torch.zeros(3)
        assert torch.equal(dropped[b, :, row, column], wanted)
    assert torch.equal(occlusion.apply_drop(pixels, keep[:1])[1:], occlusion.apply_drop(pixels[1:], keep[:1]))
    with pytest.raises(ValueError, match="does not divide an image of 8 x 8"):
        occlusion.apply_drop(pixels, torch.ones(2, 3, 3, dtype=torch.bool))


def test_occlusion_equals_a_plain_loop(trained):
    model, card, directory = trained
    arguments = {"source": {"directory": directory}, "head": 1, **DRAWS}
    outcome = occlusion.drive(model, card, arguments, "cpu")
    assert outcome.n_samples == 797
    assert outcome.values["random_0"] == read_result(directory)["top1"]["last"] > 30
    assert set(outcome.values) == {f"{v}_{level}" for v in VARIANTS for level in (*LOSSES, "average")}
    data = images.test_images(card)
    pixels, mean, std = data.images / 255, card["mean"][0], card["std"][0]
    with torch.no_grad():
        attention = occlusion.class_attention(model, (pixels - mean) / std)[:, 1].tolist()
        for loss in (20, 70):
            keep = [published_foreground(row, 1 - loss / 100) for row in attention]
            mask = torch.tensor(keep).view(-1, 1, 4, 1, 4, 1).expand(-1, 1, 4, 2, 4, 2).reshape(-1, 1, 8, 8)
            hits = model((pixels * mask - mean) / std).argmax(1) == data.labels
            assert outcome.values[f"non_salient_{loss}"] == pytest.approx(100 * hits.float().mean().item(), abs=1e-3)
    for variant in VARIANTS:
        curve = [outcome.values[f"{variant}_{loss}"] for loss in LOSSES]
        assert outcome.values[f"{variant}_average"] == pytest.approx(sum(curve) / 10)
        assert curve[0] == outcome.values["random_0"]
    with pytest.raises(ValueError, match="has 2 heads, hence no head 2"):
        occlusion.drive(model, card, arguments | {"head": 2}, "cpu")
    with pytest.raises(ValueError, match="is trained on digits at 8 pixels, not on digits at 16: choose"):
        occlusion.drive(model, card | {"image_size": 16}, arguments, "cpu")


def test_random_patches_are_dropped_without_attention(trained):
    """Of networks that have none: the numbers that they have beside the attended ones."""
    model, card, directory = trained
    arguments = {"source": {"directory": directory}, "head": 1, **DRAWS}
    every = occlusion.drive(model, card, arguments, "cpu").values
    found = occlusion.drive(model, card, {"side": 4, **DRAWS}, "cpu").values
    assert found == {name: value for name, value in every.items() if name.startswith("random_")}
    assert len(found) == 11


def test_public_weights_are_read_from_a_file_or_named(tmp_path, monkeypatch):
    model = models.timm.create_model("vit_tiny_patch16_224", num_classes=0)
    (tmp_path / "weights").mkdir()
    torch.save(model.state_dict(), tmp_path / "weights" / "vit_tiny_patch16_224.augreg_in21k.pth")
    monkeypatch.setenv("LUMIX_DATA", str(tmp_path))
    found = models.public_model("vit_tiny_patch16_224.augreg_in21k").state_dict()
    assert all(torch.equal(value, found[name]) for name, value in model.state_dict().items())

    def offline(*_: object, **__: object) -> None:
        raise OSError("no network\nat all")

    monkeypatch.setattr(models.timm, "create_model", offline)
    with pytest.raises(ValueError, match=r"vit_small_patch16_224\.dino are neither in .*weights.* \(no network\)"):
        models.public_model("vit_small_patch16_224.dino")


def test_mixed_hits_by_hand():
    logits = torch.tensor([[5.0, 4.0, 1.0], [5.0, 1.0, 4.0], [1.0, 4.0, 5.0], [5.0, 4.0, 1.0]])
    labels, partners = torch.tensor([1, 1, 0, 0]), torch.tensor([0, 0, 2, 0])
    for pair in ((labels, partners), (partners, labels)):
        first, both = mixed_hits(logits, *pair)
        assert first.tolist() == [True, True, True, True]
        assert both.tolist() == [True, False, False, False]  # the last pair is of one class
    ties = torch.zeros(1, 3)
    assert mixed_hits(ties, torch.tensor([1]), torch.tensor([0]))[1].tolist() == [True]
    assert mixed_hits(ties, torch.tensor([1]), torch.tensor([2]))[0].tolist() == [False]
    with pytest.raises(ValueError, match="at least 2 classes"):
        mixed_hits(torch.zeros(1, 1), torch.tensor([0]), torch.tensor([0]))
