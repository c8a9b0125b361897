"""Verdicts on claims: paired t tests over seeds, equivalence, and corrections for the number of tests of a paper.

Two cells are compared seed by seed: seed k of both has the same initial weights and data order, so the differences of
the seeds that all cells of a claim have are one sample. From five seeds on a claim is

    supported       its two-sided test is below 5 %, and the mean on its side; of several comparisons every one must be
    contradicted    the same on the other side; of several, one of them after Bonferroni over them
    NO_DIFFERENCE   two one-sided tests (TOST) at 5 % say that the true difference is below `MARGIN` either way

and else inconclusive. The primary claims of primary.csv, chosen before results, are corrected by Holm for each paper
and scale: at 5 % none of their differences is a wrong one, and, corrected alike, none of their equivalences. All others
are secondary, by Benjamini-Hochberg. A test that several claims make is counted once, and a primary one never again.
"""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.claims import Cell, Claim, Comparison
from experiments.intervals import LEAST, LEVEL, MARGIN, Interval, detectable, holm, paired_differences, t_interval

Values = Mapping[Cell, Mapping[int, float]]  # by seed
SUPPORTED, CONTRADICTED, INCONCLUSIVE, NOT_RUN = "supported", "contradicted", "inconclusive", "not run"
NO_DIFFERENCE = f"no difference larger than {MARGIN:g}"
VERDICTS = (SUPPORTED, CONTRADICTED, NO_DIFFERENCE, INCONCLUSIVE, NOT_RUN)  # "" where there is none
PRIMARY, SECONDARY = "primary", "secondary"
POINTS, NATS = "points", "nats"  # of accuracy or another percentage, and of cross entropy


@dataclass(frozen=True)
class Primary:
    """A question of a paper: its claim is the first of these ids that a scale has; the paper's own gain."""

    paper: str
    title: str
    claims: tuple[str, ...]
    difference: float | None


def read_primary() -> tuple[Primary, ...]:
    """The primary questions of both papers, in order."""
    with Path(__file__).with_name("primary.csv").open(newline="", encoding="utf-8") as file:
        return tuple(
            Primary(paper, title, tuple(claims.split()), float(difference) if difference else None)
            for paper, claims, title, difference in list(csv.reader(file))[1:]
        )


def judge(
    claim: Claim, values: Values, paper: Mapping[Cell, float], at_paper_scale: bool = False, unit: str = POINTS
) -> dict[str, Any]:
    """The verdict on a claim by itself, with its evidence; equivalence is one of `POINTS`, and of no other unit.

    Returns:
        "verdict" ("" below `LEAST` seeds), "explanation", and of the difference, that of several which speaks most
        against the claim: "estimate", "low", "high", "n", "error"; "p", "agrees" and "p_equal" (TOST; None for claims
        of equality and other units) of the whole claim; "paper", the paper's own difference where it prints it, and
        "excluded", whether it lies outside the interval; "comparisons" with name, mean and bounds that hold together
        of several.
    """
    parts, of = claim.comparisons, len(claim.comparisons)
    against_paper = any(one.paper for one in parts)
    if against_paper and not at_paper_scale:
        return _outcome(NOT_RUN, "the paper's numbers are ImageNet's: compared at paper scale only")
    if missing := sorted({"/".join(cell) for cell in claim.cells if not values.get(cell)}):
        return _outcome(NOT_RUN, f"no finished run for {', '.join(missing)}")
    common = set.intersection(*(set(values[cell]) for cell in claim.cells))
    if not common:
        return _outcome("", "n = 0: its cells have no seed in common")
    shared = {cell: {seed: values[cell][seed] for seed in common} for cell in claim.cells}
    tests = [_test(one, shared, paper, of) for one in parts]
    limit, n = parts[0].within, len(common)
    weakest = min(tests, key=lambda one: one["mean"] if limit is None else -abs(one["mean"]))
    shown: Interval = weakest["interval"]
    what = "difference" if of == 1 else f"of {of} differences the one most against it, {weakest['name']}:"
    what = "ours less the paper's" if against_paper else what
    text = f"{what} {shown.text} {unit} over {n} seeds" + ("" if limit is None else f", tolerance {limit:g}")
    several = [{name: one[name] for name in ("name", "mean", "low", "high")} for one in tests if of > 1]
    own = _of_the_paper(parts[0], paper) if of == 1 and limit is None else None
    known: dict[str, Any] = {"estimate": shown.mean, "n": n, "comparisons": several, "paper": own}
    if n < LEAST:
        alone = "; McNemar's test over test images: not run, predictions are not stored" if n == 1 else ""
        return _outcome("", f"{text}: no interval and no verdict below {LEAST} seeds{alone}", **known)
    if shown.error is None and of == 1:
        return _outcome(INCONCLUSIVE, f"{text}: all are equal, so that their spread cannot be estimated", **known)
    against = [one["p"] for one in tests if not one["agrees"]]
    p = min(1.0, of * min(against)) if against else max(one["p"] for one in tests)
    equal = max(one["p_equal"] for one in tests) if limit is None and unit == POINTS else None
    known |= {"low": shown.low, "high": shown.high, "error": shown.error, "p": p, "agrees": not against}
    known |= {"p_equal": equal, "excluded": is_excluded({**known, "p": p})}
    return _outcome(_verdict(p, not against, equal), text, **known)


