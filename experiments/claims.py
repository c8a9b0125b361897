"""Claims and the tests that judge them: paired over seeds, 95 % t intervals from scipy, verdicts with estimate and n.

Two cells are compared seed by seed: seed k of both has the same initial weights and data order, so the differences of
the common seeds are one sample, and its mean gets a two-sided 95 % t interval. Each claim is judged by itself; nothing
is corrected for the number of claims on the page. A claim about several comparisons at once is *supported* only if
every one holds (an intersection-union test, which needs no correction) and *contradicted* if one of them fails with its
interval widened for the number of comparisons (Bonferroni).
"""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any, Protocol

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
class Interval:
    """Mean of n paired differences with its t interval; `low` and `high` are None where n or the spread allows none."""

    mean: float
    low: float | None
    high: float | None
    n: int

    @property
    def text(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.mean:+.2f}"
        return f"{self.mean:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"


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


def t_interval(differences: Sequence[float], confidence: float = 0.95) -> Interval:
    """Mean and two-sided t interval of at least one difference."""
    n, mean = len(differences), math.fsum(differences) / len(differences)
    # Accuracies on a small test set are coarse: n equal differences do happen and say nothing about their spread.
    if n < 2 or max(differences) - min(differences) < 1e-9:
        return Interval(mean, None, None, n)
    from scipy import stats  # late: `python -m experiments --help` must not wait for scipy

    bounds = stats.ttest_1samp(list(differences), 0.0).confidence_interval(confidence)
    return Interval(mean, float(bounds.low), float(bounds.high), n)


def paired_differences(above: Iterable[Mapping[int, float]], below: Iterable[Mapping[int, float]]) -> list[float]:
    """For each seed common to all: mean over the cells `above` less mean over the cells `below`."""
    first, second = list(above), list(below)
    common = sorted(set.intersection(*(set(values) for values in first + second)))
    return [
        math.fsum(v[seed] for v in first) / len(first) - math.fsum(v[seed] for v in second) / len(second)
        for seed in common
    ]


def _missing(evidence: Evidence, cells: Iterable[Cell]) -> Outcome | None:
    missing = sorted({f"{row}/{column}" for row, column in cells if not evidence.values.get((row, column))})
    return Outcome(NOT_RUN, f"no finished run for {', '.join(missing)}") if missing else None


def _too_little(interval: Interval, test: str) -> Outcome | None:
    if interval.low is not None:
        return None
    why = (
        "at least 2 common seeds are needed for an interval"
        if interval.n < 2
        else "all differences are equal, so their spread cannot be estimated"
    )
    return Outcome(
        INCONCLUSIVE, f"n = {interval.n}: {why}", interval.mean if interval.n else None, None, None, interval.n, test
    )


def _compare(evidence: Evidence, above: Sequence[Cell], below: Sequence[Cell], confidence: float = 0.95) -> Interval:
    values = evidence.values
    differences = paired_differences([values[c] for c in above], [values[c] for c in below])
    return t_interval(differences, confidence) if differences else Interval(math.nan, None, None, 0)


@dataclass(frozen=True)
class Greater:
    """The cells `above` exceed the cells `below` by more than `margin` points; several are averaged seed by seed."""

    above: tuple[Cell, ...]
    below: tuple[Cell, ...]
    margin: float = 0.0

    def judge(self, evidence: Evidence) -> Outcome:
        if missing := _missing(evidence, (*self.above, *self.below)):
            return missing
        interval = _compare(evidence, self.above, self.below)
        if little := _too_little(interval, PAIRED):
            return little
        assert interval.low is not None
        assert interval.high is not None
        verdict = INCONCLUSIVE
        if interval.low > self.margin:
            verdict = SUPPORTED
        elif interval.high < self.margin:
            verdict = CONTRADICTED
        text = f"difference {interval.text} points over {interval.n} seeds"
        return Outcome(verdict, text, interval.mean, interval.low, interval.high, interval.n, PAIRED)


