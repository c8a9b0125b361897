"""Statistics of paired differences: t intervals, tests, power, and corrections for many tests; scipy computes."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

LEVEL, POWER = 0.05, 0.8  # of all tests; with which the smallest detectable difference is told
LEAST = 5  # differences: fewer get no interval and no verdict
MARGIN = 0.5  # points that count as no difference


@dataclass(frozen=True)
class Interval:
    """Mean of n paired differences with its t interval and the standard error of the mean.

    `low`, `high` and `error` are None where there are fewer than `LEAST` or all are equal.
    """

    mean: float
    low: float | None
    high: float | None
    n: int
    error: float | None = None

    @property
    def text(self) -> str:
        # First as records round it: else 0.135 is +0.14 in a table and +0.13 in its claim.
        mean, *bounds = (f"{round(x, 6):+.2f}" for x in (self.mean, self.low, self.high) if x is not None)
        return f"{mean} [{', '.join(bounds)}]" if bounds else mean

    def p_value(self, threshold: float = 0.0) -> float:
        """Of the two-sided t test that the mean is the threshold; 1 where there is no interval."""
        if self.error is None:
            return 1.0
        from scipy import stats

        return float(2 * stats.t.sf(abs(self.mean - threshold) / self.error, self.n - 1))

    def p_within(self, limit: float) -> float:
        """Of two one-sided t tests (TOST) that the mean is `limit` or more away from zero; 1 without an interval."""
        if self.error is None:
            return 1.0
        from scipy import stats

        return float(stats.t.sf((limit - abs(self.mean)) / self.error, self.n - 1))


def detectable(error: float, n: int, level: float) -> float:
    """The smallest true difference that n pairs tell from zero at `level`, two-sided, in 80 of 100 repetitions."""
    from scipy import optimize, stats

    critical = stats.t.isf(level / 2, n - 1)

    def missing(difference: float) -> float:  # in standard errors; chance of a mean above the critical, less POWER
        return float(stats.nct.sf(critical, n - 1, difference)) - POWER

    return float(optimize.brentq(missing, 0.0, 10 * critical)) * error


def t_interval(differences: Sequence[float], confidence: float = 1 - LEVEL) -> Interval:
    """Mean and two-sided t interval of at least one difference."""
    n, mean = len(differences), math.fsum(differences) / len(differences)
    # Accuracies on a small test set are coarse: n equal differences do happen and say nothing about their spread.
    if n < LEAST or max(differences) - min(differences) < 1e-9:
        return Interval(mean, None, None, n)
    from scipy import stats  # late: `python -m experiments --help` must not wait for scipy

    bounds = stats.ttest_1samp(list(differences), 0.0).confidence_interval(confidence)
    return Interval(mean, float(bounds.low), float(bounds.high), n, float(stats.sem(differences)))


def paired_differences(above: Iterable[Mapping[int, float]], below: Iterable[Mapping[int, float]]) -> list[float]:
    """For each seed common to all: mean over the cells `above` less mean over the cells `below`."""
    first, second = list(above), list(below)
    common = sorted(set.intersection(*(set(values) for values in first + second)))
    return [
        math.fsum(v[seed] for v in first) / len(first) - math.fsum(v[seed] for v in second) / len(second)
        for seed in common
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values corrected for their number by Holm (1979), in the given order: a family-wise error of 5 % holds."""
    largest, corrected = 0.0, [0.0] * len(p_values)
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = largest
    return corrected
