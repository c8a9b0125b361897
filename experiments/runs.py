"""What the run directories of a scale hold: which runs are finished, with which code, and what is still to do."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from experiments.registry import directory_of, seeds_of
from experiments.scale import Scale
from experiments.table import Table
from training import run_directory
from training.config import Loss, Mix, Optim, Run

LIVELY_SECONDS = 120.0  # a living run touches its lock more often
FINISHED, OLDER, STARTED, ABSENT, DAMAGED = "finished", "older code", "started", "not started", "damaged"


@dataclass(frozen=True)
class Item:
    """One training: a run, a seed and the directory it lives in. It `needs` no other run directory to be finished."""

    run: Run
    seed: int
    directory: Path
    needs: ClassVar[frozenset[Path]] = frozenset()

    @property
    def name(self) -> str:
        return f"{self.run.key} seed {self.seed}"

    @property
    def code(self) -> str:
        """The fingerprint of the code that would train it now."""
        return run_directory.code_fingerprint()

    @property
    def begun(self) -> bool:
        """Whether a process has been at it."""
        return (self.directory / "environment.json").exists()

    def read(self) -> dict[str, Any] | None:
        """Its result.json, None while it is not finished."""
        result = run_directory.read_result(self.directory)
        if result is not None and not isinstance(result.get("top1"), dict):
            raise run_directory.RunError(
                f"{self.directory / 'result.json'} is not whole: delete it and run the same command again"
            )
        if result is not None and (result["key"], result.get("seed")) != (self.run.key, self.seed):
            raise run_directory.RunError(
                f"{self.directory} holds the result of {result['key']} seed {result.get('seed')}, not of {self.name}: "
                f"move that folder away and run the same command again"
            )
        return result


@dataclass(frozen=True)
class Group:
    """Trainings that run as one ensemble, in a stack of `size` networks."""

    items: tuple[Item, ...]
    size: int
    needs: ClassVar[frozenset[Path]] = frozenset()

    @property
    def run(self) -> Run:
        return self.items[0].run

    @property
    def filled(self) -> tuple[Item, ...]:
        """The items, repeated until the stack is full."""
        return (self.items * self.size)[: self.size]


def grouped(scale: Scale, missing: Iterable[Item]) -> list[Item | Group]:
    """The missing trainings as jobs: what shares all but optimizer, mixing and loss trains as one, stack by stack.

    Who shares a stack is free, for companions change no bit. Its size does change some, and depends on the run alone.
    """
    jobs: list[Item | Group] = []
    stacks: dict[tuple[str, int], list[Item]] = {}
    for item in missing:
        shared = item.run.replace(optim=Optim(lr=0.0), mix=Mix(), loss=Loss())
        if (size := scale.stack_of(item.run)) > 1:
            stacks.setdefault((shared.key, size), []).append(item)
        else:
            jobs.append(item)
    for (_, size), items in stacks.items():
        jobs += [Group(tuple(items[start : start + size]), size) for start in range(0, len(items), size)]
    return jobs


def items_of(scale: Scale, runs: Iterable[Run], seeds: int | None = None) -> list[Item]:
    """Every (run, seed), in the order of the runs."""
    return [Item(run, seed, directory_of(scale, run, seed)) for run in runs for seed in seeds_of(scale, run, seeds)]


def items_of_table(
    scale: Scale, table: Table, rows: Iterable[str] | None = None, seeds: int | None = None
) -> list[Item]:
    """Every (run, seed) that a table, or some of its rows, shows or needs; runs that another table owns included."""
    if rows is None:
        return items_of(scale, table.runs.values(), seeds)
    cells = {cell: run for cell, run in table.cells.items() if cell[0] in set(rows)}
    runs = {run.key: run for run in cells.values()}
    for evaluation in filter(None, map(table.evaluation, cells)):
        runs |= {key: table.runs[key] for key, _ in evaluation.sources.values()}
    return items_of(scale, runs.values(), seeds)


def state(item: Any) -> str:
    """Of a training or an evaluation one of finished, older code, started, not started, damaged."""
    try:
        result = item.read()
    except run_directory.RunError:
        return DAMAGED
    if result is None:
        return STARTED if item.begun else ABSENT
    return FINISHED if result.get("fingerprint") == item.code else OLDER


def is_open(scale: Scale, item: Any) -> bool:
    """Whether the scale asks for this job: not finished, or finished by other code where that matters."""
    found = state(item)
    return found != FINISHED and not (found == OLDER and not scale.retrain_on_code_change)


def activity(item: Item) -> str:
    """As `state`, but a started run is told apart as running or failed by what lies in its directory."""
    found = state(item)
    if found != STARTED:
        return found
    lock, log = item.directory / "lock", item.directory / "log.txt"
    if lock.exists() and time.time() - lock.stat().st_mtime < LIVELY_SECONDS:
        return "running"
    last = log.read_text().splitlines()[-1:] if log.exists() else []
    return "failed" if last and last[0].startswith("failed:") else found
