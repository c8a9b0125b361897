"""Claims on hand-made numbers: intervals checked by hand, every verdict reached, thin evidence said to be thin."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from experiments.claims import (
    CONTRADICTED,
    INCONCLUSIVE,
    NOT_RUN,
    SUPPORTED,
    Close,
    EachGreater,
    Evidence,
    Greater,
    WithinPaper,
    ordered,
)
from experiments.intervals import holm, paired_differences, t_interval

A, B, C = ("a", "top1"), ("b", "top1"), ("c", "top1")


def seeds(*values: float) -> dict[int, float]:
    return dict(enumerate(values))


def evidence(paper_scale: bool = False, **cells: dict[int, float]) -> Evidence:
    return Evidence({(name, "top1"): v for name, v in cells.items()}, {A: 80.6, B: 79.8}, paper_scale)


def test_interval_is_the_textbook_formula():
    differences = [0.3, 0.9, 0.6, 1.4]
    mean = sum(differences) / 4
    deviation = math.sqrt(sum((d - mean) ** 2 for d in differences) / 3)
    half = 3.182446305284263 * deviation / 2  # the 97.5 % point of Student's t with 3 degrees of freedom
    interval = t_interval(differences)
    assert interval.mean == pytest.approx(mean)
    assert interval.low == pytest.approx(mean - half)
    assert interval.high == pytest.approx(mean + half)


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), min_size=2, max_size=12))
def test_interval_is_scipys_paired_interval(pairs):
    a, b = [x for x, _ in pairs], [y for _, y in pairs]
    differences = paired_differences([seeds(*a)], [seeds(*b)])
    interval = t_interval(differences)
    if interval.low is None:
        assert max(differences) - min(differences) < 1e-9
        return
    expected = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_pairs_are_the_common_seeds_whatever_their_order():
    assert paired_differences([{2: 5.0, 0: 3.0, 7: 1.0}], [{0: 1.0, 2: 1.0}]) == [2.0, 4.0]


@pytest.mark.parametrize(
    ("a", "verdict"),
    [((81, 82, 83.5), SUPPORTED), ((78, 79, 79.5), CONTRADICTED), ((79, 82, 80.5), INCONCLUSIVE)],
)
def test_greater_reaches_every_verdict(a, verdict):
    outcome = Greater((A,), (B,)).judge(evidence(a=seeds(*a), b=seeds(80, 80.5, 81.5)))
    assert outcome.verdict == verdict
    assert outcome.n == 3
    assert outcome.low < outcome.estimate < outcome.high


def test_greater_needs_the_margin_and_averages_cells():
    cells = evidence(a=seeds(82, 83, 84), b=seeds(80, 81, 82.1), c=seeds(82, 83, 84.1))
    assert Greater((A,), (B,)).judge(cells).verdict == SUPPORTED
    assert Greater((A,), (B,), margin=2.5).judge(cells).verdict == CONTRADICTED
    assert Greater((A,), (B, C)).judge(cells).estimate == pytest.approx((1 + 1 + 0.9) / 3)


@pytest.mark.parametrize("predicate", [Greater((A,), (B,)), EachGreater(((A, B),)), Close((A, B), 5.0)])
def test_thin_evidence_is_no_verdict(predicate):
    assert predicate.judge(evidence(a=seeds(80, 81))).verdict == NOT_RUN
    assert "b/top1" in predicate.judge(evidence(a=seeds(80, 81))).explanation
    single = predicate.judge(evidence(a=seeds(82), b=seeds(80)))
    assert (single.verdict, single.n) == (INCONCLUSIVE, 1)
    disjoint = predicate.judge(evidence(a={0: 82.0}, b={1: 80.0}))
    assert (disjoint.verdict, disjoint.n, disjoint.estimate) == (INCONCLUSIVE, 0, None)
    constant = predicate.judge(evidence(a=seeds(82, 83, 84), b=seeds(80, 81, 82)))
    assert (constant.verdict, constant.estimate, constant.low) == (INCONCLUSIVE, 2.0, None)


def test_each_greater_needs_every_pair():
    strong, weak, low = seeds(85, 86, 87.1), seeds(80, 82, 80.5), seeds(79.9, 81.3, 81.9)
    cells = evidence(a=strong, b=weak, c=low)
    assert EachGreater(((A, B), (A, C))).judge(cells).verdict == SUPPORTED
    partial = EachGreater(((A, C), (B, C))).judge(cells)
    assert partial.verdict == INCONCLUSIVE
    assert "1 of 2 comparisons hold" in partial.explanation
    assert "b/top1 less c/top1" in partial.explanation
    assert EachGreater(((A, B), (C, A))).judge(cells).verdict == CONTRADICTED


def test_each_greater_contradicts_only_after_correction():
    differences = [-1.0, -0.2, -0.9, -0.5]
    assert 0.01 < stats.ttest_1samp(differences, 0).pvalue < 0.05  # enough alone, not as one of five
    down = seeds(0.0, 0.0, 0.0, 0.0)
    up = seeds(5.0, 6.0, 5.5, 5.2)
    cells = Evidence({A: seeds(*differences), B: down, C: up}, {})
    assert EachGreater(((A, B),)).judge(cells).verdict == CONTRADICTED
    assert EachGreater(((A, B), (C, B), (C, A), (C, B), (C, A))).judge(cells).verdict == INCONCLUSIVE


def test_ordered_runs_upwards():
    cells = evidence(a=seeds(80, 81, 82), b=seeds(82, 83.1, 84), c=seeds(85, 86, 87.2))
    assert ordered(A, B, C).judge(cells).verdict == SUPPORTED
    assert ordered(C, B, A).judge(cells).verdict == CONTRADICTED


def test_close_is_an_equivalence_test():
    near = evidence(a=seeds(80.0, 81.0, 82.0, 81.5), b=seeds(80.02, 81.0, 82.03, 81.5))
    assert Close((A, B), 0.1).judge(near).verdict == SUPPORTED
    noisy = evidence(a=seeds(80.0, 83.0), b=seeds(81.0, 82.0))
    assert Close((A, B), 0.1).judge(noisy).verdict == INCONCLUSIVE
    apart = evidence(a=seeds(80.0, 81.0, 82.0), b=seeds(85.0, 86.1, 87.0))
    assert Close((A, B), 0.1).judge(apart).verdict == CONTRADICTED


def test_the_papers_numbers_are_compared_at_paper_scale_only():
    claim = WithinPaper(A, 0.4)
    assert claim.judge(evidence(a=seeds(80.6, 80.5))).verdict == NOT_RUN
    assert "paper scale" in claim.judge(evidence(a=seeds(80.6, 80.5))).explanation
    assert claim.judge(evidence(True, a=seeds(80.6, 80.5, 80.55))).verdict == SUPPORTED
    assert claim.judge(evidence(True, a=seeds(78.0, 78.2, 78.1))).verdict == CONTRADICTED
    assert claim.judge(evidence(True, a=seeds(80.6))).verdict == INCONCLUSIVE
    gain = WithinPaper(A, 0.4, to=B)
    outcome = gain.judge(evidence(True, a=seeds(78.8, 79.0, 78.92), b=seeds(78.0, 78.1, 78.2)))
    assert outcome.verdict == SUPPORTED
    assert outcome.estimate == pytest.approx(0.80666 - 0.8, abs=1e-4)


def test_holm_is_the_textbook_procedure():
    # Holm (1979): the smallest times 4, then times 3, 2, 1, never below an earlier one.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_keeps_the_order_and_lies_between_the_value_and_bonferronis(values):
    corrected = holm(values)
    for p, adjusted in zip(values, corrected, strict=True):
        assert p <= adjusted <= 1.0
        assert adjusted <= max(min(1.0, len(values) * other) for other in values if other <= p)
    by_value = [adjusted for _, adjusted in sorted(zip(values, corrected, strict=True))]
    assert by_value == sorted(by_value)


def test_a_detectable_difference_is_detected_four_times_in_five():
    generator = np.random.default_rng(0)
    interval = t_interval(list(generator.normal(0.0, 1.0, 8)))
    spread = interval.error * math.sqrt(8)
    samples = generator.normal(interval.detectable, spread, (4000, 8))
    found = stats.ttest_1samp(samples, 0.0, axis=1)
    assert np.mean((found.pvalue < 0.05) & (found.statistic > 0)) == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize("predicate", [Greater((A,), (B,)), EachGreater(((A, B),)), Close((A, B), 0.1)])
def test_the_p_value_says_what_the_verdict_says(predicate):
    for shift in (-1.0, -0.2, 0.0, 0.2, 1.0):
        a = seeds(*(80 + shift + noise for noise in (0.1, -0.12, 0.05, 0.0, 0.02)))
        outcome = predicate.judge(evidence(a=a, b=seeds(80, 80.1, 79.95, 80.02, 80)))
        assert (outcome.p < 0.05) == (outcome.verdict != INCONCLUSIVE)


def test_several_comparisons_have_intervals_that_hold_together():
    cells = evidence(a=seeds(85, 86, 87.1), b=seeds(80, 82, 80.5), c=seeds(79.9, 81.3, 81.9))
    outcome = EachGreater(((A, B), (A, C))).judge(cells)
    names = [one["name"] for one in outcome.comparisons]
    assert names == ["a/top1 less b/top1", "a/top1 less c/top1"]
    wide = t_interval(paired_differences([seeds(85, 86, 87.1)], [seeds(80, 82, 80.5)]), 0.975)
    assert (outcome.comparisons[0]["low"], outcome.comparisons[0]["high"]) == (wide.low, wide.high)
