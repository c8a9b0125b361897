"""Reads what report and figures may know: params.yaml, results/<scale>/ and, where asked, measured/<scale>/."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments import results
from experiments.params import read_params
from experiments.registry import TABLES
from experiments.results import Results
from experiments.scale import NAMES, get_scale


def read_results(root: Path, scale: str | None = None, measured: bool = False) -> Results:
    """The results of one scale, that of params.yaml unless another is named; `measured` adds what measured/ holds.

    Tables and seeds that params.yaml chooses are those of its own scale.
    """
    params = read_params(root / "params.yaml")
    own = scale in (None, params.scale)
    tables, seeds = (params.tables, params.seeds) if own else (tuple(TABLES), None)
    return results.read_results(root, get_scale(scale or params.scale), tables, seeds, measured)


def all_results(root: Path, measured: bool = False) -> list[Results]:
    """Every scale that has results, and that of params.yaml; the nearest to the papers first."""
    asked = read_params(root / "params.yaml").scale
    every = [read_results(root, scale, measured) for scale in reversed(NAMES)]
    return [found for found in every if found.records or found.scale == asked]


def cells(record: dict[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]:
    """(row, value column, cell) of a table, row by row; columns of what is not read are left out."""
    for row in record["rows"]:
        for column in record["value_columns"]:
            if column["id"] in row["cells"]:
                yield row, column, row["cells"][column["id"]]
