"""Calibration, response rate and out-of-distribution metrics: against plain references, and their laws at the edges."""

import importlib.resources
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics

from lumix.evaluate.natural import calibration, out_of_distribution, subsets

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
@pytest.mark.parametrize("mode", calibration.MODES)
def test_calibration_error_equals_the_count_by_hand(n: int, mode: str) -> None:
    sure, right = samples(n)
    expected = plain_calibration(sure, right, drop_last=mode == "published")
    assert calibration.rms_calibration_error(sure, right, mode) == pytest.approx(expected, abs=1e-10)
    assert expected > 1


def test_published_mode_does_not_see_the_most_confident_bin() -> None:
    sure, right = samples(350)
    top = np.argsort(sure)[-150:]  # the last of three bins holds the remainder too
    changed = right.copy()
    changed[top] = ~changed[top]
    assert calibration.rms_calibration_error(sure, changed) == calibration.rms_calibration_error(sure, right)
    modes = [calibration.rms_calibration_error(sure, x, "all_bins") for x in (right, changed)]
    assert abs(modes[0] - modes[1]) > 1


def test_calibration_error_of_one_bin_and_of_less() -> None:
    sure, right = samples(199)
    with pytest.warns(UserWarning, match="leaves out"):
        assert calibration.rms_calibration_error(sure, right) == 0
    assert calibration.rms_calibration_error(sure, right, "all_bins") == pytest.approx(
        100 * abs(float(sure.mean() - right.mean()))
    )
    with pytest.raises(ValueError, match="at least one bin of 100 samples, not 99"):
        calibration.rms_calibration_error(sure[:99], right[:99])
    with pytest.raises(ValueError, match="mode must be one of"):
        calibration.rms_calibration_error(sure, right, "ece")


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_all_right_and_all_wrong(value: float) -> None:
    sure, right = np.full(300, 0.75), np.full(300, value)
    assert calibration.rms_calibration_error(sure, right, "all_bins") == pytest.approx(100 * abs(0.75 - value))
    assert calibration.rms_calibration_error(sure, right) == pytest.approx(100 * abs(0.75 - value) * math.sqrt(2 / 3))
    assert calibration.aurra(sure, right) == 100 * value
    assert calibration.accuracy(right) == 100 * value


def test_response_rate_accuracy_equals_the_count_by_hand() -> None:
    sure, right = samples(57)
    ranked = [r for _, r in sorted(zip(sure.tolist(), right.tolist(), strict=True), reverse=True)]
    curve = [100 * sum(ranked[:k]) / k for k in range(1, 58)]
    assert calibration.response_accuracy(sure, right) == pytest.approx(curve)
    assert calibration.aurra(sure, right) == pytest.approx(sum(curve) / 57)
    assert curve[-1] == pytest.approx(calibration.accuracy(right))


def test_response_rate_with_ties_is_stable_and_with_one_sample_is_its_own_accuracy() -> None:
    assert calibration.response_accuracy([0.5] * 4, [1, 0, 0, 1]).tolist() == pytest.approx([100, 50, 100 / 3, 50])
    assert calibration.aurra([0.3], [True]) == 100
    assert calibration.aurra([0.3], [False]) == 0


@given(seed=st.integers(0, 10**6), n=st.integers(200, 450))
def test_order_of_samples_does_not_matter_where_confidences_differ(seed: int, n: int) -> None:
    sure, right = samples(n)
    order = np.random.default_rng(seed).permutation(n)
    for metric in (calibration.rms_calibration_error, calibration.aurra):
        assert metric(sure[order], right[order]) == pytest.approx(metric(sure, right), abs=1e-9)


@pytest.mark.parametrize("metric", [calibration.rms_calibration_error, calibration.aurra, calibration.reliability])
@pytest.mark.parametrize(
    ("sure", "right"), [([], []), ([math.nan] * 300, [1] * 300), ([1.5] * 300, [1] * 300), ([0.5] * 300, [2] * 300)]
)
def test_bad_samples_are_refused(metric: object, sure: list[float], right: list[int]) -> None:
    with pytest.raises(ValueError):
        metric(sure, right)  # type: ignore[operator]


