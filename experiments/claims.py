"""Claims: the sentences of a table's claims.csv, the words of their comparisons, and the tests that judge them.

    beta_2 > beta_0.8                         a cell above another; in a table of one column its row says it all
    each of a, b > none                       every cell above that one; of two lists, each above its own
    mean of */lumix > /base                   averages seed by seed; of every row of this scale, and the same rows
    mixup/eta_0.1 > each of /eta_*            above every other cell of its row
    eta_0.5 = lumix = eta_2 within 0.4        all pairs differ by less than so many points
    a/lumix - a/base = paper within 0.4       ours against the paper's own number, at paper scale only
    a > b; {c,d}_15 > e                       all of them must hold; {c,d} stands for both names

Two cells are compared seed by seed: seed k of both has the same initial weights and data order, so the differences of
the common seeds are one sample, and its mean gets a two-sided 95 % t interval. A claim of several comparisons is
*supported* only if every one holds (an intersection-union test, which needs no correction) and *contradicted* if one
of them fails with its interval widened for their number (Bonferroni). Each claim is judged by itself here; the report
corrects those of all claims of a paper together (`intervals.holm`).
"""

import csv
import itertools
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from experiments.intervals import LEVEL, Interval, paired_differences, t_interval

Cell = tuple[str, str]  # (row id, value column id) within one table
Values = Mapping[Cell, Mapping[int, float]]  # by seed
SUPPORTED, CONTRADICTED, INCONCLUSIVE, NOT_RUN = "supported", "contradicted", "inconclusive", "not run"
PAIRED = "paired t over seeds, two-sided 95 % interval"
ONE_SAMPLE = "one-sample t over seeds, two-sided 95 % interval"


@dataclass(frozen=True)
class Comparison:
    """The mean of the cells `above` exceeds that of `below`; with `within` it differs by less than so many points.

    Against the paper it is the number, or with `below` the difference, that differs from the paper's by less.
    """

    above: tuple[Cell, ...]
    below: tuple[Cell, ...]
    within: float | None = None
    paper: bool = False


@dataclass(frozen=True)
class Claim:
    """One sentence of the paper, or of ours, and the comparisons that stand for it."""

    id: str
    source: str
    register: tuple[str, ...]
    sentence: str
    comparisons: tuple[Comparison, ...]

    @property
    def cells(self) -> set[Cell]:
        """The cells that the claim speaks of."""
        return {cell for one in self.comparisons for cell in (*one.above, *one.below)}


def read_claims(path: Path, cells: Collection[Cell], column: str) -> tuple[Claim, ...]:
    """The claims in a file on a table of these cells; `column` is that of names without one, "" where there are more.

    A claim with a * that stands for no cell is one on rows that this scale does not have, and is left out.
    """
    found = []
    with path.open(newline="", encoding="utf-8") as file:
        for line in csv.DictReader(file):
            try:
                parts = [one for part in line["comparison"].split(";") for one in _parse(part.strip(), cells, column)]
            except ValueError as error:
                raise ValueError(f"{path}, {line['id']}: {error}; see experiments/claims.py") from None
            register = tuple(line["register"].split())
            found.append(Claim(line["id"], line["source"], register, line["sentence"], tuple(parts)))
    return tuple(claim for claim in found if claim.comparisons)


def _parse(text: str, cells: Collection[Cell], column: str) -> list[Comparison]:
    if match := re.fullmatch(r"(.+) within (\d+(?:\.\d+)?)", text):
        sides, limit = match[1].split(" = "), float(match[2])
        if sides[-1] == "paper":
            first, *rest = (_named(side, cells, column)[0] for side in sides[0].split(" - "))
            return [Comparison((first,), tuple(rest), limit, paper=True)]
        every = [cell for side in sides for cell in _named(side, cells, column)]
        return [Comparison((a,), (b,), limit) for a, b in itertools.combinations(every, 2)]
    left, sign, right = text.partition(" > ")
    if not sign:
        raise ValueError(f"{text!r} compares nothing")
    above = _named(left, cells, column)
    below = [cell for cell in _named(right, cells, column, above) if [cell] != above]  # others, not the cell itself
    if not above or not below:
        return []
    if "mean of " in text or len(above) == len(below) == 1:
        return [Comparison(tuple(above), tuple(below))]
    if 1 not in (len(above), len(below)) and len(above) != len(below):
        raise ValueError(f"{text!r} compares {len(above)} cells with {len(below)}, of which each needs its own")
    size = max(len(above), len(below))
    both = (side * size if len(side) == 1 else side for side in (above, below))
    return [Comparison((a,), (b,)) for a, b in zip(*both, strict=True)]


def _named(text: str, cells: Collection[Cell], column: str, beside: Sequence[Cell] = ()) -> list[Cell]:
    """The cells of one side of a comparison; a name that begins with "/" is of the rows of the cells `beside`."""
    names = re.split(r",\s*(?![^{]*\})", re.sub(r"^(each|mean) of ", "", text))
    found: list[Cell] = []
    for name in itertools.chain.from_iterable(map(_alternatives, names)):
        row, _, of = name.partition("/")
        for wanted in [row] if row else dict.fromkeys(row for row, _ in beside):
            one = (wanted, of or column)
            if not one[1]:
                raise ValueError(f"{name!r} does not say which column")
            matches = [cell for cell in cells if fnmatchcase(cell[0], one[0]) and fnmatchcase(cell[1], one[1])]
            found += matches if "*" in name else [one]
    if len(found) > 1 and not text.startswith(("each of ", "mean of ", "/")):
        raise ValueError(f"{text!r} is {len(found)} cells: say each of or mean of")
    return found


