"""Occlusion: the masks of patches against a plain reading of the published rule, its laws and its edges."""

import itertools
import math

import numpy as np
import pytest
import torch
from test_evaluation import finish

from evaluation import images, models
from evaluation.robustness import occlusion
from evaluation.robustness.grids import ATTENDED, LOSSES, VARIANTS
from training.run_directory import read_result

CARD = {"data": "digits", "image_size": 8, "mean": [0.3], "std": [0.4]}
DRAWS = {"draw": "per_image", "repetitions": 2, "seed": 0, "batch": 300}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def published_foreground(attention: list[float], mass: float) -> list[bool]:
    """The rule as its public code has it, for one image: sort ascending, normalise, add up, keep above 1 - mass."""
    order = sorted(range(len(attention)), key=attention.__getitem__)
    kept, running = [False] * len(attention), 0.0
    for index in order:
        running += attention[index] / sum(attention)
        kept[index] = running > 1 - mass
    return kept


@pytest.mark.parametrize("mass", [0.05, 0.1, 0.35, 0.5, 0.9, 0.95])
def test_foreground_is_the_published_rule(mass):
    attention = torch.rand(5, 49, generator=generator(), dtype=torch.float64) ** 3
    found = occlusion.foreground_mask(attention * torch.arange(1, 6).view(-1, 1), mass)  # rows of any sum
    assert found.shape == (5, 7, 7)
    assert found.flatten(1).tolist() == [published_foreground(row, mass) for row in attention.tolist()]


def test_foreground_holds_at_least_its_mass_and_grows_with_it():
    attention = torch.rand(20, 16, generator=generator()) ** 4
    share = attention / attention.sum(1, keepdim=True)
    masks = [occlusion.foreground_mask(attention, mass).flatten(1) for mass in np.linspace(0.05, 1, 20)]
    for mass, mask in zip(np.linspace(0.05, 1, 20), masks, strict=True):
        assert bool(((share * mask).sum(1) >= mass - 1e-6).all())
        smallest = torch.where(mask, share, 2).min(1).values  # without its weakest patch it would hold less
        assert bool(((share * mask).sum(1) - smallest < mass + 1e-6).all())
    for small, large in itertools.pairwise(masks):
        assert bool((small <= large).all())


def test_foreground_at_the_ends_and_with_ties():
    attention = torch.tensor([[0.0, 1.0, 3.0, 0.0]])
    assert occlusion.foreground_mask(attention, 1.0).flatten().tolist() == [False, True, True, False]
    assert not occlusion.foreground_mask(attention, 0.0).any()
    ties = torch.full((3, 16), 0.05)
    assert occlusion.foreground_mask(ties, 0.5).flatten(1).sum(1).tolist() == [8, 8, 8]


@pytest.mark.parametrize(
    ("attention", "mass", "message"),
    [
        (torch.ones(1, 16), 1.5, "mass must be between 0 and 1"),
        (torch.ones(1, 16), math.nan, "mass must be between 0 and 1"),
        (torch.ones(1, 15), 0.5, "15 patches are no square grid"),
        (torch.full((1, 16), math.nan), 0.5, "attention must be finite"),
        (torch.zeros(1, 16), 0.5, "positive somewhere"),
        (torch.empty(0, 16), 0.5, "attention must be"),
    ],
)
def test_foreground_refuses_nonsense(attention, mass, message):
    with pytest.raises(ValueError, match=message):
        occlusion.foreground_mask(attention, mass)


def test_losses_by_count_are_the_papers_numbers_of_patches():
    attention = torch.rand(3, 196, generator=generator())
    dropped = [0, 19, 39, 58, 78, 98, 117, 137, 156, 176]
    for loss, count in zip(LOSSES, dropped, strict=True):
        assert occlusion.random_mask(14, loss, 3, generator()).flatten(1).sum(1).tolist() == [196 - count] * 3
        weakest = occlusion.attended_mask(attention, "non_salient_by_count", loss).flatten(1)
        strongest = occlusion.attended_mask(attention, "salient_by_count", loss).flatten(1)
        for row, gone, kept in zip(attention, ~weakest, strongest, strict=True):
            assert gone.sum() == (~kept).sum() == count
            if count:
                assert row[gone].max() <= row[~gone].min()
                assert row[~kept].min() >= row[kept].max()


