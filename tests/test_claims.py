"""Claims on hand-made numbers: words as comparisons, statistics against scipy, verdicts, families of tests."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from experiments.claims import Claim, Comparison, _parse, read_claims
from experiments.intervals import LEAST, MARGIN, detectable, holm, paired_differences, t_interval
from experiments.registry import get_table, tables_of
from experiments.results import read_results
from experiments.scale import get_scale
from experiments.terminal import results_table
from experiments.verdicts import NATS, PRIMARY, SECONDARY, VERDICTS, correct, judge, read_primary

SUPPORTED, CONTRADICTED, NO_DIFFERENCE, INCONCLUSIVE, NOT_RUN = VERDICTS
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


def test_half_a_point_is_no_margin_for_a_cross_entropy():
    comparison = _parse("a > b", [], "t")
    values = {("a", "t"): seeds(2.41, 2.43, 2.42, 2.4, 2.42), ("b", "t"): seeds(2.42, 2.42, 2.41, 2.41, 2.42)}
    found = judge(Claim("id", "", (), "", tuple(comparison)), values, {}, unit=NATS)
    assert (found["verdict"], found["p_equal"]) == (INCONCLUSIVE, None)
    assert "nats over 5 seeds" in found["explanation"]
    assert judge(Claim("id", "", (), "", tuple(comparison)), values, {})["verdict"] == NO_DIFFERENCE


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
        ("a - b > c - x_1", ["a/one x_1/one b/one c/one"]),
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
    [("a b", "compares nothing"), ("a, b > c", "each of or"), ("each of a, b, c > each of x_*", "3 cells with 2")],
)
def test_other_words_are_refused_with_their_place(tmp_path, text, message):
    with pytest.raises(ValueError, match=rf"claims.csv, 0: .*{message}"):
        claims_of(tmp_path, text)
    with pytest.raises(ValueError, match="does not say which column"):
        claims_of(tmp_path, "a > b", column="")


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), min_size=1, max_size=12))
def test_intervals_and_tests_are_scipys_and_silent_below_five(pairs):
    a, b = [x for x, _ in pairs], [y for _, y in pairs]
    differences = paired_differences([{**seeds(*a), 99: 1.0}], [seeds(*b)])  # of the common seeds
    found = t_interval(differences)
    if len(pairs) < LEAST or max(differences) - min(differences) < 1e-9:
        assert (found.low, found.high, found.error) == (None, None, None)
        assert (found.p_value(), found.p_within(MARGIN)) == (1.0, 1.0)
        return
    expected = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-6)
    below = stats.ttest_1samp(differences, MARGIN, alternative="less").pvalue
    above = stats.ttest_1samp(differences, -MARGIN, alternative="greater").pvalue
    assert found.p_within(MARGIN) == pytest.approx(max(below, above), abs=1e-9)


@given(st.lists(st.floats(0, 1), max_size=20))
def test_holm_keeps_the_order_and_lies_between_the_value_and_bonferronis(values):
    corrected = holm(values)
    for p, adjusted in zip(values, corrected, strict=True):
        assert p <= adjusted <= max(min(1.0, len(values) * other) for other in values if other <= p)
    by_value = [adjusted for _, adjusted in sorted(zip(values, corrected, strict=True))]
    assert by_value == sorted(by_value)
    # Holm (1979): the smallest times 4, then times 3, 2, 1, never below an earlier one.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert t_interval([0.6, 0.49, 0.05, -0.16, 0.16, -0.33]).text.startswith("+0.14 [")  # 0.13499999999999998


@pytest.mark.parametrize("level", [0.05, 0.05 / 3])
def test_a_detectable_difference_is_detected_four_times_in_five(level):
    generator = np.random.default_rng(0)
    error = t_interval(list(generator.normal(0.0, 1.0, 8))).error
    samples = generator.normal(detectable(error, 8, level), error * math.sqrt(8), (4000, 8))
    found = stats.ttest_1samp(samples, 0.0, axis=1)
    assert np.mean((found.pvalue < level) & (found.statistic > 0)) == pytest.approx(0.8, abs=0.03)


BASE = seeds(80.0, 81.0, 82.0, 81.5, 80.3)
STRONG, WEAK, LOW = seeds(85, 86, 87.1, 86.2, 85.4), seeds(80, 82, 80.5, 81, 81.2), seeds(79.9, 81.3, 81.9, 80.7, 81.5)


def off(*differences):
    """BASE and so much more, seed by seed."""
    return {seed: BASE[seed] + d for seed, d in enumerate(differences)}


@pytest.mark.parametrize(
    ("text", "cells", "verdict"),
    [
        ("a > b", {"a": off(1, 1.5, 2, 1.2, 0.9), "b": BASE}, SUPPORTED),
        ("a > b", {"a": off(-2, -1.5, -2, -1, -1.7), "b": BASE}, CONTRADICTED),
        ("a > b", {"a": off(-1, 1, 0.5, -0.8, 0.9), "b": BASE}, INCONCLUSIVE),
        ("a > b", {"a": off(0.1, -0.1, 0.2, -0.1, 0), "b": BASE}, NO_DIFFERENCE),
        ("a > b", {"a": off(0.1, 0.11, 0.12, 0.1, 0.1), "b": BASE}, SUPPORTED),  # small, and told from zero
        ("a > each of b, c", {"a": STRONG, "b": WEAK, "c": LOW}, SUPPORTED),
        ("each of a, b > c", {"a": STRONG, "b": WEAK, "c": LOW}, INCONCLUSIVE),
        ("a > b; c > a", {"a": STRONG, "b": WEAK, "c": LOW}, CONTRADICTED),
        ("a - b > c - b", {"a": STRONG, "b": BASE, "c": LOW}, SUPPORTED),
        ("a = b within 0.1", {"a": BASE, "b": off(0.02, 0.0, 0.03, 0.0, 0.01)}, SUPPORTED),
        ("a = b within 0.1", {"a": BASE, "b": off(1, -1, 1, -1, 0)}, INCONCLUSIVE),
        ("a = b within 0.1", {"a": BASE, "b": off(5, 5.1, 5, 4.5, 5)}, CONTRADICTED),
        ("a = paper within 0.4", {"a": seeds(80.6, 80.5, 80.55, 80.6, 80.7)}, SUPPORTED),
        ("a = paper within 0.4", {"a": seeds(78.0, 78.2, 78.1, 78, 78.3)}, CONTRADICTED),
        ("a - b = paper within 0.4", {"a": off(0.8, 0.9, 0.72, 0.8, 0.7), "b": BASE}, SUPPORTED),
    ],
)
def test_verdicts(text, cells, verdict):
    outcome = judged(text, paper_scale=True, **cells)
    assert outcome["verdict"] == verdict
    assert (outcome["p"] < 0.05) == (verdict in (SUPPORTED, CONTRADICTED))
    assert outcome["low"] < outcome["estimate"] < outcome["high"]
    if "paper" in text:
        assert judged(text, **cells)["verdict"] == NOT_RUN
    elif text == "a > b":  # the paper's difference is 0.8
        assert outcome["excluded"] == (not outcome["low"] <= 0.8 <= outcome["high"])


def test_means_are_of_cells_seed_by_seed_and_gains_are_differences_of_them():
    cells = {"a": seeds(82, 83, 84), "b": seeds(80, 81, 82.1), "c": seeds(82, 83, 84.1)}
    outcome = judged("a > mean of b, c", **cells)
    assert (outcome["estimate"], outcome["n"]) == (pytest.approx((1 + 1 + 0.9) / 3), 3)
    assert judged("a - b > c - b", **cells)["estimate"] == pytest.approx(-0.1 / 3)


@pytest.mark.parametrize("text", ["a > b", "a > each of b, b", "a = b within 5"])
def test_thin_evidence_is_no_verdict(text):
    missing = judged(text, a=seeds(80, 81))
    assert (missing["verdict"], missing["explanation"]) == (NOT_RUN, "no finished run for b/t")
    for n in range(LEAST):
        few = judged(text, a=STRONG, b={seed: WEAK[seed] for seed in range(n)} or {9: 80.0})
        assert (few["verdict"], few["n"], few["low"], few["p"]) == ("", n, None, None)
    assert "McNemar's test over test images: not run" in judged(text, a=seeds(82), b=seeds(80))["explanation"]
    if "each" not in text:
        constant = judged(text, a=off(2, 2, 2, 2, 2), b=BASE)
        assert (constant["verdict"], constant["estimate"], constant["low"]) == (INCONCLUSIVE, pytest.approx(2.0), None)


def test_several_comparisons_share_seeds_have_intervals_that_hold_together_and_contradict_after_correction():
    outcome = judged("a > each of b, c", a={**STRONG, 5: 0.0}, b={**WEAK, 5: 99.0}, c=LOW)
    assert [one["name"] for one in outcome["comparisons"]] == ["a/t less b/t", "a/t less c/t"]
    wide = t_interval(paired_differences([STRONG], [WEAK]), 0.975)
    assert (outcome["comparisons"][0]["low"], outcome["comparisons"][0]["high"]) == (wide.low, wide.high)
    differences = [-1.0, -0.2, -0.9, -0.4, -0.1]
    assert 0.01 < stats.ttest_1samp(differences, 0).pvalue < 0.05  # enough alone, not as one of five
    cells = {"a": off(*differences), "b": BASE, "c": off(9, 9.5, 9.2, 9, 9.1)}
    assert judged("a > b", **cells)["verdict"] == CONTRADICTED
    assert judged("a > b; c > b; c > a; c > b; c > a", **cells)["verdict"] == INCONCLUSIVE


def family(generator, effects):
    """Judged claims on ten seeds each whose true differences are the effects, in points of spread 0.4."""
    claims = []
    for i, effect in enumerate(effects):
        outcome = judged("a > b", a=dict(enumerate(generator.normal(effect, 0.4, 10))), b=dict.fromkeys(range(10), 0.0))
        claims.append({"id": f"c{i}", "signature": f"s{i}", **outcome})
    return claims


@pytest.mark.parametrize(
    ("kind", "effects"), [(PRIMARY, (0.0, 0.0, 0.0)), (SECONDARY, (0.0,) * 12), (PRIMARY, (0.5,) * 3)]
)
def test_a_family_is_rarely_wrong(kind, effects):
    """Differences where there are none, and no difference where it is as large as the margin: 5 % of families."""
    generator, draws, wrong = np.random.default_rng(1), 200, 0
    for _ in range(draws):
        claims = family(generator, effects)
        correct([(kind, claims)])
        bad = {CONTRADICTED, NO_DIFFERENCE} if any(effects) else {SUPPORTED, CONTRADICTED}
        wrong += any(claim["verdict"] in bad for claim in claims)
    assert wrong / draws < 0.05 + 2 * math.sqrt(0.05 * 0.95 / draws)


def test_one_test_is_counted_once_and_in_the_first_family():
    claims = family(np.random.default_rng(2), (1.0, 0.0, 0.3))
    first, *others = claims
    again = {**first, "id": "again"}
    correct([(PRIMARY, [first]), (SECONDARY, [again, *others])])
    assert (again["counted"], again["family"], again["of"], again["corrected"]) == ("c0", PRIMARY, 1, first["p"])
    assert [claim["of"] for claim in others] == [2, 2]
    assert [claim["corrected"] for claim in others] == pytest.approx(
        stats.false_discovery_control([claim["p"] for claim in others])
    )


def test_primary_questions_are_claims_and_have_the_papers_numbers():
    scales = [get_scale(name) for name in ("paper", "small", "small_earlier")]
    claims = {claim.id for scale in scales for table in tables_of(scale) for claim in table.claims}
    names = ("lumix_table01_models", "dm_table08_limited_labels")
    models, limited = (get_table(name, scales[0]).paper for name in names)
    printed = [models["deit_s", "lumix"] - models["deit_s", "base"], None, None]
    printed += [limited[f"{row}_15", "dm_ce"] - limited[f"{row}_15", "mce"] for row in ("mixup", "cutmix", "puzzlemix")]
    for one, value in zip(read_primary(), printed, strict=True):
        assert set(one.claims) <= claims
        assert one.difference == (value and pytest.approx(value))


def test_a_scale_that_judges_nothing_says_what_it_exercises_in_place_of_verdicts():
    mini, table = get_scale("mini"), "lumix_controls"
    record = read_results(Path(__file__).parent.parent, mini, [table]).records[table]
    text = results_table(record)
    assert mini.exercises in text
    assert not any(verdict in text for verdict in VERDICTS if verdict != NOT_RUN)
    assert {claim["verdict"] for claim in record["claims"]} == {""}
