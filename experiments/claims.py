"""Claims and the tests that judge them: paired over seeds, 95 % t intervals from scipy, verdicts with estimate and n.

Two cells are compared seed by seed: seed k of both has the same initial weights and data order, so the differences of
the common seeds are one sample, and its mean gets a two-sided 95 % t interval. A claim about several comparisons at
once is *supported* only if every one holds (an intersection-union test, which needs no correction) and *contradicted*
if one of them fails with its interval widened for the number of comparisons (Bonferroni). Here each claim is judged by
itself and gets a p-value; the report corrects those of all claims of a paper together (`intervals.holm`).
"""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any, Protocol

from experiments.intervals import LEVEL, Interval, paired_differences, t_interval

Cell = tuple[str, str]  # (row id, value column id) within one table
SUPPORTED, CONTRADICTED, INCONCLUSIVE, NOT_RUN = "supported", "contradicted", "inconclusive", "not run"
PAIRED = "paired t over seeds, two-sided 95 % interval"


@dataclass(frozen=True)
class Evidence:
    """What a predicate may look at: accuracies by cell and seed, the paper's cells, and the scale."""

    values: Mapping[Cell, Mapping[int, float]]
    paper: Mapping[Cell, float]
    at_paper_scale: bool = False


@dataclass(frozen=True)
class Outcome:
    """A verdict with its evidence."""

    verdict: str
    explanation: str
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    test: str = ""
    p: float | None = None
    detectable: float | None = None  # the smallest difference that such an n and spread would show
    comparisons: tuple[dict[str, Any], ...] = ()  # of several: name, mean, and bounds that hold together

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Predicate(Protocol):
    def judge(self, evidence: Evidence) -> Outcome: ...


@dataclass(frozen=True)
class Claim:
    """One sentence of the paper (or of ours) and the predicate that stands for it."""

    id: str
    text: str
    source: str
    register: tuple[str, ...]
    predicate: Predicate

    @property
    def cells(self) -> set[Cell]:
        """The cells that the claim speaks of."""
        return _cells_in(self.predicate)


def _cells_in(value: Any) -> set[Cell]:
    """Every (row, column) within a predicate, however deep."""
    if isinstance(value, tuple) and len(value) == 2 and all(isinstance(part, str) for part in value):
        return {value}
    parts = vars(value).values() if is_dataclass(value) else value if isinstance(value, tuple) else ()
    return set().union(*map(_cells_in, parts))


def _missing(evidence: Evidence, cells: Iterable[Cell]) -> Outcome | None:
    missing = sorted({f"{row}/{column}" for row, column in cells if not evidence.values.get((row, column))})
    return Outcome(NOT_RUN, f"no finished run for {', '.join(missing)}") if missing else None


@dataclass(frozen=True)
class Comparison:
    """One difference that a claim speaks of: its p-value, and whether its mean is on the claim's side."""

    name: str
    interval: Interval
    p: float
    agrees: bool
    simultaneous: Interval  # wide enough that those of all comparisons of the claim hold together (Bonferroni)

    @property
    def bounds(self) -> dict[str, Any]:
        """As it is recorded."""
        return {"mean": self.simultaneous.mean, "low": self.simultaneous.low, "high": self.simultaneous.high}


def _compare(
    evidence: Evidence, name: str, above: Sequence[Cell], below: Sequence[Cell], threshold: float, of: int
) -> Comparison:
    """Whether the mean of `above` exceeds that of `below` by more than the threshold, as one comparison `of` many."""
    values = evidence.values
    differences = paired_differences([values[c] for c in above], [values[c] for c in below])
    return _comparison(name, differences, lambda mean: (threshold, mean > threshold), of)


def _comparison(
    name: str, differences: list[float], side: Callable[[float], tuple[float, bool]], of: int
) -> Comparison:
    """`side` says of a mean against which threshold it is tested and whether it agrees with the claim."""
    if not differences:
        none = Interval(math.nan, None, None, 0)
        return Comparison(name, none, 1.0, False, none)
    interval = t_interval(differences)
    threshold, agrees = side(interval.mean)
    return Comparison(name, interval, interval.p_value(threshold), agrees, t_interval(differences, 1 - LEVEL / of))


def _within(limit: float) -> Callable[[float], tuple[float, bool]]:
    """Of a mean: the nearer limit of [-limit, limit], and whether it lies within (two one-sided tests)."""
    return lambda mean: (math.copysign(limit, mean), abs(mean) < limit)