def _outcome(verdict: str, explanation: str, **known: Any) -> dict[str, Any]:
    names = ("estimate", "low", "high", "error", "p", "agrees", "p_equal", "paper", "excluded")
    return {"verdict": verdict, "explanation": explanation, **dict.fromkeys(names), "n": 0, "comparisons": [], **known}


def _verdict(p: float, agrees: bool, equal: float | None) -> str:
    if p < LEVEL:
        return SUPPORTED if agrees else CONTRADICTED
    return NO_DIFFERENCE if equal is not None and equal < LEVEL else INCONCLUSIVE


def is_excluded(claim: Mapping[str, Any]) -> bool | None:
    """Whether the paper's own difference lies outside the interval of a judged claim."""
    known = claim["p"] is not None and claim["paper"] is not None and claim["low"] is not None
    return not claim["low"] <= claim["paper"] <= claim["high"] if known else None


def _of_the_paper(one: Comparison, paper: Mapping[Cell, float]) -> float | None:
    """The paper's own value of a comparison of its printed cells."""
    if not {*one.above, *one.below} <= paper.keys():
        return None
    means = [math.fsum(paper[cell] for cell in cells) / len(cells) for cells in (one.above, one.below)]
    return round(one.times * (means[0] - means[1]), 4)


def _test(one: Comparison, values: Values, paper: Mapping[Cell, float], of: int) -> dict[str, Any]:
    """One comparison of `of`: against 0, or against the nearer of two limits (TOST); whether its mean is on its side.

    "low" and "high" hold together with those of all comparisons of the claim (Bonferroni).
    """
    above, below = ([values[cell] for cell in cells] for cells in (one.above, one.below))
    differences = [one.times * d for d in paired_differences(above, below or [dict.fromkeys(above[0], 0.0)])]
    if one.paper:
        expected = paper[one.above[0]] - (paper[one.below[0]] if one.below else 0.0)
        differences = [difference - expected for difference in differences]
    name = " less ".join("/".join(cells[0]) for cells in (one.above, one.below) if cells)
    found, wide = t_interval(differences), t_interval(differences, 1 - LEVEL / of)
    known = {"name": name, "mean": found.mean, "low": wide.low, "high": wide.high, "interval": found}
    if one.within is None:
        return {**known, "p": found.p_value(), "agrees": found.mean > 0, "p_equal": found.p_within(MARGIN)}
    agrees, beyond = abs(found.mean) < one.within, found.p_value(math.copysign(one.within, found.mean))
    return {**known, "p": found.p_within(one.within) if agrees else beyond, "agrees": agrees}


# ------------------------------------------------------------------------------------------------- all of a paper

ADDED = ("family", "of", "corrected", "corrected_equal", "counted", "detectable")


def correct(families: Sequence[tuple[str, Sequence[dict[str, Any]]]]) -> None:
    """Replace the verdicts of judged claims by corrected ones, family by family: its kind and claims, primary first.

    Claims of one "signature" are one test, which the first family with it counts. Adds "alone", the verdict before;
    "family"; "corrected" and "corrected_equal", the p-values; "of", the tests of the family; "detectable", the
    smallest difference that such an n and spread would show to the verdict's own test; "counted", whose test it is.
    """
    from scipy.stats import false_discovery_control  # late, as in intervals.py

    counted: dict[str, dict[str, Any]] = {}
    for kind, claims in families:
        judged = [claim for claim in claims if claim["p"] is not None]
        new = list({one["signature"]: one for one in reversed(judged) if one["signature"] not in counted}.values())
        for claim in new:
            claim |= {"family": kind, "of": len(new), "counted": claim["id"], "corrected_equal": None}
        for name, corrected in (("p", "corrected"), ("p_equal", "corrected_equal")):
            asked = [claim for claim in new if claim[name] is not None]
            p = [claim[name] for claim in asked]
            for claim, value in zip(asked, holm(p) if kind == PRIMARY else false_discovery_control(p), strict=True):
                claim[corrected] = float(value)
        found = sum(one["corrected"] < LEVEL for one in new)
        # The level of the next test to be rejected; that of Benjamini-Hochberg is the one that the last was held to.
        level = LEVEL / max(len(new) - found, 1) if kind == PRIMARY else LEVEL * max(found, 1) / max(len(new), 1)
        for claim in new:
            seen = claim["error"] is not None and claim["p_equal"] is not None
            claim["detectable"] = detectable(claim["error"], claim["n"], level) if seen else None
            counted[claim["signature"]] = claim
        for claim in judged:
            claim |= {name: counted[claim["signature"]][name] for name in ADDED} | {"alone": claim["verdict"]}
            claim["verdict"] = _verdict(claim["corrected"], claim["agrees"], claim["corrected_equal"])
