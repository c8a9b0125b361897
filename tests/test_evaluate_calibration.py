"""Calibration, response rate and out-of-distribution metrics: against plain references, and their laws at the edges."""

import importlib.resources
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from evaluation.natural import calibration
from evaluation.natural.adversarial import class_indices
from evaluation.natural.calibration import detection

Array = NDArray[np.float64]


def samples(n: int, seed: int = 0) -> tuple[Array, NDArray[np.bool_]]:
    """n confidences, all different, and whether each was right: more often the surer, yet overconfident."""
    rng = np.random.default_rng(seed)
    sure = rng.permutation(np.linspace(0.2, 0.999, n))
    return sure, rng.random(n) < 0.8 * sure


def plain_calibration(sure: Array, right: NDArray[np.bool_], drop_last: bool, size: int = 100) -> float:
    """Bin by bin, as one would count by hand."""
    pairs = sorted(zip(sure.tolist(), right.tolist(), strict=True), key=lambda pair: pair[0])
    bins = [pairs[start : start + size] for start in range(0, len(pairs) // size * size, size)]
    bins[-1] += pairs[len(pairs) // size * size :]
    total = 0.0
    for members in bins[:-1] if drop_last else bins:
        gap = sum(c for c, _ in members) / len(members) - sum(r for _, r in members) / len(members)
        total += len(members) / len(pairs) * gap**2
    return 100 * math.sqrt(total)


@pytest.mark.parametrize("n", [200, 250, 399, 1234])
@pytest.mark.parametrize("all_bins", [False, True])
def test_calibration_error_equals_the_count_by_hand(n: int, all_bins: bool) -> None:
    sure, right = samples(n)
    expected = plain_calibration(sure, right, drop_last=not all_bins)
    assert calibration.rms_calibration_error(sure, right, all_bins) == pytest.approx(expected, abs=1e-10)
    assert expected > 1


def test_published_mode_does_not_see_the_most_confident_bin() -> None:
    sure, right = samples(350)
    top = np.argsort(sure)[-150:]  # the last of three bins holds the remainder too
    changed = right.copy()
    changed[top] = ~changed[top]
    assert calibration.rms_calibration_error(sure, changed) == calibration.rms_calibration_error(sure, right)
    modes = [calibration.rms_calibration_error(sure, x, all_bins=True) for x in (right, changed)]
    assert abs(modes[0] - modes[1]) > 1


def test_calibration_error_needs_two_bins() -> None:
    with pytest.raises(ValueError, match="two bins of 100 samples, not 199"):
        calibration.rms_calibration_error(*samples(199))


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_all_right_and_all_wrong(value: float) -> None:
    sure, right = np.full(300, 0.75), np.full(300, bool(value))
    assert calibration.rms_calibration_error(sure, right, all_bins=True) == pytest.approx(100 * abs(0.75 - value))
    assert calibration.rms_calibration_error(sure, right) == pytest.approx(100 * abs(0.75 - value) * math.sqrt(2 / 3))
    assert set(calibration.response_accuracy(sure, right).tolist()) == {100 * value}


def test_response_rate_accuracy_equals_the_count_by_hand() -> None:
    sure, right = samples(57)
    ranked = [r for _, r in sorted(zip(sure.tolist(), right.tolist(), strict=True), reverse=True)]
    curve = [100 * sum(ranked[:k]) / k for k in range(1, 58)]
    assert calibration.response_accuracy(sure, right) == pytest.approx(curve)


def test_response_rate_with_ties_is_stable() -> None:
    found = calibration.response_accuracy(np.full(4, 0.5), np.array([True, False, False, True]))
    assert found.tolist() == pytest.approx([100, 50, 100 / 3, 50])


@given(seed=st.integers(0, 10**6), n=st.integers(200, 450))
def test_order_of_samples_does_not_matter_where_confidences_differ(seed: int, n: int) -> None:
    sure, right = samples(n)
    order = np.random.default_rng(seed).permutation(n)
    for metric in (calibration.rms_calibration_error, calibration.response_accuracy):
        assert metric(sure[order], right[order]) == pytest.approx(metric(sure, right), abs=1e-9)


def test_reliability_adds_up_to_the_whole() -> None:
    sure, right = samples(500)
    bins = calibration.reliability(sure, right, 10)
    assert bins["count"].sum() == 500
    assert bins["count"][0] == bins["accuracy"][0] == 0  # no confidence below 0.1
    for name, values in (("accuracy", right), ("confidence", sure)):
        assert (bins["count"] * bins[name]).sum() / 500 == pytest.approx(100 * values.mean())
    assert calibration.reliability(np.ones(1), np.ones(1, bool), 4)["count"].tolist() == [0, 0, 0, 1]


def test_other_classes_are_out_of_the_game() -> None:
    logits = np.array([[9.0, 1.0, 0.0, 2.0], [0.0, 3.0, 9.0, 1.0]])
    sure, right = calibration.predictions(logits, np.array([1, 0]), classes=[1, 3])
    assert right.tolist() == [True, True]  # label j is the j-th kept class, whatever the others say
    assert sure == pytest.approx([1 / (1 + math.exp(-1)), 1 / (1 + math.exp(-2))])


def test_probabilities_survive_huge_logits_and_ties_go_to_the_first() -> None:
    assert calibration.class_probabilities(np.array([[1e4, -1e4]]), [0, 1])[0].tolist() == [1, 0]
    assert calibration.predictions(np.full((1, 2), 2.0), np.array([0]), [0, 1])[1].tolist() == [True]


def scores(seed: int = 0) -> tuple[Array, Array]:
    """Scores of known and unknown images, rounded so that many tie."""
    rng = np.random.default_rng(seed)
    return rng.normal(0, 1, 400).round(1), rng.normal(0.7, 1, 80).round(1)


def plain_average_precision(inside: Array, outside: Array) -> float:
    total, before = 0.0, 0.0
    for threshold in sorted({*inside.tolist(), *outside.tolist()}, reverse=True):
        found, false = int((outside >= threshold).sum()), int((inside >= threshold).sum())
        recall = found / len(outside)
        total += (recall - before) * found / (found + false)
        before = recall
    return 100 * total


def test_aupr_is_the_step_wise_sum_with_ties() -> None:
    inside, outside = scores()
    value = detection(inside, outside)["aupr"]
    assert value == pytest.approx(plain_average_precision(inside, outside))
    swapped = detection(-outside, -inside)["aupr"]
    assert swapped > value + 30  # what one gets with the positive class swapped


def test_auroc_is_the_share_of_ordered_pairs() -> None:
    inside, outside = scores()
    pairs = (outside[:, None] > inside) + 0.5 * (outside[:, None] == inside)
    assert detection(inside, outside)["auroc"] == pytest.approx(100 * pairs.mean())


def flagged(inside: np.ndarray, outside: np.ndarray) -> list[tuple[float, float]]:
    """(recall of the outside samples, share of inside ones flagged) at every score, the strictest first."""
    thresholds = np.unique(np.concatenate([inside, outside]))[::-1]
    return [(float((outside >= t).mean()), float((inside >= t).mean())) for t in thresholds]


def published_fpr95(inside: np.ndarray, outside: np.ndarray) -> float:
    """The published script's choice: nothing beyond the first threshold that finds all; then nearest to 0.95."""
    kept: list[tuple[float, float]] = []
    for recall, rate in flagged(inside, outside):
        kept.append((recall, rate))
        if recall == 1:
            break
    return min(reversed(kept), key=lambda pair: abs(pair[0] - 0.95))[1]


@given(seed=st.integers(0, 10**6), known=st.integers(1, 60), unknown=st.integers(1, 60), levels=st.integers(1, 40))
def test_fpr95_is_the_published_choice(seed: int, known: int, unknown: int, levels: int) -> None:
    rng = np.random.default_rng(seed)  # few levels make ties
    inside, outside = (rng.integers(0, levels, count) / levels for count in (known, unknown))
    found = detection(inside, outside)
    assert found["fpr95"] == pytest.approx(100 * published_fpr95(inside, outside))
    ours = min(rate for recall, rate in flagged(inside, outside) if recall >= 0.95)
    assert found["fpr_at_recall_95"] == pytest.approx(100 * ours)


def test_the_published_rate_may_flag_more_or_find_less_than_the_best() -> None:
    more = np.array([-0.3, -0.95]), np.array([-0.1] * 19 + [-0.9])  # 95 % are found at -0.1; at -0.3 too, with a known
    less = np.array([-0.9, -0.95]), np.array([-0.1] * 10 + [-0.9])  # ten of eleven are nearer to 95 % than all eleven
    assert (detection(*more)["fpr95"], detection(*less)["fpr95"]) == (50, 0)
    assert (detection(*more)["fpr_at_recall_95"], detection(*less)["fpr_at_recall_95"]) == (0, 50)


def test_detection_at_its_limits() -> None:
    known, unknown = np.array([-0.9, -0.8, -0.7]), np.array([-0.2, -0.1])
    assert detection(known, unknown) == {"aupr": 100, "auroc": 100, "fpr95": 0, "fpr_at_recall_95": 0}
    chance = detection(np.full(10, 0.5), np.full(2, 0.5))
    assert chance == pytest.approx({"aupr": 100 / 6, "auroc": 50, "fpr95": 100, "fpr_at_recall_95": 100})


def timm_synsets(name: str) -> list[str]:
    """WordNet ids of a set, from the lists that timm ships."""
    text = (importlib.resources.files("timm.data") / "_info" / f"{name}_synsets.txt").read_text()
    return [line.split()[0] for line in text.splitlines()]


def test_classes_of_imagenet_a_by_folder_name_and_incomplete_copies() -> None:
    wnids, kept = (sorted(timm_synsets(name)) for name in ("imagenet", "imagenet_a"))
    indices = class_indices("imagenet-a", kept, wnids)
    assert [wnids[index] for index in indices] == kept
    assert (indices[:6], sum(indices)) == ([6, 11, 13, 15, 17, 22], 102178)
    for name, some, known, message in (
        ("imagenet-a", kept[1:], wnids, "imagenet-a has 199 class folders"),
        ("imagenet-o", kept, wnids, "imagenet-o has 200 class folders with index sum 102178"),
        ("imagenet-a", kept, wnids[1:], "among 999 of imagenet/val"),
        ("imagenet-a", [*kept[1:], "n0"], wnids, "replace it by a complete copy"),
    ):
        with pytest.raises(ValueError, match=message):
            class_indices(name, some, known)
