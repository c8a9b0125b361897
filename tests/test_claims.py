"""Claims on hand-made numbers: words read as comparisons, intervals checked by hand, every verdict reached."""

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
    Claim,
    Comparison,
    _parse,
    judge,
    read_claims,
)
from experiments.intervals import holm, paired_differences, t_interval

CELLS = [(row, column) for row in ("a", "b", "c", "x_1", "x_2") for column in ("one", "two", "three")]


def seeds(*values):
    return dict(enumerate(values))


def claims_of(folder, *comparisons, cells=CELLS, column="one"):
    lines = [f'{i},Table 1,I-1 I-2,"{comparison}",It is so' for i, comparison in enumerate(comparisons)]
    path = folder / "claims.csv"
    path.write_text("\n".join(["id,source,register,comparison,sentence", *lines]) + "\n")
    return read_claims(path, cells, column)


def judged(text, paper_scale=False, **cells):
    """The verdict on a comparison of rows of one column."""
    parts = tuple(one for part in text.split("; ") for one in _parse(part, [], "t"))
    values = {(row, "t"): value for row, value in cells.items()}
    return judge(Claim("id", "", (), "", parts), values, {("a", "t"): 80.6, ("b", "t"): 79.8}, paper_scale)


# ------------------------------------------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("a > b", ["a/one b/one"]),
        ("a/two > b/three", ["a/two b/three"]),
        ("each of a, b > c", ["a/one c/one", "b/one c/one"]),
        ("a > each of b, c", ["a/one b/one", "a/one c/one"]),
        ("each of x_*/two > /one", ["x_1/two x_1/one", "x_2/two x_2/one"]),
        ("each of a, b > each of b, c", ["a/one b/one", "b/one c/one"]),
        ("a/two > each of /*", ["a/two a/one", "a/two a/three"]),
        ("each of x_{1,2}/two > each of {a,b}/two", ["x_1/two a/two", "x_2/two b/two"]),
        ("a > b; b/two > c/two", ["a/one b/one", "b/two c/two"]),
        ("a = b = c within 0.4", ["a/one b/one", "a/one c/one", "b/one c/one"]),
    ],
)
def test_words_are_pairs_of_cells(tmp_path, text, pairs):
    (claim,) = claims_of(tmp_path, text)
    assert [" ".join("/".join(cell) for cell in (*one.above, *one.below)) for one in claim.comparisons] == pairs
    assert {one.within for one in claim.comparisons} == {0.4 if "within" in text else None}
    assert (claim.id, claim.source, claim.register, claim.sentence) == ("0", "Table 1", ("I-1", "I-2"), "It is so")


def test_means_and_the_paper_are_one_comparison(tmp_path):
    mean, paper, gain = claims_of(
        tmp_path, "mean of x_*/two > /one", "a = paper within 0.5", "a/two - b/two = paper within 1"
    )
    assert mean.comparisons == (Comparison((CELLS[10], CELLS[13]), (CELLS[9], CELLS[12])),)
    assert paper.comparisons == (Comparison((CELLS[0],), (), 0.5, paper=True),)
    assert gain.comparisons == (Comparison((CELLS[1],), (CELLS[4],), 1.0, paper=True),)


def test_a_claim_on_rows_that_a_scale_lacks_is_left_out(tmp_path):
    assert claims_of(tmp_path, "mean of y_*/one > /two") == ()
    (claim,) = claims_of(tmp_path, "each of x_{1,2,3}*/two > /one")
    assert len(claim.comparisons) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a b", "compares nothing"),
        ("a, b > c", "each of or mean of"),
        ("each of a, b, c > each of x_*", "3 cells with 2"),
    ],
)
def test_other_words_are_refused_with_their_place(tmp_path, text, message):
    with pytest.raises(ValueError, match=rf"claims.csv, 0: .*{message}"):
        claims_of(tmp_path, text)
    with pytest.raises(ValueError, match="does not say which column"):
        claims_of(tmp_path, "a > b", column="")


# ------------------------------------------------------------------------------------------------- intervals


def test_interval_is_the_textbook_formula():
    differences = [0.3, 0.9, 0.6, 1.4]
    mean = sum(differences) / 4
    deviation = math.sqrt(sum((d - mean) ** 2 for d in differences) / 3)
    half = 3.182446305284263 * deviation / 2  # the 97.5 % point of Student's t with 3 degrees of freedom
    interval = t_interval(differences)
    assert (interval.mean, interval.low, interval.high) == pytest.approx((mean, mean - half, mean + half))


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


@given(st.lists(st.floats(0, 1), max_size=20))
def test_holm_keeps_the_order_and_lies_between_the_value_and_bonferronis(values):
    corrected = holm(values)
    for p, adjusted in zip(values, corrected, strict=True):
        assert p <= adjusted <= max(min(1.0, len(values) * other) for other in values if other <= p)
    by_value = [adjusted for _, adjusted in sorted(zip(values, corrected, strict=True))]
    assert by_value == sorted(by_value)
    # Holm (1979): the smallest times 4, then times 3, 2, 1, never below an earlier one.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_a_detectable_difference_is_detected_four_times_in_five():
    generator = np.random.default_rng(0)
    interval = t_interval(list(generator.normal(0.0, 1.0, 8)))
    samples = generator.normal(interval.detectable, interval.error * math.sqrt(8), (4000, 8))
    found = stats.ttest_1samp(samples, 0.0, axis=1)
    assert np.mean((found.pvalue < 0.05) & (found.statistic > 0)) == pytest.approx(0.8, abs=0.03)


