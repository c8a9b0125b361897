"""Timing of rivals side by side: the same process, several rounds, a new random order in each round.

Machines are shared and their clocks drift, so what counts is the ratio within a round; its median over rounds is
reported, with the quartiles. On the CPU with one thread the clock is CPU time, which other load disturbs least.
"""

import ctypes
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

Work = Callable[[], Any]
Timings = pd.DataFrame  # seconds per run: a line for each round, a column for each rival

AT_MOST = 200  # runs of one rival in one round
FEWEST = 3  # rounds, however long they take


class Skipped(Exception):  # noqa: N818 - nothing is wrong
    """Raised by a row that cannot run here; the message says why."""


@dataclass(frozen=True)
class Setting:
    """How a benchmark runs; a quick one is short, and half of each target is enough.

    Attributes:
        device: "cpu" or "cuda".
        threads: of torch on the CPU.
        rounds: how often each rival is timed, if they do not take too long.
        seconds: how long a rival runs in a round, so that the clock's grain does not matter; at least one run.
        budget: seconds for all rounds of one case; of slow rivals there are fewer rounds, at least 3.
    """

    device: str = "cpu"
    threads: int = 1
    rounds: int = 11
    seconds: float = 0.03
    budget: float = 25.0
    quick: bool = False

    def __post_init__(self) -> None:
        if self.quick:
            for name, most in (("rounds", 5), ("seconds", 0.01), ("budget", 5.0)):
                object.__setattr__(self, name, min(most, getattr(self, name)))

    def few(self, rounds: int, **changes: Any) -> "Setting":
        """With so many rounds at most, for work that takes long."""
        return replace(self, rounds=min(self.rounds, rounds), **changes)

    @property
    def clock(self) -> str:
        """The clock that decides: "CPU time", "wall time" where threads wait for each other, or "GPU time"."""
        if self.device == "cuda":
            return "GPU time"
        return "CPU time" if self.threads == 1 else "wall time"


class Line(NamedTuple):
    """One number of the table: what a rival takes, or a ratio, which may have a target.

    Attributes:
        case: the set-up, in which all rivals ran side by side.
        number: the rival, or what the ratio is.
        rival: whether it is a rival's.
        low, median, high, n: quartiles over n rounds.
        target, at_most: what the median should reach, NaN for nothing, and whether it is an upper limit.
        limit: the target of a quick run.
        why: where the target is known to be out of reach, what limits the number.
    """

    case: str
    number: str = ""
    unit: str = ""
    rival: bool = False
    low: float = np.nan
    median: float = np.nan
    high: float = np.nan
    n: int = 0
    target: float = np.nan
    at_most: bool = False
    limit: float = np.nan
    why: str = ""


def number(
    case: str,
    name: str,
    values: Sequence[float],
    target: float = np.nan,
    at_most: bool = False,
    unit: str = "x",
    quick: float | None = None,
    **more: Any,
) -> Line:
    """The line of some measurements; a quick run wants half of the target, or `quick`."""
    low, median, high = (float(value) for value in np.quantile(values, (0.25, 0.5, 0.75)))
    limit = quick if quick is not None else target * 2 if at_most else target / 2
    quartiles = {"low": low, "median": median, "high": high, "n": len(values)}
    return Line(case, name, unit, target=target, at_most=at_most, limit=limit, **quartiles, **more)


def times(case: str, timings: Timings, unit: str = "ms") -> list[Line]:
    """A line for each rival."""
    scale = 1e3 if unit == "ms" else 1
    return [number(case, name, scale * timings[name], unit=unit, rival=True) for name in timings]


def faster(case: str, timings: Timings, than: str, target: float = np.nan, who: str = "lumix", **more: Any) -> Line:
    """How many times `who` is faster than a peer in the same round."""
    what = f"speed-up over {than}" + ("" if who == "lumix" else f" ({who})")
    return number(case, what, timings[than] / timings[who], target, **more)


def within(case: str, timings: Timings, floor: str, target: float = np.nan, who: str = "lumix", **more: Any) -> Line:
    """How many times the floor `who` takes in the same round."""
    what = f"times {floor}" + ("" if who == "lumix" else f" ({who})")
    return number(case, what, timings[who] / timings[floor], target, at_most=True, **more)


def settle_allocator() -> None:
    """Bring glibc into the state it has in any training process, whichever row runs first.

    It gives freed blocks back to the kernel until one of their size was freed once, up to 32 MB.
    """
    torch.empty(2**25 - 2**13, dtype=torch.uint8).fill_(0)


@contextmanager
def reused_memory() -> Iterator[None]:
    """Within it glibc keeps all memory that it has once had, so that no copy of a large batch costs page faults."""
    mapped, threshold, trimmed = -4, -3, -1  # mallopt's M_MMAP_MAX, M_MMAP_THRESHOLD and M_TRIM_THRESHOLD
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(mapped, 0), mallopt(trimmed, 2**31 - 1)
    try:
        yield
    finally:  # as `settle_allocator` leaves it
        mallopt(mapped, 2**16), mallopt(threshold, 2**25), mallopt(trimmed, 2**26)


def compare(rivals: dict[str, Work], setting: Setting, seed: int = 0) -> Timings:
    """Time the rivals by the deciding clock, in an order that the seed draws anew for each round."""
    once = {name: warmed_up(work, setting) for name, work in rivals.items()}
    repeats = {name: max(1, min(AT_MOST, round(setting.seconds / one))) for name, one in once.items()}
    one_round = sum(once[name] * repeats[name] for name in rivals)
    order, names, rounds = random.Random(seed), list(rivals), []
    for _ in range(max(FEWEST, min(setting.rounds, int(setting.budget / one_round)))):
        order.shuffle(names)
        rounds.append({name: timed(rivals[name], repeats[name], setting)[0] / repeats[name] for name in names})
    return pd.DataFrame(rounds, columns=list(rivals))


def warmed_up(work: Work, setting: Setting) -> float:
    """Seconds of a run on the wall, after a first one that does not count; quick work has two of these."""
    first = timed(work, 1, setting)[1]
    return max(1e-7, timed(work, 1, setting)[1] if first > 0.1 else min(timed(work, 1, setting)[1] for _ in range(2)))


def timed(work: Work, repeats: int, setting: Setting) -> tuple[float, float]:
    """Seconds of `repeats` runs: by the deciding clock (on a GPU two events in its own stream), and on the wall."""
    on_gpu = setting.device == "cuda"
    if on_gpu:
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        first.record()
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(repeats):
        work()
    if on_gpu:
        last.record()
        torch.cuda.synchronize()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    if on_gpu:
        return first.elapsed_time(last) / 1e3, wall
    return (cpu if setting.clock == "CPU time" else wall), wall