def _alternatives(name: str) -> list[str]:
    """A name with {a,b} as the names that it stands for."""
    head, brace, rest = name.partition("{")
    if not brace:
        return [name]
    inside, _, tail = rest.partition("}")
    return [head + one + end for one in inside.split(",") for end in _alternatives(tail)]


# ------------------------------------------------------------------------------------------------- verdicts


@dataclass(frozen=True)
class _Test:
    """A comparison on numbers: its p-value, and whether its mean is on the claim's side."""

    name: str
    interval: Interval
    p: float
    agrees: bool
    wide: Interval  # so that the intervals of all comparisons of the claim hold together (Bonferroni)


def judge(claim: Claim, values: Values, paper: Mapping[Cell, float], at_paper_scale: bool = False) -> dict[str, Any]:
    """The verdict on a claim with its evidence.

    Returns:
        {"verdict", "explanation", "estimate", "low", "high", "n", "test", "p", "detectable", "comparisons"}:
        "detectable" is the smallest difference that such an n and spread would show; "comparisons" has name, mean and
        bounds that hold together of each of several.
    """
    parts, of = claim.comparisons, len(claim.comparisons)
    against_paper = any(one.paper for one in parts)
    if against_paper and not at_paper_scale:
        return _outcome(NOT_RUN, "the paper's numbers are ImageNet's: compared at paper scale only")
    if missing := sorted({"/".join(cell) for cell in claim.cells if not values.get(cell)}):
        return _outcome(NOT_RUN, f"no finished run for {', '.join(missing)}")
    tests = [_test(one, values, paper, of) for one in parts]
    limit = parts[0].within
    weakest = min(tests, key=lambda one: one.interval.mean if limit is None else -abs(one.interval.mean))
    shown, test = weakest.interval, ONE_SAMPLE if against_paper else PAIRED
    if of > 1:
        test += f"; all of {of} must hold, one failure at 95 % after Bonferroni contradicts"
    known: dict[str, Any] = {"estimate": shown.mean if shown.n else None, "n": shown.n, "test": test}
    if shown.low is None and (shown.n < 2 or of == 1):
        why = (
            "at least 2 common seeds are needed for an interval"
            if shown.n < 2
            else "all differences are equal, so their spread cannot be estimated"
        )
        return _outcome(INCONCLUSIVE, f"n = {shown.n}: {why}", **known)
    against = [one.p for one in tests if not one.agrees]
    p = min(1.0, of * min(against)) if against else max(one.p for one in tests)
    verdict = INCONCLUSIVE if p >= LEVEL else CONTRADICTED if against else SUPPORTED
    if against_paper:
        text = f"ours less the paper's {shown.text} points, tolerance {limit:g}"
    elif of == 1 and limit is None:
        text = f"difference {shown.text} points over {shown.n} seeds"
    else:
        held = sum(one.agrees and one.p < LEVEL for one in tests)
        failed = sum(not one.agrees and of * one.p < LEVEL for one in tests)
        text = (
            f"{held} of {of} comparisons hold, {failed} fail; weakest: {weakest.name} {shown.text} points over "
            f"{shown.n} seeds"
        )
    several = [{"name": t.name, "mean": t.wide.mean, "low": t.wide.low, "high": t.wide.high} for t in tests if of > 1]
    known |= {"low": shown.low, "high": shown.high, "p": p, "detectable": shown.detectable, "comparisons": several}
    return _outcome(verdict, text, **known)


def _outcome(verdict: str, explanation: str, **known: Any) -> dict[str, Any]:
    nothing = {"estimate": None, "low": None, "high": None, "n": 0, "test": "", "p": None, "detectable": None}
    return {"verdict": verdict, "explanation": explanation, **nothing, "comparisons": [], **known}


def _test(one: Comparison, values: Values, paper: Mapping[Cell, float], of: int) -> _Test:
    """One comparison of `of`: against 0, or against the nearer of two limits (two one-sided tests)."""
    above, below = ([values[cell] for cell in cells] for cells in (one.above, one.below))
    differences = paired_differences(above, below or [dict.fromkeys(above[0], 0.0)])
    if one.paper:
        expected = paper[one.above[0]] - (paper[one.below[0]] if one.below else 0.0)
        differences = [difference - expected for difference in differences]
    name = " less ".join("/".join(cells[0]) for cells in (one.above, one.below) if cells)
    if not differences:
        nothing = Interval(math.nan, None, None, 0)
        return _Test(name, nothing, 1.0, False, nothing)
    interval = t_interval(differences)
    agrees = interval.mean > 0 if one.within is None else abs(interval.mean) < one.within
    p = interval.p_value(0.0 if one.within is None else math.copysign(one.within, interval.mean))
    return _Test(name, interval, p, agrees, t_interval(differences, 1 - LEVEL / of))
