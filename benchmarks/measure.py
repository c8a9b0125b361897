"""Timing of rivals side by side: the same process, several rounds, a new random order in each round.

Machines are shared and their clocks drift, so what counts is the ratio within a round; its median over rounds is
reported, with the quartiles. On the CPU with one thread the clock is CPU time, which other load disturbs least.
"""

import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

Work = Callable[[], Any]

AT_MOST = 200  # runs of one rival in one round
FEWEST = 3  # rounds, however long they take


@dataclass(frozen=True)
class Setting:
    """How a benchmark runs.

    Attributes:
        device: "cpu" or "cuda".
        threads: of torch on the CPU.
        rounds: how often each rival is timed, if they do not take too long.
        seconds: how long a rival runs in a round, so that the clock's grain does not matter; at least one run.
        budget: seconds for all rounds of one case; of slow rivals there are fewer rounds, at least 3.
        quick: whether half of each target is enough.
    """

    device: str = "cpu"
    threads: int = 1
    rounds: int = 11
    seconds: float = 0.03
    budget: float = 25.0
    quick: bool = False

    @property
    def clock(self) -> str:
        """The clock that decides: "CPU time", "wall time" where threads wait for each other, or "GPU time"."""
        if self.device == "cuda":
            return "GPU time"
        return "CPU time" if self.threads == 1 else "wall time"


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of n numbers."""

    median: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, values: list[float]) -> "Spread":
        if len(values) == 1:
            return cls(values[0], values[0], values[0], 1)
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high, len(values))


@dataclass(frozen=True)
class Timings:
    """Seconds per run of each rival, one number a round, by the deciding clock and by the clock on the wall."""

    decided: dict[str, list[float]]
    wall: dict[str, list[float]] = field(default_factory=dict)

    def ratio(self, numerator: str, denominator: str) -> Spread:
        """Of the times of two rivals in the same round."""
        return Spread.of([a / b for a, b in zip(self.decided[numerator], self.decided[denominator], strict=True)])


def settle_allocator() -> None:
    """Bring glibc into the state it has in any training process, whichever row runs first.

    It gives freed blocks back to the kernel until one of their size was freed once, up to 32 MB.
    """
    torch.empty(2**25 - 2**13, dtype=torch.uint8).fill_(0)


def compare(rivals: dict[str, Work], setting: Setting, seed: int = 0) -> Timings:
    """Time the rivals, up to `setting.rounds` times each, in an order that the seed decides."""
    once = {name: warmed_up(work, setting) for name, work in rivals.items()}
    repeats = {name: max(1, min(AT_MOST, round(setting.seconds / one))) for name, one in once.items()}
    one_round = sum(once[name] * repeats[name] for name in rivals)
    timings = Timings({name: [] for name in rivals}, {name: [] for name in rivals})
    order, names = random.Random(seed), list(rivals)
    for _ in range(max(FEWEST, min(setting.rounds, int(setting.budget / one_round)))):
        order.shuffle(names)
        for name in names:
            decided, wall = timed(rivals[name], repeats[name], setting)
            timings.decided[name].append(decided / repeats[name])
            timings.wall[name].append(wall / repeats[name])
    return timings


def warmed_up(work: Work, setting: Setting) -> float:
    """Seconds of a run on the wall, after a first one that does not count; quick work has two of these."""
    first = timed(work, 1, setting)[1]
    return max(1e-7, timed(work, 1, setting)[1] if first > 0.1 else min(timed(work, 1, setting)[1] for _ in range(2)))


def timed(work: Work, repeats: int, setting: Setting) -> tuple[float, float]:
    """Seconds of `repeats` runs: by the deciding clock, and on the wall."""
    if setting.device == "cuda":
        return timed_by_events(work, repeats)
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(repeats):
        work()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return (cpu if setting.clock == "CPU time" else wall), wall


def timed_by_events(work: Work, repeats: int) -> tuple[float, float]:
    """Seconds between two events in the GPU's own stream, and on the wall."""
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    wall = time.perf_counter()
    first.record()
    for _ in range(repeats):
        work()
    last.record()
    torch.cuda.synchronize()
    return first.elapsed_time(last) / 1e3, time.perf_counter() - wall
