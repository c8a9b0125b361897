"""What became of every run: the job book, SLURM's word on its jobs, and the run directories, in one table."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.runs import DAMAGED, FINISHED, OLDER, STARTED, Item, read_item, state
from experiments.scale import Scale
from experiments.terminal import grid
from slurm import ledger
from slurm.plan import entry_of, states_of, why_ended
from slurm.scheduler import JobState, SchedulerError
from training import run_directory

ABSENT = "not submitted"
ENDED = ("failed", "cancelled", "lost")  # nothing follows by itself
HEADER = ("run", "seed", "state", "job", "requeued", "epoch", "images/s", "left", "note")


@dataclass(frozen=True)
class Status:
    """One run and seed. `state`: done, older code, queued, running, failed, cancelled, lost, started, not submitted."""

    item: Item
    state: str
    job: str = ""
    requeues: int = 0
    epoch: int = 0
    images_per_second: float = 0.0
    left: float | None = None  # seconds, estimated
    note: str = ""


def statuses(scale: Scale, items: Sequence[Item], root: Path) -> tuple[list[Status], str]:
    """A status for every item, and a sentence where SLURM gave no answer (then the directories alone speak)."""
    found = [(item, entry_of(root, scale, item)) for item in items]
    open_entries = [entry for item, entry in found if entry is not None and state(item) != FINISHED]
    states: dict[str, JobState] | None = {}
    warning = ""
    if open_entries:
        try:
            states = states_of(open_entries)
        except SchedulerError as error:
            states, warning = None, f"{error}; the states below are those of the run directories"
    return [status_of(item, entry, states) for item, entry in found], warning


def status_of(item: Item, entry: ledger.Entry | None, states: dict[str, JobState] | None) -> Status:
    """The status of one item; `states` None means that SLURM gave no answer."""
    kind = state(item)
    found = states.get(entry.job) if entry is not None and states is not None else None
    alive = found is not None and found.alive
    if kind == FINISHED or (kind == OLDER and not alive):
        result = read_item(item) or {}
        note = f"top-1 {result['top1']['last']:.2f}"
        return _with(item, entry, "done" if kind == FINISHED else "older code", note)
    if kind == DAMAGED and not alive:
        return _with(item, entry, "failed", f"{item.directory}: result.json is damaged, delete it and submit again")
    if entry is None:
        if kind != STARTED:
            return Status(item, ABSENT)
        return _with(item, None, "started", "no job is known: it was trained without SLURM")
    if states is None and not entry.ended:
        return _from_directory(item, entry)
    if alive:
        assert found is not None
        if entry.ended == ledger.CANCELLED:
            return _with(item, entry, ledger.CANCELLED, "its job is ending")
        running = found.running and bool(entry.attempts)
        return _with(item, entry, "running" if running else "queued", _waiting(entry, found, running))
    reason = why_ended(entry, found)
    word = next((word for word in ("cancelled", "lost") if reason.startswith(word)), "failed")
    return _with(item, entry, word, reason.removeprefix(word).removeprefix(": "))


def _waiting(entry: ledger.Entry, found: JobState, running: bool) -> str:
    """Why a job was requeued, and what a queued one waits for."""
    if running and entry.attempts and not entry.attempts[-1].outcome and len(entry.attempts) == 1:
        return ""
    why = f"after {entry.last_words}" if entry.last_words else ""
    waits = "" if running or found.reason in ("", "None") else f"waits for {found.reason}"
    return ", ".join(part for part in (waits, why) if part)


def _from_directory(item: Item, entry: ledger.Entry) -> Status:
    """Without SLURM: a lock that is touched means running."""
    lock = item.directory / "lock"
    try:
        fresh = time.time() - lock.stat().st_mtime < run_directory.LOCK_STALE_SECONDS
    except OSError:
        fresh = False
    if fresh:
        return _with(item, entry, "running", "")
    last = entry.attempts[-1] if entry.attempts else None
    if last is not None and last.outcome in (ledger.FAILED, ledger.KILLED):
        return _with(item, entry, "failed", last.reason)
    return _with(item, entry, "queued", f"or lost; {entry.last_words}".removesuffix("; "))


def _with(item: Item, entry: ledger.Entry | None, word: str, note: str) -> Status:
    """A status with what metrics.jsonl tells of the progress."""
    last = _last_epoch(item.directory)
    epoch = int(last.get("epoch", 0))
    seconds = last.get("seconds")
    left = (item.run.epochs - epoch) * float(seconds) if word == "running" and seconds else None
    return Status(
        item=item,
        state=word,
        job=entry.job if entry else "",
        requeues=entry.requeues if entry else 0,
        epoch=epoch,
        images_per_second=float(last.get("images_per_second", 0.0)),
        left=left,
        note=note,
    )


def _last_epoch(directory: Path) -> dict[str, Any]:
    try:
        epochs = run_directory.read_metrics(directory)
    except (run_directory.RunError, OSError):
        return {}
    return epochs[-1] if epochs else {}


def summary(found: Sequence[Status]) -> str:
    """Counts: "12 done, 3 running, 1 failed"."""
    counts = Counter(status.state for status in found)
    return ", ".join(f"{number} {name}" for name, number in counts.most_common())


def cells(status: Status) -> list[str]:
    """The texts of one line of the table, in the order of `HEADER`."""
    item = status.item
    return [
        item.run.key,
        str(item.seed),
        status.state,
        status.job,
        {0: "", 1: "once"}.get(status.requeues, f"{status.requeues} times"),
        f"{status.epoch}/{item.run.epochs}" if status.epoch else "",
        f"{status.images_per_second:.0f}" if status.images_per_second else "",
        "" if status.left is None else duration(status.left),
        status.note,
    ]


def duration(seconds: float) -> str:
    """A time as people say it: 45 s, 12 min, 3.5 h, 2.1 days."""
    for size, unit, digits in ((86400, "days", 1), (3600, "h", 1), (60, "min", 0)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.{digits}f} {unit}"
    return f"{seconds:.0f} s"


def plain_table(found: Sequence[Status]) -> str:
    return grid(HEADER, [cells(status) for status in found])


def print_table(found: Sequence[Status]) -> None:
    """Colours on a terminal, plain text elsewhere."""
    import sys

    if not sys.stdout.isatty():
        print(plain_table(found))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    colours = {"done": "green", "running": "cyan", "queued": "yellow", "failed": "red", "lost": "red"}
    table = Table(*HEADER, box=None, header_style="bold")
    for status in found:
        table.add_row(*(Text(cell, style=colours.get(status.state, "")) for cell in cells(status)))
    Console().print(table)
