"""Row 10: start-up. The help of the command line, and the import of the package beside that of torch."""

import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import Setting, Spread, Timings
from benchmarks.rows import Case, Goal, within

NAME = "start-up"
TITLE = "Start-up"
PEERS = "import torch"
ROOT = Path(__file__).resolve().parents[1]
TORCH, ALL = "import torch", "import lumix, every public name"
EVERY_NAME = "import lumix; [getattr(lumix, name) for name in lumix.__all__]"
COMMANDS = {
    "python": ["-c", "pass"],
    TORCH: ["-c", "import torch"],
    "import lumix": ["-c", "import lumix"],
    ALL: ["-c", EVERY_NAME],
    "experiments --help": ["-m", "experiments", "--help"],
}


def start(arguments: list[str]) -> tuple[float, float]:
    """Seconds of a fresh interpreter: CPU time, and on the wall."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    before, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - wall, resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


def check_all() -> None:
    """Raise AssertionError where `import lumix` loads torch, or the public names fail to."""
    code = f"import sys, lumix; assert 'torch' not in sys.modules; {EVERY_NAME}; assert 'torch' in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def cases(setting: Setting) -> Iterator[Case]:
    check_all()
    timings, order, names = (
        Timings({n: [] for n in COMMANDS}, {n: [] for n in COMMANDS}),
        random.Random(0),
        list(COMMANDS),
    )
    for name in names:
        start(COMMANDS[name])  # compiles the sources and fills the disk's cache
    for _ in range(3 if setting.quick else 7):
        order.shuffle(names)
        for name in names:
            cpu, wall = start(COMMANDS[name])
            timings.decided[name].append(cpu)
            timings.wall[name].append(wall)
    values, on_wall = ({n: Spread.of(t) for n, t in times.items()} for times in (timings.decided, timings.wall))
    goals = [
        Goal("experiments --help", values["experiments --help"], 0.3, at_most=True, unit=" s"),
        within(timings, TORCH, 1.1, ALL),
        within(timings, TORCH, None, "import lumix"),
    ]
    yield Case("fresh interpreters", "s", values, goals, on_wall)
