"""The evaluations that tables ask of trained runs: which there are, where they are kept, and which are missing."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.evaluation import Evaluation, fingerprint, read_evaluation
from experiments.registry import directory_of, seeds_of, tables_of
from experiments.runs import Item, is_open
from experiments.scale import Scale
from experiments.table import Table
from training.config import Run


@dataclass(frozen=True)
class EvaluationItem:
    """One evaluation of one training, kept in its run directory, and that of each second model it needs."""

    item: Item
    evaluation: Evaluation
    others: dict[str, Path]

    @property
    def name(self) -> str:
        return f"{self.evaluation.key} of {self.item.name}"

    @property
    def place(self) -> Path:
        """Its file, less the ending."""
        return self.item.directory / "eval" / self.evaluation.key

    @property
    def code(self) -> str:
        """The fingerprint of the code that would make it now."""
        return fingerprint()

    @property
    def begun(self) -> bool:
        return False

    def read(self) -> dict[str, Any] | None:
        """The outcome for the weights that there are now, None while it is missing; RunError for a damaged file."""
        return read_evaluation(self.item.directory, self.evaluation, self.others)

    @property
    def needs(self) -> frozenset[Path]:
        """The run directories that must be finished first."""
        return frozenset((self.item.directory, *self.others.values()))


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
    chosen = None if rows is None else set(rows)
    wanted: dict[tuple[str, str], tuple[Run, Evaluation]] = {}
    for cell, run in table.cells.items():
        evaluation = table.evaluation(cell)
        if evaluation is not None and (chosen is None or cell[0] in chosen):
            wanted[run.key, evaluation.key] = run, evaluation
    return [
        evaluation_item(scale, table, run, evaluation, seed)
        for run, evaluation in wanted.values()
        for seed in evaluated_seeds(scale, table, run, seeds)
    ]


def evaluated_seeds(scale: Scale, table: Table, run: Run, seeds: int | None) -> range:
    """The seeds of a run whose evaluations a table shows."""
    wanted = seeds_of(scale, run, seeds)
    return wanted[: table.evaluated_seeds] if table.evaluated_seeds and seeds is None else wanted


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
