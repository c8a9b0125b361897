"""Masks and boxes from attention (Table 5): against brute force, the contract of boxes, the edges, and the drivers."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from evaluation import images, weak_localisation, weak_segmentation
from evaluation.foreground import foreground
from evaluation.weak_localisation import START, best_fit, box_fits, declared_grid, mean_fits
from evaluation.weak_segmentation import jaccard
from training.data.sets import SHAPES_MEAN, SHAPES_STD

SHAPES_CARD = {"data": "shapes", "image_size": 16, "mean": SHAPES_MEAN, "std": SHAPES_STD, "num_classes": 10}
IMAGENET_CARD = {"data": "imagenet", "image_size": 32, "mean": (0.5,) * 3, "std": (0.25,) * 3}


def small_vit(patch: int = 4, size: int = 16, **arguments: Any) -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return timm.create_model(
            "deit_small_patch16_224", img_size=size, patch_size=patch, embed_dim=24, depth=1, num_heads=3,
            num_classes=10, **arguments,
        ).eval()  # fmt: skip


def uneven(model: torch.nn.Module, seed: int) -> torch.nn.Module:
    """The model with large weights, as attention is nearly uniform under timm's."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model.eval()


@given(row=st.lists(st.floats(0.01, 1), min_size=1, max_size=12), mass=st.floats(0.01, 0.99))
def test_foreground_is_the_smallest_set_of_strongest_patches(row: list[float], mass: float) -> None:
    kept = foreground([row], mass)[0]
    strongest = sorted(row, reverse=True)
    count = int(kept.sum())
    assert sorted(np.array(row)[kept].tolist(), reverse=True) == strongest[:count]
    assert count >= 1
    # The set reaches the mass, and without its weakest patch it would not.
    assert sum(strongest[:count]) >= mass * sum(row) - 1e-9
    assert sum(strongest[: count - 1]) <= mass * sum(row) + 1e-9


@pytest.mark.parametrize(
    ("row", "mass"),
    [([1], 1.1), ([1], -0.1), ([1], math.nan), ([math.nan, 1], 0.5), ([-1, 2], 0.5), ([0], 0.5), ([], 0.5)],
)
def test_foreground_refuses_what_is_no_attention(row: list[float], mass: float) -> None:
    with pytest.raises(ValueError, match=r"(mass|attention) must be"):
        foreground([row], mass)


def test_jaccard_takes_the_best_head_and_averages_over_classes() -> None:
    target = np.array([[3, 3, 0, 7], [3, 3, 0, 7]])
    left, right = np.zeros((2, 4), bool), np.zeros((2, 4), bool)
    left[:, :2] = True  # exactly class 3
    right[0] = True  # one pixel of class 7 of five in the union
    assert jaccard(np.stack([left, right]), target) == pytest.approx(100 * (1 + 1 / 5) / 2)
    assert jaccard(np.zeros((2, 2, 4), bool), target) == 0
    assert jaccard(np.stack([left]), np.zeros((2, 4), int)) is None
    assert jaccard(np.stack([left]), np.full((2, 4), 255)) is None
    # Void counts in the union as published unless excluded.
    everything, with_void = np.ones((1, 1, 4), bool), np.array([[5, 5, 255, 0]])
    assert jaccard(everything, with_void) == pytest.approx(50)
    assert jaccard(everything, with_void, exclude_void=True) == pytest.approx(100 * 2 / 3)


def test_masks_that_hold_all_attention_cover_the_share_of_the_object() -> None:
    outcome = weak_segmentation.drive(small_vit(), SHAPES_CARD, {"mass": 1.0}, "cpu")
    masks = images.test_images(SHAPES_CARD).masks
    assert masks is not None
    assert outcome.values["jaccard"] == pytest.approx(100 * float(masks.double().mean((1, 2)).mean()))
    assert outcome.values["jaccard_exclude_void"] == outcome.values["jaccard"]
    assert outcome.n_samples == 1000


def brute_box(mask: np.ndarray, patch: int) -> list[int]:
    rows, columns = (axis.tolist() for axis in np.nonzero(mask))
    return [patch * min(columns), patch * min(rows), patch * (max(columns) + 1), patch * (max(rows) + 1)]


