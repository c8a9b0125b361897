"""A table of the paper (or of ours): rows and columns of cells, each cell a run, beside the paper's own numbers."""

import csv
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from evaluation.evaluation import PROTOCOLS, Evaluation
from experiments.claims import Claim, read_claims
from experiments.scale import DEFAULT_SETTING, Scale
from experiments.suggest import choose
from training.config import Run

Reference = tuple[str, str]  # (row id, value column id)
STATISTICS = ("last", "best", "median_last")  # of the top-1 accuracies that a training evaluated
CURVE_MEAN = "curve_mean"  # a metric: the mean of the top-1 accuracies that a training evaluated
Method = Callable[[Run], Run]


@dataclass(frozen=True)
class Column:
    """A column: its id in files, its title on paper, and, for a column of values, what is measured."""

    id: str
    title: str
    evaluation: Evaluation | None = None  # of the run of each cell; None shows a number that training ended with
    metric: str = "top1"  # its name among the evaluation's values, or in the outcome of the training
    lower_is_better: bool = False  # said beside the title
    compared: bool = True  # whether its cells are set against the table's baseline
    digits: int = 0  # decimals where the paper prints none; 0 is those that it prints elsewhere


TOP1 = Column("top1", "Top-1")


@dataclass(frozen=True)
class Row:
    """A row: its labels and a run for each value column, or the reason why this scale has none.

    `evaluations` and `metrics` replace those of some columns, by column id. A row of average gains has no runs: by
    column id `gains` names the claim whose estimate a cell shows, with a minus before it the opposite.
    """

    id: str
    labels: Mapping[str, str]
    runs: Mapping[str, Run]
    ours: bool = False  # without counterpart in the paper
    note: str = ""
    unavailable: str = ""  # why `runs` lacks some or all columns at this scale
    compared_with: str = ""  # row whose cells, column by column, take the place of the table's baseline
    evaluations: Mapping[str, Evaluation] = field(default_factory=dict)
    metrics: Mapping[str, str] = field(default_factory=dict)
    gains: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """Rows and columns. `registry` adds the `folder` with paper.csv and claims.csv, and its name as `id`."""

    title: str
    paper_table: str | None
    label_columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    value_columns: tuple[Column, ...] = (TOP1,)
    id: str = ""
    folder: Path = Path()
    baseline: Reference | None = None  # what every other cell is compared with; None: the row's first value column
    metric: str = field(default="top-1 accuracy, %")
    statistic: str = "last"  # which of `STATISTICS` a cell without evaluation shows
    sources: tuple[Run, ...] = ()  # runs that evaluations need and no cell shows
    setting: str = ""  # data, models and budget of this table in a sentence, where they are not the scale's
    seeds: int = 0  # of its runs, where that is more than the scale's
    evaluated_seeds: int = 0  # most of its evaluations, where each is a training or a timing of its own; 0 is all
    headline: tuple[Reference, ...] = ()  # cells of a headline comparison, which have the most seeds

    def __post_init__(self) -> None:
        choose("statistic", self.statistic, STATISTICS)

    @cached_property
    def _printed(self) -> dict[Reference, str]:
        with open(self.folder / "paper.csv", newline="", encoding="utf-8") as file:
            return {(line["row"], line["column"]): line["value"] for line in csv.DictReader(file)}

    @cached_property
    def paper(self) -> dict[Reference, float]:
        """The paper's cells, from paper.csv."""
        return {cell: float(text) for cell, text in self._printed.items()}

    @cached_property
    def _digits(self) -> tuple[dict[Reference, int], int]:
        printed = {of: len(text.partition(".")[2]) for of, text in self._printed.items()}
        usual = statistics.mode(printed.values()) if printed else 2 if self.id.startswith("dm_") else 1
        return printed, usual

    def digits(self, cell: Reference) -> int:
        """Decimals of a cell: as the paper prints it, else as it prints most of its table, or of its other tables."""
        printed, usual = self._digits
        own = next((column.digits for column in self.value_columns if column.id == cell[1]), 0)
        return printed.get(cell, own or usual)

    @cached_property
    def claims(self) -> tuple[Claim, ...]:
        """The claims on cells that this scale has, from claims.csv."""
        columns = self.value_columns
        return read_claims(self.folder / "claims.csv", self.cells, columns[0].id if len(columns) == 1 else "")

    @cached_property
    def cells(self) -> dict[Reference, Run]:
        """Every cell that has a run at this scale."""
        return {(row.id, column): run for row in self.rows for column, run in row.runs.items()}

    @property
    def runs(self) -> dict[str, Run]:
        """The unique runs by key, in the order of the rows, and those that evaluations need."""
        return {run.key: run for run in (*self.cells.values(), *self.sources)}

    def evaluation(self, cell: Reference) -> Evaluation | None:
        """What measures the run of a cell; None for the top-1 accuracy of its training."""
        row, column = self._place(cell)
        return row.evaluations.get(column.id, column.evaluation)

    def metric_of(self, cell: Reference) -> str:
        """The name of a cell's number among the values of its evaluation."""
        row, column = self._place(cell)
        return row.metrics.get(column.id, column.metric)

    @property
    def measured_columns(self) -> set[str]:
        """The ids of the columns that show what a machine took, as speed, and not what code and seeds determine."""
        shown = ((cell[1], self.metric_of(cell), self.evaluation(cell)) for cell in self.cells)
        return {column for column, metric, one in shown if one and metric in PROTOCOLS[one.protocol].measured}

    @property
    def evaluations(self) -> dict[tuple[str, str], Evaluation]:
        """The unique evaluations of this table by run key and evaluation key."""
        return {(run.key, one.key): one for cell, run in self.cells.items() if (one := self.evaluation(cell))}

    def _place(self, cell: Reference) -> tuple[Row, Column]:
        row = next(row for row in self.rows if row.id == cell[0])
        return row, next(column for column in self.value_columns if column.id == cell[1])

    def against(self, cell: Reference) -> Reference | None:
        """The cell that `cell` is compared with; None for the reference itself and in columns without comparison."""
        row, column = self._place(cell)
        usual = self.baseline or (cell[0], self.value_columns[0].id)
        reference = (row.compared_with, cell[1]) if row.compared_with else usual
        return reference if column.compared and reference != cell else None


