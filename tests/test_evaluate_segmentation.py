"""Segmentation metrics against a plain reference, and the laws of sliding windows, scales and flips."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import conv2d

from evaluation.segmentation.data import IGNORE, ResidentScenes
from evaluation.segmentation.recipe import Recipe
from evaluation.segmentation.scoring import (
    RATIOS,
    batches,
    confusion,
    mean_accuracy,
    mean_iou,
    probabilities,
    score,
    segment,
    slide,
    stacked,
    target_size,
    thinning,
    window_starts,
)

CARD = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.2, 0.3)}


def recipe(**changes: object) -> Recipe:
    return Recipe("shapes", base=24, crop=16, stride=12).replace(**changes)


def plain_scores(prediction: np.ndarray, truth: np.ndarray, classes: int) -> tuple[float, float]:
    """mAcc and mIoU as mmseg defines them, by sets of pixels, one class at a time; NaN where a class has no say."""
    counted = truth != IGNORE
    ious, accuracies = [], []
    for c in range(classes):
        found, wanted = (prediction == c) & counted, (truth == c) & counted
        shared, union = (found & wanted).sum(), (found | wanted).sum()
        ious.append(shared / union if union else math.nan)
        accuracies.append(shared / wanted.sum() if wanted.any() else math.nan)
    return 100 * float(np.nanmean(accuracies)), 100 * float(np.nanmean(ious))


# ------------------------------------------------------------------------------------------------- metrics


@given(st.integers(0, 2**32 - 1), st.integers(2, 7), st.integers(1, 40))
def test_metrics_equal_a_plain_reference(seed: int, classes: int, pixels: int) -> None:
    rng = np.random.default_rng(seed)
    prediction = rng.integers(0, rng.integers(1, classes + 1), pixels)  # often without the last classes
    truth = np.where(rng.random(pixels) < 0.2, IGNORE, rng.integers(0, rng.integers(1, classes + 1), pixels))
    truth[0] = 0
    matrix = confusion(torch.tensor(prediction), torch.tensor(truth), classes)
    macc, miou = plain_scores(prediction, truth, classes)
    assert mean_accuracy(matrix) == pytest.approx(macc)
    assert mean_iou(matrix) == pytest.approx(miou)
    assert int(matrix.sum()) == int((truth != IGNORE).sum())


def test_a_case_counted_by_hand() -> None:
    # Class 0: 3 true, 2 found, none wrong; class 1: 1 true and found, 1 stray; class 2: never; one pixel ignored.
    matrix = confusion(torch.tensor([[0, 0, 1], [1, 2, 0]]), torch.tensor([[0, 0, 0], [1, IGNORE, 0]]), 3)
    assert matrix.tolist() == [[3, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert mean_accuracy(matrix) == pytest.approx(100 * (3 / 4 + 1) / 2)
    assert mean_iou(matrix) == pytest.approx(100 * (3 / 4 + 1 / 2) / 2)


def test_a_class_that_is_only_predicted_counts_for_iou_but_not_for_accuracy() -> None:
    matrix = confusion(torch.tensor([0, 1]), torch.tensor([0, 0]), 3)
    assert mean_iou(matrix) == pytest.approx(25.0)
    assert mean_accuracy(matrix) == pytest.approx(50.0)


def test_all_right_is_100_and_all_wrong_is_0() -> None:
    truth = torch.tensor([[0, 1], [2, IGNORE]])
    right, wrong = confusion(truth.clamp(max=2), truth, 3), confusion((truth + 1) % 3, truth, 3)
    assert mean_iou(right) == mean_accuracy(right) == 100.0
    assert mean_iou(wrong) == mean_accuracy(wrong) == 0.0


# ------------------------------------------------------------------------------------------------- windows


def pointwise(images: Tensor) -> Tensor:
    """Each pixel by itself: windows cannot matter."""
    weight = torch.tensor([[1.0, -0.5, 0.2], [0.1, 0.9, -1.0], [-0.4, 0.3, 0.8], [0.2, 0.2, 0.2]])
    return conv2d(images, weight[:, :, None, None])


def test_windows_cover_every_pixel_and_end_at_the_last() -> None:
    assert window_starts(480, 480, 320) == [0]
    assert window_starts(481, 480, 320) == [0, 1]
    assert window_starts(800, 480, 320) == [0, 320]
    assert window_starts(801, 480, 320) == [0, 320, 321]
    for length in range(16, 60):
        starts = window_starts(length, 16, 12)
        assert {pixel for start in starts for pixel in range(start, start + 16)} == set(range(length))


@pytest.mark.parametrize("size", [(16, 16), (16, 29), (40, 33)])
def test_sliding_equals_the_whole_image_for_a_pointwise_model(size: tuple[int, int]) -> None:
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(slide(pointwise, images, 16, 12), pointwise(images))


def test_overlaps_are_averaged_over_windows() -> None:
    calls: list[int] = []

    def numbered(images: Tensor) -> Tensor:
        first = len(calls)
        calls.extend(range(len(images)))
        return torch.arange(first, first + len(images)).float().view(-1, 1, 1, 1).expand(-1, 1, 4, 4)

    merged = slide(numbered, torch.zeros(1, 3, 4, 6), window=4, stride=2)
    assert merged[0, 0, 0].tolist() == [0, 0, 0.5, 0.5, 1, 1]


def test_an_image_is_fitted_to_the_base_or_enlarged_to_the_window() -> None:
    assert target_size(375, 500, 520, 480) == (480, 640)  # 390 would be below the window
    assert target_size(500, 500, 520, 480) == (520, 520)
    assert target_size(375, 500, 910, 480) == (683, 910)
    assert target_size(500, 375, 260, 480) == (640, 480)
    assert target_size(180, 240, 240, 96) == (180, 240)


# ------------------------------------------------------------------------------------------------- scales and flips


def test_probabilities_sum_to_one_and_mirror_with_the_image() -> None:
    images = torch.randn(2, 3, 20, 30, generator=torch.Generator().manual_seed(1))
    plain = probabilities(pointwise, images, (20, 30), False, recipe())
    torch.testing.assert_close(plain.sum(1), torch.ones(2, 20, 30))
    torch.testing.assert_close(probabilities(pointwise, images, (20, 30), True, recipe()), plain)
    larger = probabilities(pointwise, images, (28, 42), True, recipe())
    torch.testing.assert_close(larger.sum(1), torch.ones(2, 20, 30))


def test_a_model_that_gives_nan_is_refused() -> None:
    with pytest.raises(ValueError, match=r"gives NaN.*lower Recipe.lr"):
        segment(lambda images: images * math.nan, torch.zeros(1, 3, 16, 16), recipe())


def edge_model(images: Tensor) -> Tensor:
    """Sees left and right differently, so that mirroring matters."""
    weight = torch.zeros(4, 3, 1, 3)
    weight[0, :, 0, 0], weight[1, :, 0, 2], weight[2, 0, 0, 1], weight[3, 1, 0, 1] = 1, 0.6, 1, -1
    return conv2d(images, weight, padding=(0, 1))


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 2**32 - 1))
def test_several_scales_are_symmetric_under_mirroring(seed: int) -> None:
    images = torch.randn(1, 3, 18, 22, generator=torch.Generator().manual_seed(seed))
    single, several = segment(edge_model, images, recipe())
    mirrored_single, mirrored = segment(edge_model, images.flip(3), recipe())
    agree = (mirrored.flip(2) == several).float().mean()
    assert agree > 0.99  # sums that are nearly equal may fall either way
    assert (mirrored_single.flip(2) == single).float().mean() < 0.99


def test_ratios_of_equal_size_weigh_as_often_as_they_occur_and_are_computed_once() -> None:
    images, sizes = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(2)), []

    def counting(crops: Tensor) -> Tensor:
        sizes.append(tuple(crops.shape))
        return edge_model(crops)

    settings_ = recipe(base=16, crop=16)
    _, several = segment(counting, images, settings_)  # 0.5, 0.75 and 1 all give 16x16
    assert sizes.count((1, 3, 16, 16)) == 2
    total = torch.zeros(1, 4, 16, 16)
    for ratio in RATIOS:
        for flip in (False, True):
            total += probabilities(edge_model, images, target_size(16, 16, 16 * ratio, 16), flip, settings_)
    assert torch.equal(several, total.argmax(1))


# ------------------------------------------------------------------------------------------------- scoring


class ByBrightness(nn.Module):
    """Class 1 where the first channel is above its mean."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack((-images[:, 0], images[:, 0]), dim=1)