# ------------------------------------------------------------------------------------------------- verdicts

STRONG, WEAK, LOW = seeds(85, 86, 87.1), seeds(80, 82, 80.5), seeds(79.9, 81.3, 81.9)
BASE = seeds(80.0, 81.0, 82.0, 81.5)


@pytest.mark.parametrize(
    ("text", "cells", "verdict"),
    [
        ("a > b", {"a": seeds(81, 82, 83.5), "b": seeds(80, 80.5, 81.5)}, SUPPORTED),
        ("a > b", {"a": seeds(78, 79, 79.5), "b": seeds(80, 80.5, 81.5)}, CONTRADICTED),
        ("a > b", {"a": seeds(79, 82, 80.5), "b": seeds(80, 80.5, 81.5)}, INCONCLUSIVE),
        ("a > each of b, c", {"a": STRONG, "b": WEAK, "c": LOW}, SUPPORTED),
        ("each of a, b > c", {"a": STRONG, "b": WEAK, "c": LOW}, INCONCLUSIVE),
        ("a > b; c > a", {"a": STRONG, "b": WEAK, "c": LOW}, CONTRADICTED),
        ("a = b within 0.1", {"a": BASE, "b": seeds(80.02, 81.0, 82.03, 81.5)}, SUPPORTED),
        ("a = b within 0.1", {"a": seeds(80.0, 83.0), "b": seeds(81.0, 82.0)}, INCONCLUSIVE),
        ("a = b within 0.1", {"a": BASE, "b": seeds(85.0, 86.1, 87.0, 86)}, CONTRADICTED),
        ("a = paper within 0.4", {"a": seeds(80.6, 80.5, 80.55)}, SUPPORTED),
        ("a = paper within 0.4", {"a": seeds(78.0, 78.2, 78.1)}, CONTRADICTED),
        ("a = paper within 0.4", {"a": seeds(80.6)}, INCONCLUSIVE),
        ("a - b = paper within 0.4", {"a": seeds(78.8, 79.0, 78.92), "b": seeds(78.0, 78.1, 78.2)}, SUPPORTED),
    ],
)
def test_verdicts(text, cells, verdict):
    outcome = judged(text, paper_scale=True, **cells)
    assert outcome["verdict"] == verdict
    if outcome["p"] is not None:
        assert (outcome["p"] < 0.05) == (verdict != INCONCLUSIVE)
        assert outcome["low"] < outcome["estimate"] < outcome["high"]
    if "paper" in text:
        assert judged(text, **cells)["verdict"] == NOT_RUN


def test_means_are_of_cells_seed_by_seed():
    outcome = judged("a > mean of b, c", a=seeds(82, 83, 84), b=seeds(80, 81, 82.1), c=seeds(82, 83, 84.1))
    assert (outcome["estimate"], outcome["n"]) == (pytest.approx((1 + 1 + 0.9) / 3), 3)


@pytest.mark.parametrize("text", ["a > b", "a > each of b, b", "a = b within 5"])
def test_thin_evidence_is_no_verdict(text):
    missing = judged(text, a=seeds(80, 81))
    assert (missing["verdict"], missing["explanation"]) == (NOT_RUN, "no finished run for b/t")
    single, disjoint = judged(text, a=seeds(82), b=seeds(80)), judged(text, a={0: 82.0}, b={1: 80.0})
    assert (single["verdict"], single["n"]) == (INCONCLUSIVE, 1)
    assert (disjoint["verdict"], disjoint["n"], disjoint["estimate"]) == (INCONCLUSIVE, 0, None)
    if "each" not in text:
        constant = judged(text, a=seeds(82, 83, 84), b=seeds(80, 81, 82))
        assert (constant["verdict"], constant["estimate"], constant["low"]) == (INCONCLUSIVE, 2.0, None)


def test_one_of_several_contradicts_only_after_correction():
    differences = [-1.0, -0.2, -0.9, -0.5]
    assert 0.01 < stats.ttest_1samp(differences, 0).pvalue < 0.05  # enough alone, not as one of five
    cells = {"a": seeds(*differences), "b": seeds(0.0, 0.0, 0.0, 0.0), "c": seeds(5.0, 6.0, 5.5, 5.2)}
    assert judged("a > b", **cells)["verdict"] == CONTRADICTED
    assert judged("a > b; c > b; c > a; c > b; c > a", **cells)["verdict"] == INCONCLUSIVE


def test_several_comparisons_are_named_and_have_intervals_that_hold_together():
    outcome = judged("a > each of b, c", a=STRONG, b=WEAK, c=LOW)
    assert [one["name"] for one in outcome["comparisons"]] == ["a/t less b/t", "a/t less c/t"]
    wide = t_interval(paired_differences([STRONG], [WEAK]), 0.975)
    assert (outcome["comparisons"][0]["low"], outcome["comparisons"][0]["high"]) == (wide.low, wide.high)
    partial = judged("each of a, b > c", a=STRONG, b=WEAK, c=LOW)
    assert "1 of 2 comparisons hold" in partial["explanation"]
    assert "b/t less c/t" in partial["explanation"]