@dataclass(frozen=True)
class EachGreater:
    """In every pair (above, below) the first cell exceeds the second."""

    pairs: tuple[tuple[Cell, Cell], ...]

    def judge(self, evidence: Evidence) -> Outcome:
        if missing := _missing(evidence, (cell for pair in self.pairs for cell in pair)):
            return missing
        single = [_compare(evidence, (a,), (b,)) for a, b in self.pairs]
        wide = [_compare(evidence, (a,), (b,), 1 - 0.05 / len(self.pairs)) for a, b in self.pairs]
        return _judge_all(
            self.pairs,
            single,
            held=[i.low is not None and i.low > 0 for i in single],
            failed=[i.high is not None and i.high < 0 for i in wide],
            weakest=min(range(len(single)), key=lambda i: single[i].mean),
        )


@dataclass(frozen=True)
class Close:
    """All pairs of cells differ by at most `tolerance` points (equivalence: the whole interval lies within)."""

    cells: tuple[Cell, ...]
    tolerance: float

    def judge(self, evidence: Evidence) -> Outcome:
        if missing := _missing(evidence, self.cells):
            return missing
        pairs = [(a, b) for i, a in enumerate(self.cells) for b in self.cells[i + 1 :]]
        single = [_compare(evidence, (a,), (b,)) for a, b in pairs]
        wide = [_compare(evidence, (a,), (b,), 1 - 0.05 / len(pairs)) for a, b in pairs]
        limit = self.tolerance
        return _judge_all(
            pairs,
            single,
            held=[_inside(i, limit) for i in single],
            failed=[_outside(i, limit) for i in wide],
            weakest=max(range(len(single)), key=lambda i: abs(single[i].mean)),
        )


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
        test = "one-sample t over seeds, two-sided 95 % interval"
        interval = t_interval(differences) if differences else Interval(math.nan, None, None, 0)
        if little := _too_little(interval, test):
            return little
        held, failed = _inside(interval, self.tolerance), _outside(interval, self.tolerance)
        verdict = SUPPORTED if held else CONTRADICTED if failed else INCONCLUSIVE
        text = f"ours less the paper's {interval.text} points, tolerance {self.tolerance:g}"
        return Outcome(verdict, text, interval.mean, interval.low, interval.high, interval.n, test)


def ordered(*cells: Cell) -> EachGreater:
    """The cells grow from first to last."""
    return EachGreater(tuple((above, below) for below, above in itertools.pairwise(cells)))


def _inside(interval: Interval, limit: float) -> bool:
    return interval.low is not None and interval.high is not None and -limit <= interval.low <= interval.high <= limit


def _outside(interval: Interval, limit: float) -> bool:
    return interval.low is not None and interval.high is not None and (interval.low > limit or interval.high < -limit)


def _judge_all(
    pairs: Sequence[tuple[Cell, Cell]],
    single: Sequence[Interval],
    held: Sequence[bool],
    failed: Sequence[bool],
    weakest: int,
) -> Outcome:
    """One verdict for several comparisons; the estimate shown is the weakest comparison's."""
    test = f"{PAIRED}; all of {len(pairs)} must hold, one failure at 95 % after Bonferroni contradicts"
    if len(pairs) == 1:
        test = PAIRED
    interval = single[weakest]
    if interval.n < 2 and (little := _too_little(interval, test)):
        return little
    verdict = SUPPORTED if all(held) else CONTRADICTED if any(failed) else INCONCLUSIVE
    (row, column), (other, reference) = pairs[weakest]
    text = (
        f"{sum(held)} of {len(pairs)} comparisons hold, {sum(failed)} fail; weakest: {row}/{column} less "
        f"{other}/{reference} {interval.text} points over {interval.n} seeds"
    )
    return Outcome(verdict, text, interval.mean, interval.low, interval.high, interval.n, test)
