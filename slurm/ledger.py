"""The job book, runs/.jobs: which job trains which run, how often it was started, and how each attempt ended.

    lock                      held while jobs are submitted or cancelled, so that no run is submitted twice
    entries/<name>.json       one run and seed: its job, and its attempts. Written by `submit`, then by the job itself
    submissions/<id>/         code (the snapshot), entries.json (array index -> entry), log (output of the jobs)

Imports no torch, no submitit, and nothing but the standard library besides training.run_directory: a job's batch
script reads it with whatever Python there is.
"""

import dataclasses
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training import run_directory

ROOT = Path("runs", ".jobs")
LOCK_SECONDS = 120.0  # a submission of a thousand runs takes seconds
NOTE_SECONDS = 20.0  # from sbatch to the job's id in the book
MOST_FAILURES = 3  # attempts of one job that may fail for reasons of their own

FINISHED, STOPPED, FAILED, KILLED, LEFT, CANCELLED = "finished", "stopped", "failed", "killed", "left", "cancelled"


@dataclass
class Attempt:
    """One start of a job. `outcome` is empty while it runs; left: SLURM ended it and decides itself what follows."""

    number: int
    job: str
    restart: int  # SLURM_RESTART_COUNT
    host: str
    pid: int
    started: float
    ended: float = 0.0
    outcome: str = ""
    reason: str = ""


@dataclass
class Entry:
    """One run and seed that was submitted."""

    scale: str
    table: str  # its owner
    key: str
    seed: int
    directory: str
    submission: str  # folder of the submission, and the name of its jobs
    index: int  # in the array
    cluster: str
    executor: str
    submitted: float
    job: str = ""  # empty while it is being submitted
    attempts: list[Attempt] = field(default_factory=list)
    ended: str = ""  # why no further attempt will be made

    @property
    def requeues(self) -> int:
        return max(0, len(self.attempts) - 1)

    @property
    def failures(self) -> int:
        return sum(attempt.outcome in (FAILED, KILLED) for attempt in self.attempts)

    @property
    def last_words(self) -> str:
        """Why the last attempt that ended did so."""
        return next((attempt.reason for attempt in reversed(self.attempts) if attempt.outcome), "")


def entry_path(root: Path, scale: str, key: str, seed: int) -> Path:
    return root / "entries" / f"{scale}--{key}--seed{seed}.json"


def read_entry(path: Path) -> Entry | None:
    """The entry in a file, None if there is none.

    Raises:
        RunError: for a damaged one, naming it and the remedy.
    """
    if not path.exists():
        return None
    values: Any = run_directory.read_json(path)
    try:
        attempts = [Attempt(**attempt) for attempt in values.pop("attempts")]
        return Entry(**values, attempts=attempts)
    except (TypeError, AttributeError, KeyError) as error:
        raise run_directory.RunError(
            f"{path} is no entry of the job book ({error}): delete it and submit again"
        ) from error


def write_entry(path: Path, entry: Entry) -> None:
    """Replace an entry atomically."""
    run_directory.write_json(path, dataclasses.asdict(entry))


def begin_attempt(path: Path, job: str, restart: int, host: str, pid: int) -> Attempt:
    """Write down that a job starts; the attempt before it, if it left no word, was ended by SLURM.

    Raises:
        RunError: where the run has meanwhile been given to another job.
    """
    deadline = time.monotonic() + NOTE_SECONDS
    while (entry := read_entry(path)) is not None and not entry.job and time.monotonic() < deadline:
        time.sleep(0.1)  # `submit` is about to write the id down; both at once would lose one of the two
    if entry is None or entry.job not in ("", job):
        owner = "nobody" if entry is None else f"job {entry.job}"
        raise run_directory.RunError(f"job {job} is out of date, its run was given to {owner}: python -m slurm status")
    entry.job = job
    for attempt in entry.attempts:
        if not attempt.outcome:
            attempt.outcome, attempt.ended = LEFT, time.time()
            attempt.reason = "no word from it: requeued by an administrator, preempted, or its node failed"
    attempt = Attempt(len(entry.attempts) + 1, job, restart, host, pid, time.time())
    entry.attempts.append(attempt)
    write_entry(path, entry)
    return attempt


def end_attempt(path: Path, outcome: str, reason: str) -> None:
    """Write down how the running attempt ended; of several tasks that fail the first one knows the cause."""
    entry = read_entry(path)
    if entry is None or not entry.attempts or entry.attempts[-1].outcome:
        return
    attempt = entry.attempts[-1]
    attempt.outcome, attempt.reason, attempt.ended = outcome, reason, time.time()
    if outcome == FINISHED:
        entry.ended = FINISHED
    write_entry(path, entry)


@contextmanager
def book_locked(root: Path, seconds: float = LOCK_SECONDS) -> Iterator[None]:
    """Hold the job book; wait for another `submit` to end.

    Raises:
        RunError: where it does not end in time, or the book cannot be written.
    """
    deadline = time.monotonic() + seconds
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(run_directory.locked(root))
                break
            except run_directory.RunError as error:
                # This says that another process holds it; a full disk or a wrong owner will not pass.
                if "is in use" not in str(error):
                    raise
                if time.monotonic() > deadline:
                    raise run_directory.RunError(
                        f"the job book {root} is held by another submit for too long: {error}"
                    ) from error
            time.sleep(0.2)
        yield