def scenes(n: int = 5) -> ResidentScenes:
    masks = torch.randint(0, 2, (n, 16, 16), generator=torch.Generator().manual_seed(4), dtype=torch.uint8)
    images = (masks * 200)[:, None].expand(-1, 3, -1, -1).contiguous()
    masks[:, 0] = IGNORE
    return ResidentScenes(images, masks, 2)


def test_score_of_a_perfect_model_is_100_and_counts_its_images() -> None:
    outcome = score(ByBrightness(), scenes(), recipe(base=16, test_size=3), CARD, "cpu")
    assert outcome.values["macc"] == outcome.values["miou"] == 100.0
    assert outcome.n_samples == 3
    assert int(outcome.arrays["confusion"].sum()) == 3 * 15 * 16
    examples = outcome.arrays["examples"]
    assert (examples.shape, examples.dtype) == ((3, 16, 16), np.uint8)
    assert (examples[2][1:] == scenes().masks[2][1:].numpy()).all()


def test_segmentations_of_several_sizes_are_kept_in_one_array() -> None:
    found = stacked([torch.ones(2, 3, dtype=torch.uint8), torch.zeros(3, 1, dtype=torch.uint8)])
    assert found.tolist() == [
        [[1, 1, 1], [1, 1, 1], [IGNORE] * 3],
        [[0, IGNORE, IGNORE]] * 3,
    ]


def test_kept_segmentations_are_thinned_out_to_a_few_pixels() -> None:
    assert [thinning(shape) for shape in ((16, 16), (64, 64), (65, 64), (180, 240), (375, 500))] == [1, 1, 2, 4, 8]


def test_score_does_not_depend_on_the_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = score(ByBrightness(), scenes(), recipe(), CARD, "cpu")
    monkeypatch.setattr("evaluation.segmentation.scoring.PIXELS", 1)
    single = score(ByBrightness(), scenes(), recipe(), CARD, "cpu")
    assert whole.values == single.values
    assert whole.n_samples == single.n_samples == 5


def test_batches_hold_neighbours_of_equal_size() -> None:
    class Mixed:
        num_classes, class_names = 2, ()
        sides = (4, 4, 4, 6, 4)

        def __len__(self) -> int:
            return 5

        def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
            side = self.sides[index]
            return torch.full((3, side, side), index), torch.full((side, side), index)

    found = [(images.shape[-1], masks[:, 0, 0].tolist()) for images, masks in batches(Mixed(), 5, 2)]
    assert found == [(4, [0, 1]), (4, [2]), (6, [3]), (4, [4])]
    assert [len(images) for images, _ in batches(Mixed(), 2, 8)] == [2]