def test_reliability_adds_up_to_the_whole() -> None:
    sure, right = samples(500)
    bins = calibration.reliability(sure, right, 10)
    assert bins["count"].sum() == 500
    assert bins["count"][0] == bins["accuracy"][0] == 0  # no confidence below 0.1
    for name, values in (("accuracy", right), ("confidence", sure)):
        assert (bins["count"] * bins[name]).sum() / 500 == pytest.approx(100 * values.mean())
    assert calibration.reliability([1.0], [1], 4)["count"].tolist() == [0, 0, 0, 1]


def test_other_classes_are_out_of_the_game() -> None:
    logits = np.array([[9.0, 1.0, 0.0, 2.0], [0.0, 3.0, 9.0, 1.0]])
    sure, right = calibration.predictions(logits, [1, 0], classes=[1, 3])
    assert right.tolist() == [True, True]  # label j is the j-th kept class, whatever the others say
    assert sure == pytest.approx([1 / (1 + math.exp(-1)), 1 / (1 + math.exp(-2))])
    assert calibration.predictions(logits, [0, 2])[1].tolist() == [True, True]


def test_probabilities_survive_huge_logits_and_ties_go_to_the_first() -> None:
    assert calibration.class_probabilities([[1e4, -1e4]])[0].tolist() == [1, 0]
    assert calibration.predictions([[2.0, 2.0]], [0])[1].tolist() == [True]


