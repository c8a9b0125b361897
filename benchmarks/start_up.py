"""Row of start-up: the help of the command line, and the import of the package beside that of torch."""

import os
import random
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from benchmarks.measure import Line, Setting, number, times, within

ROOT = Path(__file__).resolve().parents[1]
TORCH, LUMIX, HELP = "import torch", "import lumix, every public name", "experiments --help"
COMMANDS = {
    "python": ["-c", "pass"],
    TORCH: ["-c", "import torch"],
    LUMIX: ["-c", "import lumix; [getattr(lumix, name) for name in lumix.__all__]"],
    HELP: ["-m", "experiments", "--help"],
}


def start(arguments: list[str]) -> float:
    """Seconds of CPU time of a fresh interpreter."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def start_up(setting: Setting) -> Iterator[Line]:
    order, names, rounds = random.Random(0), list(COMMANDS), []
    for _ in range(1 + (3 if setting.quick else 7)):  # the first compiles the sources and fills the disk's cache
        order.shuffle(names)
        rounds.append({name: start(COMMANDS[name]) for name in names})
    case, timings = "fresh interpreters", pd.DataFrame(rounds[1:], columns=list(COMMANDS))
    yield from times(case, timings, "s")
    yield number(case, HELP, timings[HELP], 0.3, at_most=True, unit=" s")
    yield within(case, timings, TORCH, 1.1, LUMIX)
