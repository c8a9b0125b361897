"""Reads what report and figures may know: params.yaml, results/<scale>/ and, where asked, measured/<scale>/."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from experiments import records
from experiments.claims import INCONCLUSIVE
from experiments.intervals import LEVEL, holm
from experiments.scale import get_scale
from report import formatting

SCALES = ("mini", "small", "lab", "paper")
NEEDED = ("table", "title", "scale", "setting", "label_columns", "value_columns", "rows", "claims", "runs")


@dataclass(frozen=True)
class Results:
    """The results of one scale: the tables asked for, in order, and the records of those that were run."""

    scale: str
    tables: tuple[str, ...]
    records: dict[str, dict[str, Any]]

    @property
    def missing(self) -> list[str]:
        """Tables without a results file."""
        return [table for table in self.tables if table not in self.records]

    @property
    def runs(self) -> dict[str, dict[str, Any]]:
        """Every training run behind the tables, by run key; a run that several tables use appears once."""
        return dict(sorted({key: run for table in self.records.values() for key, run in table["runs"].items()}.items()))


def read_parameters(root: Path) -> dict[str, Any]:
    """params.yaml: the scale and the tables in registry order.

    Raises:
        ValueError: for a missing or damaged file, naming it.
    """
    path = root / "params.yaml"
    try:
        parameters = yaml.safe_load(path.read_text())
        scale, tables = parameters["scale"], parameters["tables"]
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}): run this in the root of the repository") from None
    except (yaml.YAMLError, KeyError, TypeError):
        raise ValueError(f"{path} must hold the keys scale and tables: restore it with git checkout {path}") from None
    if scale not in SCALES or not isinstance(tables, list):
        raise ValueError(f"{path} must hold one of the scales {', '.join(SCALES)} and a list of tables, not {scale!r}")
    return dict(parameters)


def read_results(root: Path, scale: str | None = None, measured: bool = False) -> Results:
    """The results of one scale, that of params.yaml unless another is named; `measured` adds what measured/ holds.

    Raises:
        ValueError: for a damaged or foreign file, naming it.
    """
    parameters = read_parameters(root)
    scale = scale or str(parameters["scale"])
    own = get_scale(scale).tables  # a scale may have some tables only
    tables = tuple(table for table in parameters["tables"] if not own or table in own)
    runs = records.read_runs(root, scale, measured)
    found = {}
    for table in tables:
        path, beside = root / records.results_path(scale, table), root / records.measured_path(scale, table)
        if path.exists():
            more = records.read_table(beside, ("runs",)) if measured and beside.exists() else None
            found[table] = records.joined(records.read_table(path, NEEDED), runs, more)
    correct(found)
    return Results(scale, tables, found)


def correct(records: dict[str, dict[str, Any]]) -> None:
    """Add to each claim "corrected", its p-value by Holm over the judged claims of its paper; too large is no verdict.

    What it says by itself stays as "alone".
    """
    for paper in {formatting.paper_of(table) for table in records}:
        of_paper = [record for table, record in records.items() if formatting.paper_of(table) == paper]
        claims = [claim for record in of_paper for claim in record["claims"] if claim.get("p") is not None]
        for claim, p in zip(claims, holm([claim["p"] for claim in claims]), strict=True):
            claim.update(corrected=p, of=len(claims), alone=claim["verdict"])
            if p >= LEVEL:
                claim["verdict"] = INCONCLUSIVE


def all_results(root: Path) -> list[Results]:
    """The scale of params.yaml first, run or not, then the other scales that have results."""
    first = read_results(root, measured=True)
    others = [read_results(root, scale, measured=True) for scale in SCALES if scale != first.scale]
    return [first, *(results for results in others if results.records)]


def cells(record: dict[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]:
    """(row, value column, cell) of a table, row by row; a combination that the table does not have is left out."""
    for row in record["rows"]:
        for column in record["value_columns"]:
            if column["id"] in row["cells"]:
                yield row, column, row["cells"][column["id"]]
