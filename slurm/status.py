"""What became of every run, told from the submissions, squeue and the run directories; and the end of their jobs."""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from experiments.registry import get_table, tables_of
from experiments.runs import DAMAGED, FINISHED, OLDER, STARTED, Item, activity, items_of_table, state
from experiments.scale import Scale
from experiments.terminal import grid
from slurm.jobs import Job, SchedulerError, Submitted, call, jobs_of, submitted
from training import run_directory

ABSENT = "not submitted"
ENDED = ("failed", "cancelled", "lost")  # nothing follows by itself
HEADER = ("run", "seed", "state", "job", "epoch", "images/s", "left", "note")


@dataclass(frozen=True)
class Status:
    """One run and seed. `state`: done, older code, queued, running, failed, cancelled, lost, started, not submitted."""

    item: Item
    state: str
    job: str = ""
    note: str = ""

    def cells(self) -> tuple[str, ...]:
        """The texts of one line of the table, with what metrics.jsonl tells of the progress."""
        item, last = self.item, _last_epoch(self.item)
        epoch, speed, seconds = (float(last.get(name, 0)) for name in ("epoch", "images_per_second", "seconds"))
        left = (item.run.epochs - epoch) * seconds if self.state == "running" and epoch else None
        return (
            item.run.key,
            str(item.seed),
            self.state,
            self.job,
            f"{epoch:.0f}/{item.run.epochs}" if epoch else "",
            f"{speed:.0f}" if speed else "",
            "" if left is None else f"{left / 3600:.1f} h" if left > 5400 else f"{left / 60:.0f} min",
            self.note,
        )


def _last_epoch(item: Item) -> dict[str, Any]:
    try:
        return (run_directory.read_metrics(item.directory) or [{}])[-1]
    except (run_directory.RunError, OSError):
        return {}


def statuses(scale: Scale, items: Sequence[Item]) -> tuple[list[Status], str]:
    """A status for every item, and a sentence where SLURM gave no answer (then the directories alone speak)."""
    entries = submitted()
    pending = [entries[item.directory] for item in items if item.directory in entries and state(item) != FINISHED]
    jobs: dict[Submitted, Job] | None = None
    warning = ""
    try:
        jobs = jobs_of(pending)
    except SchedulerError as error:
        warning = f"{error}; the states below are those of the run directories"
    return [status_of(item, entries.get(item.directory), jobs) for item in items], warning


def status_of(item: Item, entry: Submitted | None, jobs: dict[Submitted, Job] | None) -> Status:
    """The status of one item; `jobs` None means that SLURM gave no answer."""
    found = state(item)
    job = jobs.get(entry) if jobs and entry else None
    if job is not None and job.alive and found != FINISHED:
        if entry is not None and entry.cancelled().exists():
            return Status(item, "cancelled", job.id, "its job is ending")
        waits = "" if job.running or not job.reason else f"waits for {job.reason}"
        failed = [f"after {text}" for text in (entry.failures[-1:] if entry else [])]
        return Status(item, "running" if job.running else "queued", job.id, ", ".join(filter(None, [waits, *failed])))
    if found in (FINISHED, OLDER):
        result = run_directory.read_result(item.directory) or {}
        return Status(item, "done" if found == FINISHED else OLDER, "", f"top-1 {result['top1']['last']:.2f}")
    if found == DAMAGED:
        return Status(item, "failed", "", f"{item.directory}: result.json is damaged, delete it and submit again")
    active = activity(item)
    if entry is None:
        if active not in ("running", "failed", STARTED):
            return Status(item, ABSENT)
        return Status(item, active, "", "no job is known: it is trained without SLURM")
    if jobs is None:
        known = active in ("running", "failed")
        return Status(item, active if known else "queued", "", "" if known else "or lost")
    word, _, note = entry.why_ended(job).partition(" ")
    return Status(item, word.rstrip(":"), "", note)


def print_status(scale: Scale, items: Sequence[Item], name: str | None) -> None:
    """The table of statuses and its summary; without a table's name only what has been touched is shown."""
    found, warning = statuses(scale, list({item.directory: item for item in items}.values()))
    shown = [status for status in found if name or status.state != ABSENT]
    if warning:
        print(warning, file=sys.stderr)
    if shown:
        print(grid(HEADER, [status.cells() for status in shown]) + "\n")
    counts = Counter(status.state for status in found)
    summary = ", ".join(f"{number} {word}" for word, number in counts.most_common())
    print(f"{name or 'all tables'} at scale {scale.name}: {summary}")
    if ended := sum(counts[word] for word in ENDED):
        command = f"python -m slurm submit {name or 'all'} --scale {scale.name} --resume"
        print(f"once the cause is mended, submit {ended} again: {command}")


def items_named(scale: Scale, name: str, seeds: int | None) -> list[Item]:
    """The items of a run's key, of one seed of it written KEY/seed0, or of a table."""
    tables = [items_of_table(scale, table, seeds=seeds) for table in tables_of(scale)]
    every = {item.directory: item for items in tables for item in items}.values()
    named = [item for item in every if name in (item.run.key, f"{item.run.key}/seed{item.seed}")]
    return named or items_of_table(scale, get_table(name, scale), seeds=seeds)


def cancel(items: Sequence[Item]) -> list[str]:
    """Cancel the living jobs of some items; returns their ids."""
    entries = submitted()
    jobs = jobs_of([entries[item.directory] for item in items if item.directory in entries])
    living = {entry: job.id for entry, job in jobs.items() if job.alive}
    if living:
        call("scancel", *living.values())
    for entry in living:
        entry.cancelled().touch()
    return list(living.values())