@pytest.mark.parametrize(
    ("logits", "labels", "classes", "message"),
    [
        ([[math.nan, 0.0]], [0], None, "finite"),
        (np.empty((0, 3)), [], None, "at least one sample"),
        ([[0.0, 1.0]], [2], None, "labels must be"),
        ([[0.0, 1.0]], [0], [0, 0], "distinct"),
        ([[0.0, 1.0]], [0], [2], "within 0 to 1"),
    ],
)
def test_bad_logits_are_refused(logits: object, labels: object, classes: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        calibration.predictions(logits, labels, classes)  # type: ignore[arg-type]


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
    value = out_of_distribution.aupr(inside, outside)
    assert value == pytest.approx(plain_average_precision(inside, outside))
    swapped = out_of_distribution.aupr(-outside, -inside)
    assert swapped > value + 30  # what one gets with the positive class swapped


def test_auroc_is_the_share_of_ordered_pairs() -> None:
    inside, outside = scores()
    pairs = (outside[:, None] > inside) + 0.5 * (outside[:, None] == inside)
    assert out_of_distribution.auroc(inside, outside) == pytest.approx(100 * pairs.mean())


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


def test_fpr_at_recall_95_is_the_best_threshold_that_finds_95_percent() -> None:
    inside, outside = scores()
    assert out_of_distribution.fpr_at_recall_95(inside, outside) == pytest.approx(
        100 * min(rate for recall, rate in flagged(inside, outside) if recall >= 0.95)
    )


@given(seed=st.integers(0, 10**6), known=st.integers(1, 60), unknown=st.integers(1, 60), levels=st.integers(1, 40))
def test_fpr95_is_the_published_choice(seed: int, known: int, unknown: int, levels: int) -> None:
    rng = np.random.default_rng(seed)  # few levels make ties
    inside, outside = (rng.integers(0, levels, count) / levels for count in (known, unknown))
    assert out_of_distribution.fpr95(inside, outside) == pytest.approx(100 * published_fpr95(inside, outside))


def test_the_published_rate_may_flag_more_or_find_less_than_ours() -> None:
    passed = [-0.3, -0.95], [-0.1] * 19 + [-0.9]  # 95 % are found at -0.1; at -0.3 too, with a known one
    assert (out_of_distribution.fpr95(*passed), out_of_distribution.fpr_at_recall_95(*passed)) == (50, 0)
    short = [-0.9, -0.95], [-0.1] * 10 + [-0.9]  # ten of eleven, 90.9 %, are nearer to 95 % than all eleven
    assert (out_of_distribution.fpr95(*short), out_of_distribution.fpr_at_recall_95(*short)) == (0, 50)


def test_detection_at_its_limits() -> None:
    known, unknown = [-0.9, -0.8, -0.7], [-0.2, -0.1]
    for metric, best in (("aupr", 100), ("auroc", 100), ("fpr95", 0), ("fpr_at_recall_95", 0)):
        assert getattr(out_of_distribution, metric)(known, unknown) == best
    assert out_of_distribution.aupr([0.5] * 10, [0.5] * 2) == pytest.approx(100 / 6)  # chance: the share of unknown
    assert out_of_distribution.auroc([0.5] * 10, [0.5] * 2) == 50
    assert out_of_distribution.fpr95([0.5] * 10, [0.5] * 2) == 100
    assert out_of_distribution.aupr([0.1], [0.2]) == 100
    assert out_of_distribution.aupr([0.2], [0.1]) == 50


@pytest.mark.parametrize("metric", ["aupr", "auroc", "fpr95", "fpr_at_recall_95"])
def test_detection_ignores_order_and_refuses_nothing_and_nan(metric: str) -> None:
    inside, outside = scores()
    call = getattr(out_of_distribution, metric)
    rng = np.random.default_rng(1)
    assert call(rng.permutation(inside), rng.permutation(outside)) == pytest.approx(call(inside, outside))
    for known, unknown in (([], [1.0]), ([1.0], []), ([math.nan], [1.0]), ([1.0], [math.inf])):
        with pytest.raises(ValueError):
            call(known, unknown)


def test_anomaly_is_the_negative_largest_probability() -> None:
    logits = np.array([[1.0, 2.0, 9.0]])
    assert out_of_distribution.anomaly_score(logits, [0, 1])[0] == pytest.approx(-1 / (1 + math.exp(-1)))


def test_auroc_equals_scikit_learn() -> None:
    inside, outside = scores(3)
    labels = [0] * len(inside) + [1] * len(outside)
    values = np.concatenate([inside, outside])
    assert out_of_distribution.auroc(inside, outside) == 100 * metrics.roc_auc_score(labels, values)
    assert out_of_distribution.aupr(inside, outside) == 100 * metrics.average_precision_score(labels, values)


def timm_synsets(name: str) -> list[str]:
    """WordNet ids of a set, from the lists that timm ships."""
    text = (importlib.resources.files("timm.data") / "_info" / f"{name}_synsets.txt").read_text()
    return [line.split()[0] for line in text.splitlines()]


def test_classes_of_imagenet_a_by_folder_name() -> None:
    wnids, kept = (timm_synsets(name) for name in ("imagenet", "imagenet_a"))
    indices = subsets.class_indices("imagenet-a", reversed(kept), wnids[::-1])
    assert [wnids[index] for index in indices] == sorted(kept)
    assert indices[:6] == [6, 11, 13, 15, 17, 22]
    assert sum(indices) == 102178


def test_incomplete_copies_are_named() -> None:
    wnids, kept = (timm_synsets(name) for name in ("imagenet", "imagenet_a"))
    with pytest.raises(ValueError, match="imagenet-a has 199 class folders"):
        subsets.class_indices("imagenet-a", kept[1:], wnids)
    with pytest.raises(ValueError, match=re.escape("imagenet-o has 200 class folders with index sum 102178")):
        subsets.class_indices("imagenet-o", kept, wnids)
    with pytest.raises(ValueError, match="must have 1000 class folders, not 999"):
        subsets.class_indices("imagenet-a", kept, wnids[1:])
    with pytest.raises(ValueError, match="folder n0, which is no class"):
        subsets.class_indices("imagenet-a", [*kept[1:], "n0"], wnids)