def test_salient_and_non_salient_are_complements_and_zero_loss_is_the_clean_image():
    attention = torch.rand(4, 16, generator=generator()) + 0.01
    for loss in range(10, 100, 10):
        kept = occlusion.attended_mask(attention, "non_salient", loss)
        assert bool((kept == ~occlusion.attended_mask(attention, "salient", 100 - loss)).all())
    assert all(occlusion.attended_mask(attention, variant, 0).all() for variant in ATTENDED)
    assert not occlusion.attended_mask(attention, "salient", 100).any()
    with pytest.raises(ValueError, match="variant must be one of"):
        occlusion.attended_mask(attention, "salty", 10)


def test_random_patches_are_uniform_and_drawn_for_each_set():
    masks = occlusion.random_mask(4, 50, 4000, generator())
    assert bool(((masks.float().mean(0) - 0.5).abs() < 0.04).all())
    assert len({tuple(mask.flatten().tolist()) for mask in masks[:50]}) > 45


def test_drop_zeroes_squares_of_pixels_and_nothing_else():
    images = torch.rand(2, 3, 8, 8, generator=generator()) + 0.1
    before = images.clone()
    keep = torch.rand(2, 4, 4, generator=generator()) < 0.5
    dropped = occlusion.apply_drop(images, keep)
    assert bool((images == before).all())
    for b, row, column in itertools.product(range(2), range(8), range(8)):
        wanted = images[b, :, row, column] if keep[b, row // 2, column // 2] else torch.zeros(3)
        assert bool((dropped[b, :, row, column] == wanted).all())
    one = occlusion.apply_drop(images, keep[:1])
    assert bool((one[1] == occlusion.apply_drop(images[1:], keep[:1])[0]).all())
    with pytest.raises(ValueError, match="does not divide an image of 8 x 8"):
        occlusion.apply_drop(images, torch.ones(2, 3, 3, dtype=torch.bool))


def test_a_source_of_other_images_is_refused(tmp_path):
    finish(tmp_path)
    with pytest.raises(ValueError, match="is trained on digits at 8 pixels, not on digits at 16: choose"):
        occlusion.attention_source({"key": "k", "directory": tmp_path}, {**CARD, "image_size": 16}, "cpu")


def test_weights_that_are_nowhere_are_named(tmp_path, monkeypatch):
    def offline(*_: object, **__: object) -> None:
        raise OSError("no network\nat all")

    monkeypatch.setenv("LUMIX_DATA", str(tmp_path))
    monkeypatch.setattr(models.timm, "create_model", offline)
    with pytest.raises(ValueError, match=r"vit_small_patch16_224\.dino are neither in .*weights.* \(no network\)"):
        models.public_model("vit_small_patch16_224.dino")


def test_weights_in_a_file_are_read(tmp_path, monkeypatch):
    model = models.timm.create_model("vit_tiny_patch16_224", num_classes=0)
    (tmp_path / "weights").mkdir()
    torch.save(model.state_dict(), tmp_path / "weights" / "vit_tiny_patch16_224.augreg_in21k.pth")
    monkeypatch.setenv("LUMIX_DATA", str(tmp_path))
    found = models.public_model("vit_tiny_patch16_224.augreg_in21k").state_dict()
    assert all(bool((value == found[name]).all()) for name, value in model.state_dict().items())


def test_occlusion_equals_a_plain_loop(trained):
    model, card, directory = trained
    outcome = occlusion.drive(model, card, {"source": {"directory": directory}, "head": 1, **DRAWS}, "cpu")
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


def test_a_head_that_is_not_there_is_named(trained):
    model, card, directory = trained
    with pytest.raises(ValueError, match="has 2 heads, hence no head 2"):
        occlusion.drive(model, card, {"source": {"directory": directory}, "head": 2, **DRAWS}, "cpu")