def _outcome(comparisons: Sequence[Comparison], weakest: int, test: str, text: str) -> Outcome:
    """All comparisons must agree; one that does not, at 5 % for all that do not, contradicts."""
    shown = comparisons[weakest].interval
    estimate = shown.mean if shown.n else None
    if shown.low is None:
        short = shown.n < 2
        why = (
            "at least 2 common seeds are needed for an interval"
            if short
            else ("all differences are equal, so their spread cannot be estimated")
        )
        if short or len(comparisons) == 1:
            return Outcome(INCONCLUSIVE, f"n = {shown.n}: {why}", estimate, None, None, shown.n, test)
    agree = all(one.agrees for one in comparisons)
    against = [one.p for one in comparisons if not one.agrees]
    p = max(one.p for one in comparisons) if agree else min(1.0, len(comparisons) * min(against))
    verdict = INCONCLUSIVE if p >= LEVEL else SUPPORTED if agree else CONTRADICTED
    several = tuple({"name": one.name, **one.bounds} for one in comparisons) if len(comparisons) > 1 else ()
    return Outcome(verdict, text, estimate, shown.low, shown.high, shown.n, test, p, shown.detectable, several)


@dataclass(frozen=True)
class Greater:
    """The cells `above` exceed the cells `below` by more than `margin` points; several are averaged seed by seed."""

    above: tuple[Cell, ...]
    below: tuple[Cell, ...]
    margin: float = 0.0

    def judge(self, evidence: Evidence) -> Outcome:
        if missing := _missing(evidence, (*self.above, *self.below)):
            return missing
        one = _compare(evidence, "", self.above, self.below, self.margin, 1)
        text = f"difference {one.interval.text} points over {one.interval.n} seeds"
        return _outcome([one], 0, PAIRED, text)


@dataclass(frozen=True)
class EachGreater:
    """In every pair (above, below) the first cell exceeds the second."""

    pairs: tuple[tuple[Cell, Cell], ...]

    def judge(self, evidence: Evidence) -> Outcome:
        if missing := _missing(evidence, (cell for pair in self.pairs for cell in pair)):
            return missing
        of = len(self.pairs)
        found = [_compare(evidence, _named(a, b), (a,), (b,), 0.0, of) for a, b in self.pairs]
        return _all(found, min(range(of), key=lambda place: found[place].interval.mean))


@dataclass(frozen=True)
class Close:
    """All pairs of cells differ by at most `tolerance` points (equivalence: the whole interval lies within)."""

    cells: tuple[Cell, ...]
    tolerance: float

    def judge(self, evidence: Evidence) -> Outcome:
        if missing := _missing(evidence, self.cells):
            return missing
        pairs, values = list(itertools.combinations(self.cells, 2)), evidence.values
        found = [
            _comparison(_named(a, b), paired_differences([values[a]], [values[b]]), _within(self.tolerance), len(pairs))
            for a, b in pairs
        ]
        return _all(found, max(range(len(pairs)), key=lambda place: abs(found[place].interval.mean)))


@dataclass(frozen=True)
class WithinPaper:
    """The cell, or its difference to the cell `to`, lies within `tolerance` points of the paper's. Paper scale only."""

    cell: Cell
    tolerance: float
    to: Cell | None = None

    def judge(self, evidence: Evidence) -> Outcome:
        if not evidence.at_paper_scale:
            return Outcome(NOT_RUN, "the paper's numbers are ImageNet's: compared at paper scale only")
        cells = (self.cell,) if self.to is None else (self.cell, self.to)
        if missing := _missing(evidence, cells):
            return missing
        values, paper = evidence.values[self.cell], evidence.paper[self.cell]
        if self.to is None:
            differences = [value - paper for _, value in sorted(values.items())]
        else:
            expected = paper - evidence.paper[self.to]
            differences = [d - expected for d in paired_differences([values], [evidence.values[self.to]])]
        one = _comparison("", differences, _within(self.tolerance), 1)
        text = f"ours less the paper's {one.interval.text} points, tolerance {self.tolerance:g}"
        return _outcome([one], 0, "one-sample t over seeds, two-sided 95 % interval", text)


def ordered(*cells: Cell) -> EachGreater:
    """The cells grow from first to last."""
    return EachGreater(tuple((above, below) for below, above in itertools.pairwise(cells)))


def _named(above: Cell, below: Cell) -> str:
    return f"{'/'.join(above)} less {'/'.join(below)}"


def _all(found: Sequence[Comparison], weakest: int) -> Outcome:
    """The outcome of several comparisons; the estimate shown is the weakest one's."""
    of = len(found)
    test = f"{PAIRED}; all of {of} must hold, one failure at 95 % after Bonferroni contradicts" if of > 1 else PAIRED
    held = sum(one.agrees and one.p < LEVEL for one in found)
    failed = sum(not one.agrees and of * one.p < LEVEL for one in found)
    shown = found[weakest]
    text = (
        f"{held} of {of} comparisons hold, {failed} fail; weakest: {shown.name} {shown.interval.text} points over "
        f"{shown.interval.n} seeds"
    )
    return _outcome(found, weakest, test, text)
