"""What the run directories of a scale hold: which trainings and evaluations are made, by which code, and which not."""

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from evaluation.evaluation import Evaluation, fingerprint, read_evaluation
from experiments.registry import directory_of, seeds_of, tables_of
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
    size: ClassVar[int] = 1

    @property
    def name(self) -> str:
        return f"{self.run.key} seed {self.seed}"

    @property
    def items(self) -> "tuple[Item, ...]":
        return (self,)

    def read(self) -> dict[str, Any] | None:
        """Its result.json, None while it is not finished."""
        result = run_directory.read_result(self.directory)
        if result is not None and not _is_whole(result):
            raise run_directory.RunError(
                f"{self.directory / 'result.json'} is not whole: delete it and run the same command again"
            )
        if result is not None and (result["key"], result.get("seed")) != (self.run.key, self.seed):
            raise run_directory.RunError(
                f"{self.directory} holds the result of {result['key']} seed {result.get('seed')}, not of {self.name}: "
                f"move that folder away and run the same command again"
            )
        return result


def _is_whole(result: dict[str, Any]) -> bool:
    """Whether a result.json holds what records are made of."""
    if not isinstance(result.get("top1"), dict) or not isinstance(result.get("measured", {}), dict):
        return False
    numbers = (*result["top1"].values(), result.get("n_samples"))
    finite = all(type(number) in (int, float) and math.isfinite(number) for number in numbers)
    return finite and isinstance(result.get("checksum"), str)


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


@dataclass(frozen=True)
class EvaluationItem:
    """One evaluation of one training, kept in its run directory, and that of each second model it needs."""

    item: Item
    evaluation: Evaluation
    others: dict[str, Path]
    items: ClassVar[tuple[Item, ...]] = ()

    @property
    def name(self) -> str:
        return f"{self.evaluation.key} of {self.item.name}"

    @property
    def place(self) -> Path:
        """Its file, less the ending."""
        return self.item.directory / "eval" / self.evaluation.key

    def read(self) -> dict[str, Any] | None:
        """The outcome for the weights that there are now, None while it is missing; RunError for a damaged file."""
        return read_evaluation(self.item.directory, self.evaluation, self.others)

    @property
    def needs(self) -> frozenset[Path]:
        """The run directories that must be finished first."""
        return frozenset((self.item.directory, *self.others.values()))


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


def evaluation_item(scale: Scale, table: Table, run: Run, evaluation: Evaluation, seed: int) -> EvaluationItem:
    """The evaluation of one seed of a run of `table`."""
    others = {}
    for name, (key, fixed) in evaluation.sources.items():
        if key not in table.runs:
            raise ValueError(f"{evaluation.key} needs the run {key} as its {name}: add it to sources of {table.id}")
        others[name] = directory_of(scale, table.runs[key], seed if fixed is None else fixed)
    return EvaluationItem(Item(run, seed, directory_of(scale, run, seed)), evaluation, others)


def evaluation_items(
    scale: Scale, table: Table, rows: Iterable[str] | None = None, seeds: int | None = None
) -> list[EvaluationItem]:
    """Every evaluation that a table, or some of its rows, shows, in the order of the cells."""
    cells = table.cells if rows is None else [cell for cell in table.cells if cell[0] in set(rows)]
    shown = ((table.cells[cell], table.evaluation(cell)) for cell in cells)
    wanted = {(run.key, evaluation.key): (run, evaluation) for run, evaluation in shown if evaluation}
    return [
        evaluation_item(scale, table, run, evaluation, seed)
        for run, evaluation in wanted.values()
        for seed in evaluated_seeds(scale, table, run, seeds)
    ]


def evaluated_seeds(scale: Scale, table: Table, run: Run, seeds: int | None) -> range:
    """The seeds of a run whose evaluations a table shows."""
    wanted = seeds_of(scale, run, seeds)
    return wanted[: table.evaluated_seeds or None]


def ready_with(scale: Scale, run: Run, seed: int) -> list[EvaluationItem]:
    """The evaluations of all tables that need this training, are not made, and whose other trainings are finished."""
    directory = directory_of(scale, run, seed)
    items = {
        item.place: item
        for table in tables_of(scale)
        for item in evaluation_items(scale, table, seeds=seed + 1)
        if directory in item.needs
    }
    finished = [item for item in items.values() if all((need / "result.json").exists() for need in item.needs)]
    return [item for item in finished if is_open(scale, item)]


def state(item: Item | EvaluationItem) -> str:
    """Of a training or an evaluation one of finished, older code, started, not started, damaged."""
    try:
        result = item.read()
    except run_directory.RunError:
        return DAMAGED
    if result is None:
        return STARTED if isinstance(item, Item) and (item.directory / "environment.json").exists() else ABSENT
    code = run_directory.code_fingerprint() if isinstance(item, Item) else fingerprint()
    return FINISHED if result.get("fingerprint") == code else OLDER


def is_open(scale: Scale, item: Item | EvaluationItem) -> bool:
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
    last = log.read_text(errors="replace").splitlines()[-1:] if log.exists() else []
    return "failed" if last and last[0].startswith("failed:") else found
