"""Cancel jobs and show their logs, chosen by table, by run, or by run and seed."""

from collections.abc import Sequence
from pathlib import Path

from experiments.registry import TABLES, get_table, tables_of
from experiments.runs import Item, items_of, items_of_table
from experiments.scale import Scale
from experiments.suggest import choose
from slurm import ledger
from slurm.plan import entry_of, states_of
from slurm.scheduler import cancel_jobs

TAIL = 40  # lines of each log


def items_named(scale: Scale, name: str, seeds: int | None) -> list[Item]:
    """The items of a table, of a run's key, or of one seed of it written KEY/seed0.

    Raises:
        ValueError: for an unknown name, with near matches.
    """
    if name in TABLES:
        return items_of_table(scale, get_table(name, scale), seeds=seeds)
    runs = {run.key: run for table in tables_of(scale) for run in table.runs.values()}
    key, _, seed = name.rstrip("/").partition("/")
    run = runs[choose("table or run", key, [*runs, *TABLES])]
    items = items_of(scale, [run], seeds)
    if not seed:
        return items
    chosen = choose(f"seed of {key}", seed, [f"seed{item.seed}" for item in items])
    return [item for item in items if f"seed{item.seed}" == chosen]


def cancel(scale: Scale, items: Sequence[Item], root: Path = ledger.ROOT) -> list[str]:
    """Cancel the living jobs of some items; returns their ids.

    Raises:
        SchedulerError: where SLURM gives no answer.
    """
    with ledger.book_locked(root):
        found = [(item, entry) for item in items if (entry := entry_of(root, scale, item)) is not None]
        states = states_of([entry for _, entry in found])
        living = [(item, entry) for item, entry in found if entry.job in states and states[entry.job].alive]
        if living:
            cancel_jobs([entry.job for _, entry in living])
        for item, _ in living:
            path = ledger.entry_path(root, scale.name, item.run.key, item.seed)
            entry = ledger.read_entry(path)  # anew: the job may have written since
            if entry is not None and not entry.ended:
                entry.ended = ledger.CANCELLED
                ledger.write_entry(path, entry)
    return [entry.job for _, entry in living]


def logs(scale: Scale, items: Sequence[Item], root: Path = ledger.ROOT) -> str:
    """The ends of a run's own log and of its job's output, each under its path."""
    parts = []
    for item in items:
        entry = entry_of(root, scale, item)
        paths = [item.directory / "log.txt"]
        if entry is not None and entry.job:
            paths += sorted(Path(entry.submission, "log").glob(f"{entry.job}_*_log.*"))
        parts += [f"==> {path}\n{text}" for path in paths if (text := _tail(path))]
    return "\n\n".join(parts)


def _tail(path: Path) -> str:
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-TAIL:])
    except OSError:
        return ""
