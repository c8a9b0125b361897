"""What a row reports: cases with the times of all rivals, and goals with their targets and verdicts."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from benchmarks.measure import Setting, Spread, Timings


class Skipped(Exception):  # noqa: N818 - nothing is wrong
    """Raised by a row that cannot run here; the message says why."""


@dataclass(frozen=True)
class Goal:
    """One number that a case must reach.

    Attributes:
        text: what the number is, as "speed-up over timm elem".
        value: measured.
        target: None for a number that is only reported.
        at_most: whether the target is an upper limit; otherwise it is a lower one.
        unit: appended to the number.
        why: where the target is known to be out of reach, what limits the number.
        quick: limit of a quick run, by default half of the target; for numbers that miss that too.
    """

    text: str
    value: Spread
    target: float | None = None
    at_most: bool = False
    unit: str = "x"
    why: str = ""
    quick: float | None = None

    @property
    def limit(self) -> float | None:
        """What a quick run must reach."""
        if self.quick is not None or self.target is None:
            return self.quick
        return self.target * 2 if self.at_most else self.target / 2

    def reached(self, quick: bool = False) -> bool:
        """Whether the median reaches the target, or the limit of a quick run."""
        target = self.limit if quick else self.target
        if target is None:
            return True
        return self.value.median <= target if self.at_most else self.value.median >= target


@dataclass(frozen=True)
class Case:
    """One set-up of a row: rivals measured side by side.

    Attributes:
        title: what was measured.
        unit: of `values`: "ms", "s", "arrays", "images/s".
        values: of each rival.
        wall: the same by the clock on the wall, where another clock decides.
        goals: numbers with targets.
        skipped: rivals that did not take part, with the reason.
    """

    title: str
    unit: str
    values: dict[str, Spread]
    goals: list[Goal]
    wall: dict[str, Spread] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def as_json(self, quick: bool) -> dict[str, Any]:
        goals = [
            asdict(goal) | {"limit": goal.limit, "reached": goal.reached(), "passed": goal.reached(quick)}
            for goal in self.goals
        ]
        return asdict(self) | {"goals": goals}


class Row(Protocol):
    """A module of this package."""

    NAME: str
    TITLE: str
    PEERS: str

    def cases(self, setting: Setting) -> Iterator[Case]:
        """Check that everybody computes the same (AssertionError if not), measure, and yield case by case."""
        ...


def timed_case(title: str, timings: Timings, goals: list[Goal], skipped: dict[str, str] | None = None) -> Case:
    """The case of some timings, in milliseconds."""
    values, wall = (
        {name: Spread.of([1e3 * second for second in seconds]) for name, seconds in times.items()}
        for times in (timings.decided, timings.wall)
    )
    return Case(title, "ms", values, goals, wall, skipped or {})


def faster(timings: Timings, than: str, target: float | None, who: str = "lumix", **options: Any) -> Goal:
    """How many times `who` is faster than a peer; `why` and `quick` as for `Goal`."""
    what = f"speed-up over {than}" + ("" if who == "lumix" else f" ({who})")
    return Goal(what, timings.ratio(than, who), target, **options)


def within(timings: Timings, floor: str, target: float | None, who: str = "lumix", **options: Any) -> Goal:
    """How many times the floor `who` takes; `why` and `quick` as for `Goal`."""
    what = f"times {floor}" + ("" if who == "lumix" else f" ({who})")
    return Goal(what, timings.ratio(who, floor), target, at_most=True, **options)
