"""What the run directories of a scale hold: which runs are finished, with which code, and what is still to do."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.registry import run_directory, seeds_of
from experiments.scale import Scale
from experiments.table import Table
from lumix.train import record
from lumix.train.config import Run

FINISHED, OLDER, STARTED, ABSENT, DAMAGED = "finished", "older code", "started", "not started", "damaged"


@dataclass(frozen=True)
class Item:
    """One training: a run, a seed and the directory it lives in."""

    run: Run
    seed: int
    directory: Path

    @property
    def name(self) -> str:
        return f"{self.run.key} seed {self.seed}"


def items_of(scale: Scale, runs: Iterable[Run], seeds: int | None = None) -> list[Item]:
    """Every (run, seed), in the order of the runs."""
    return [Item(run, seed, run_directory(scale, run, seed)) for run in runs for seed in seeds_of(scale, run, seeds)]


def items_of_table(
    scale: Scale, table: Table, rows: Iterable[str] | None = None, seeds: int | None = None
) -> list[Item]:
    """Every (run, seed) that a table, or some of its rows, shows; runs that another table owns included."""
    chosen = None if rows is None else set(rows)
    runs = {run.key: run for (row, _), run in table.cells.items() if chosen is None or row in chosen}
    return items_of(scale, runs.values(), seeds)


def read_item(item: Item) -> dict[str, Any] | None:
    """result.json of one training, None while it is not finished.

    Raises:
        RunError: for a damaged file or the result of another run, naming it and the remedy.
    """
    result = record.read_result(item.directory)
    if result is not None and (result["key"], result.get("seed")) != (item.run.key, item.seed):
        raise record.RunError(
            f"{item.directory} holds the result of {result['key']} seed {result.get('seed')}, not of {item.name}: "
            f"move that folder away and run the same command again"
        )
    return result


def is_older(result: dict[str, Any]) -> bool:
    """Whether a result was made by other code of `lumix` than there is now."""
    return bool(result.get("fingerprint") != record.code_fingerprint())


def state(item: Item) -> str:
    """One of finished, older code, started, not started, damaged."""
    try:
        result = read_item(item)
    except record.RunError:
        return DAMAGED
    if result is not None:
        return OLDER if is_older(result) else FINISHED
    return STARTED if (item.directory / "environment.json").exists() else ABSENT


def is_open(scale: Scale, item: Item) -> bool:
    """Whether the scale asks to train this item: not finished, or finished by other code where that matters."""
    found = state(item)
    return found != FINISHED and not (found == OLDER and not scale.retrain_on_code_change)
