"""Reads what the report and the figures may know: params.yaml and results/<scale>/*.json, nothing else."""

import json
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from lumix.train.config import Data, Loss, Mix, Optim

SCALES = ("mini", "lab", "paper")
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
        merged: dict[str, dict[str, Any]] = {}
        for table in self.tables:
            for key, run in self.records.get(table, {"runs": {}})["runs"].items():
                seeds = {**merged.get(key, {}).get("seeds", {}), **run["seeds"]}
                merged[key] = {**run, "seeds": dict(sorted(seeds.items(), key=lambda item: int(item[0])))}
        return dict(sorted(merged.items()))


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


def read_record(path: Path) -> dict[str, Any]:
    """One results file.

    Raises:
        ValueError: for a damaged or foreign file, naming it.
    """
    remedy = f"restore it with git checkout {path} or make it again with python -m experiments run {path.stem}"
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error}): {remedy}") from None
    absent = [name for name in NEEDED if not isinstance(record, dict) or name not in record]
    if absent or record.get("schema") != 1:
        what = f"without the field {absent[0]!r}" if absent else f"of schema {record.get('schema')!r} instead of 1"
        raise ValueError(f"{path} is a results file {what}: {remedy}")
    for run in record["runs"].values():
        run["config"] = _completed(run["config"])
    return dict(record)


def _completed(config: dict[str, Any]) -> dict[str, Any]:
    """A run's configuration with the defaults of the fields that came after it was recorded."""
    parts = {}
    for name, kind in (("data", Data), ("optim", Optim), ("mix", Mix), ("loss", Loss)):
        defaults = {field.name: field.default for field in fields(kind) if field.default is not MISSING}
        parts[name] = {**defaults, **config[name]}
    return {**config, **parts}


def read_results(root: Path, scale: str | None = None) -> Results:
    """The results of one scale, that of params.yaml unless another is named."""
    parameters = read_parameters(root)
    scale = scale or str(parameters["scale"])
    tables = tuple(parameters["tables"])
    paths = {table: root / "results" / scale / f"{table}.json" for table in tables}
    return Results(scale, tables, {table: read_record(path) for table, path in paths.items() if path.exists()})


def all_results(root: Path) -> list[Results]:
    """The scale of params.yaml first, run or not, then the other scales that have results."""
    first = read_results(root)
    others = [read_results(root, scale) for scale in SCALES if scale != first.scale]
    return [first, *(results for results in others if results.records)]


def cells(record: dict[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]:
    """(row, value column, cell) of a table, row by row; a combination that the table does not have is left out."""
    for row in record["rows"]:
        for column in record["value_columns"]:
            if column["id"] in row["cells"]:
                yield row, column, row["cells"][column["id"]]