def test_largest_component_is_by_edges_not_corners_and_the_first_of_equal_ones() -> None:
    mask = np.array([[1, 0, 1, 1], [0, 1, 0, 0], [0, 1, 1, 0], [1, 0, 0, 0]], bool)
    wanted = [[0, 0, 0, 0], [0, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    assert weak_localisation.largest_component(mask).astype(int).tolist() == wanted
    tie = np.array([[1, 1, 0, 1, 1]], bool)
    assert weak_localisation.largest_component(tie).tolist() == [[True, True, False, False, False]]


def test_grid_has_every_declared_setting_once_and_fits_them() -> None:
    names = declared_grid(6)
    assert len(set(names)) == len(names) == 5 * 8 * 2
    attention = np.random.default_rng(0).random((4, 6, 4, 4))
    truth = [np.array([[0.0, 0.0, 8.0, 8.0], [4.0, 4.0, 16.0, 12.0]])] * 3 + [np.array([[2.0, 2.0, 9.0, 9.0]])]
    found = box_fits(attention, truth, 4)
    assert found.shape == (5, 8, 2, 4)
    fits = dict(zip(names, found.reshape(-1, 4), strict=True))
    for image in range(4):  # one setting of each kind, by hand
        for name, source in (("0.7/2/all", attention[image, 2]), ("0.7/mean/all", attention[image].mean(0))):
            box = brute_box(foreground(source.reshape(-1), 0.7).reshape(4, 4), 4)
            assert fits[name][image] == pytest.approx(float(best_fit(np.array([box], float), truth[image])[0]))
    heads = np.stack([fits[f"0.9/{head}/largest"] for head in range(6)])
    assert fits["0.9/best/largest"].tolist() == heads.max(0).tolist()
    assert mean_fits(found) == pytest.approx({name: 100 * fits[name].mean() for name in names})


def test_boxes_of_a_model_on_shapes_are_those_of_its_attention() -> None:
    model = small_vit()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    outcome = weak_localisation.drive(model, SHAPES_CARD, {"setting": START}, "cpu")
    assert outcome.n_samples == 1000
    grid = dict(zip(declared_grid(3), outcome.arrays["grid_iou"].ravel(), strict=True))
    assert outcome.facts == {"setting": START}
    assert outcome.values["iou"] == grid["0.9/best/all"] >= grid["0.9/0/all"]
    assert outcome.values["iou_mean_head"] == grid["0.9/mean/all"]
    assert 20 < outcome.values["whole_image"] < 50
    assert outcome.arrays["example_attention"].shape == (weak_localisation.EXAMPLES, 3, 4, 4)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    with pytest.raises(ValueError, match="not in the declared grid"):
        weak_localisation.drive(model, SHAPES_CARD, {"setting": "0.95/best/all"}, "cpu")


def test_models_without_class_token_and_data_without_objects_are_refused() -> None:
    with pytest.raises(ValueError, match="no class token"):
        weak_localisation.drive(timm.create_model("resnet18"), SHAPES_CARD, {"setting": START}, "cpu")
    card = {"data": "digits", "image_size": 8, "mean": (0.5,), "std": (0.5,)}
    model = small_vit(patch=2, size=8, in_chans=1)
    with pytest.raises(ValueError, match="digits has no boxes"):
        weak_localisation.drive(model, card, {"setting": START}, "cpu")
    with pytest.raises(ValueError, match="digits has no masks"):
        weak_segmentation.drive(model, card, {"mass": 0.9}, "cpu")


def xml(*boxes: tuple[int, int, int, int]) -> str:
    names = ("xmin", "ymin", "xmax", "ymax")
    sides = ("".join(f"<{name}>{side}</{name}>" for name, side in zip(names, box, strict=True)) for box in boxes)
    return f"<annotation>{''.join(f'<object><bndbox>{box}</bndbox></object>' for box in sides)}</annotation>"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LUMIX_DATA", str(tmp_path))
    return tmp_path


def picture(path: Path, size: tuple[int, int], seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def test_imagenet_boxes_are_squeezed_with_their_pictures(root: Path) -> None:
    for index, wnid in enumerate(("n01440764", "n01443537")):
        picture(root / "imagenet" / "val" / wnid / f"p{index}.png", (64, 48))
    annotations, model = root / "imagenet" / weak_localisation.BOXES, small_vit(8, 32)
    with pytest.raises(ValueError, match=r"ILSVRC2012_bbox_val_v3 is missing: unpack"):
        weak_localisation.drive(model, IMAGENET_CARD, {"setting": START}, "cpu")
    annotations.mkdir()
    (annotations / "p0.xml").write_text(xml((0, 0, 32, 24), (32, 24, 64, 48)))
    with pytest.raises(ValueError, match=r"p1\.xml cannot be read as boxes"):
        weak_localisation.drive(model, IMAGENET_CARD, {"setting": START}, "cpu")
    (annotations / "p1.xml").write_text(xml())
    with pytest.raises(ValueError, match=r"p1\.xml has no box"):
        weak_localisation.read_boxes(annotations / "p1.xml")
    (annotations / "p1.xml").write_text(xml((0, 0, 64, 48)))
    batch = list(weak_localisation._imagenet(IMAGENET_CARD))
    assert [boxes.tolist() for boxes in batch[0][1]] == [[[0, 0, 16, 16], [16, 16, 32, 32]], [[0, 0, 32, 32]]]
    assert batch[0][0].shape == (2, 3, 32, 32)
    outcome = weak_localisation.drive(model, IMAGENET_CARD, {"setting": START}, "cpu")
    assert outcome.values["whole_image"] == pytest.approx(100 * (0.25 + 1) / 2)


def test_setting_is_frozen_on_the_public_weights_not_on_the_model(root: Path) -> None:
    name = "vit_tiny_patch16_224.augreg_in21k"
    public = uneven(timm.create_model("vit_tiny_patch16_224", num_classes=0), seed=1)
    (root / "weights").mkdir()
    torch.save(public.state_dict(), root / "weights" / f"{name}.pth")
    picture(root / "imagenet" / "val" / "n01440764" / "p0.png", (64, 48))
    (root / "imagenet" / weak_localisation.BOXES).mkdir()
    (root / "imagenet" / weak_localisation.BOXES / "p0.xml").write_text(xml((0, 0, 30, 20)))
    card = IMAGENET_CARD | {"image_size": 224}
    other = uneven(small_vit(16, 224), seed=2)
    grid, own = (mean_fits(weak_localisation._fits(model, card, "cpu")[0]) for model in (public, other))
    wanted = "0.7/1/largest"
    outcome = weak_localisation.drive(other, card, {"public_weights": name, "reference": grid[wanted]}, "cpu")
    frozen = outcome.facts["setting"]
    assert grid[frozen] == grid[wanted]
    assert outcome.values["iou"] == own[frozen] != grid[wanted]


def test_pascal_voc_is_read_at_512_pixels(root: Path) -> None:
    with pytest.raises(ValueError, match=r"Pascal VOC 2012 is not in .*VOCdevkit/VOC2012"):
        weak_segmentation.drive(small_vit(8, 32), IMAGENET_CARD, {"mass": 0.9}, "cpu")
    base = root / "VOCdevkit" / "VOC2012"
    (base / "ImageSets" / "Segmentation").mkdir(parents=True)
    (base / "ImageSets" / "Segmentation" / "val.txt").write_text("one\ntwo\n")
    for name, value in (("one", 3), ("two", 0)):
        picture(base / "JPEGImages" / f"{name}.jpg", (80, 60))
        target = np.zeros((60, 80), np.uint8)
        target[:, :40] = value
        target[:30, 40:] = 255
        (base / "SegmentationClass").mkdir(exist_ok=True)
        Image.fromarray(target, mode=None).save(base / "SegmentationClass" / f"{name}.png")
    model = small_vit(16, 32)
    outcome = weak_segmentation.drive(model, IMAGENET_CARD, {"mass": 1.0}, "cpu")
    assert outcome.n_samples == outcome.values["skipped"] == 1  # the second shows no object
    assert outcome.values["jaccard"] == pytest.approx(50, abs=0.1)
    assert outcome.values["jaccard_exclude_void"] == pytest.approx(100 * 2 / 3, abs=0.1)
    assert model.patch_embed.img_size == (32, 32)  # the caller's model keeps its size
    assert json.dumps(outcome.values)