def make_row(
    scale: Scale,
    id: str,
    labels: Mapping[str, str],
    methods: Mapping[str, Method],
    role: str = "deit_s",
    ours: bool = False,
    note: str = "",
    setting: str = DEFAULT_SETTING,
) -> Row:
    """A row whose cells are methods applied to the base run of `role`; without runs where the scale lacks the role."""
    reason = scale.setting(setting).unavailable.get(role, "")
    runs = {} if reason else {column: method(scale.base(setting, role)) for column, method in methods.items()}
    return Row(id, labels, runs, ours, note, reason)


# A row of one cell, a network under one method: id, label of each column, method, note, ours.
Top1Row = tuple[str, tuple[str, ...], Method, str, bool]


def top1_table(
    scale: Scale,
    title: str,
    number: str | None,
    labels: Mapping[str, str],
    rows: Iterable[Top1Row],
    baseline: str = "none",
    role: str = "deit_s",
    setting: str = DEFAULT_SETTING,
) -> Table:
    """A table of such rows, each compared with the one named `baseline`."""
    return Table(
        title=title,
        paper_table=number,
        label_columns=tuple(Column(id, text) for id, text in labels.items()),
        rows=tuple(
            make_row(scale, id, dict(zip(labels, texts, strict=True)), {TOP1.id: method}, role, ours, note, setting)
            for id, texts, method, note, ours in rows
        ),
        baseline=(baseline, TOP1.id),
    )
