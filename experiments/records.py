"""The files of a collected table. What code and seeds determine lies in results/, what a machine measured in measured/.

    results/<scale>/<table>.json              rows, cells, claims; runs by key, each with the table that owns it
    results/<scale>/runs/<table>/<key>.json   configuration, outcome and curve of a run the table owns, and what its
                                              evaluations found on a run of any table
    measured/<scale>/<table>.json             seconds, speeds, memory, hardware, commit; cells and claims about them

A record as `collect` makes it, and as report and figures read it, is all of this in one: `files` takes it apart,
`read_runs` and `joined` put it together again.
"""

import json
import textwrap
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from evaluation.evaluation import measured_names
from experiments.registry import evaluation_owners
from experiments.scale import Scale
from training import run_directory
from training.config import Run

SCHEMA = 2
WIDTH = 120
# Of result.json and of an evaluation's file; the code's fingerprint says what made them, and decides no number.
MEASURED = frozenset(("seconds", "images_per_second", "hardware", "commit", "dirty", "processes", "fingerprint"))


def results_path(scale: str, table: str) -> Path:
    """Where the record of a table lies, relative to the project's root."""
    return Path("results", scale, f"{table}.json")


def run_path(scale: str, owner: str, key: str) -> Path:
    """Where a table keeps what it owns of a run."""
    return Path("results", scale, "runs", owner, f"{key}.json")


def measured_path(scale: str, table: str) -> Path:
    """Where the measurements of a table lie."""
    return Path("measured", scale, f"{table}.json")


def flat(found: Mapping[str, Any]) -> dict[str, Any]:
    """A result.json, or the file of an evaluation, with its measurements beside its outcome."""
    return {name: value for name, value in found.items() if name != "measured"} | found.get("measured", {})


def merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Both in one, dictionary by dictionary; where both have a value, the second's."""
    found = dict(first)
    for name, value in second.items():
        old = found.get(name)
        found[name] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return found


def divided(found: Mapping[str, Any], names: Collection[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Those entries that are not among the names, and those that are."""
    measured = {name: value for name, value in found.items() if name in names}
    return {name: value for name, value in found.items() if name not in names}, measured


# ------------------------------------------------------------------------------------------------- writing


def files(scale: Scale, record: Mapping[str, Any]) -> dict[Path, dict[str, Any]]:
    """A record as its files, path -> content. Of runs and evaluations that another table owns: a part of its files."""
    table, name = record["table"], scale.name
    measured_columns = {column["id"] for column in record["value_columns"] if column.get("measured")}
    rows, cells, older = [], {}, []
    for row in record["rows"]:
        older += [[row["id"], column] for column, cell in row["cells"].items() if cell["older_code"]]
        plain = {column: divided(cell, ("older_code",))[0] for column, cell in row["cells"].items()}
        kept, cells[row["id"]] = divided(plain, measured_columns)
        rows.append({**row, "cells": kept})
    about_speed = [claim for claim in record["claims"] if claim.get("measured")]
    determined = {
        **record,
        "rows": rows,
        "claims": [claim for claim in record["claims"] if not claim.get("measured")],
        "runs": {key: run["owner"] for key, run in record["runs"].items()},
    }
    measured = {
        **_measurements(name, table),
        "cells": {row: found for row, found in cells.items() if found},
        "claims": about_speed,
        "older_code": older,
    }
    found = {results_path(name, table): determined, measured_path(name, table): measured | {"runs": {}}}
    for key, run in record["runs"].items():
        for path, part in _run_files(scale, record, key, run).items():
            found[path] = merged(found.get(path, {}), part)
    return found


def _run_files(scale: Scale, record: Mapping[str, Any], key: str, run: Mapping[str, Any]) -> dict[Path, dict[str, Any]]:
    """What the files of the tables that own a run and its evaluations hold of it."""
    owner = run["owner"]
    found: dict[Path, dict[str, Any]] = {}
    if owner == record["table"] or run["seeds"]:
        found[run_path(scale.name, owner, key)] = {"config": run["config"].to_dict(), "seeds": {}}

    def put(owner: str, part: dict[str, Any], measured: dict[str, Any]) -> None:
        beside = _measurements(scale.name, owner)
        for path, value in (
            (run_path(scale.name, owner, key), {"seeds": part}),
            (measured_path(scale.name, owner), beside | {"runs": {key: {"seeds": measured}}}),
        ):
            found[path] = merged(found.get(path, {}), value)

    for seed, result in run["seeds"].items():
        training, measured = divided(result, MEASURED)
        put(owner, {seed: {n: v for n, v in training.items() if n != "evaluations"}}, {seed: measured})
        for evaluation, outcome in result.get("evaluations", {}).items():
            part, measured = divided(outcome, MEASURED)
            names = measured_names(record["evaluations"][evaluation]["protocol"])
            part["values"], values = divided(outcome["values"], names)
            measured |= {"values": values} if values else {}
            of_table = evaluation_owners(scale)[key, evaluation]
            put(of_table, *({seed: {"evaluations": {evaluation: value}}} for value in (part, measured)))
    return found


def _measurements(scale: str, table: str) -> dict[str, Any]:
    """The head of a file in measured/; all that such a file holds until its own table is collected, but runs."""
    return {"schema": SCHEMA, "table": table, "scale": scale}


def write(scale: Scale, record: Mapping[str, Any]) -> Path:
    """Write the files of a record; returns the path of the table's.

    Of the files of other tables the parts that this record knows are renewed. Files of runs that the table no longer
    has are removed.
    """
    table = record["table"]
    found = files(scale, record)
    own = {results_path(scale.name, table), measured_path(scale.name, table)}
    folder = run_path(scale.name, table, "").parent
    for path, content in found.items():
        renewed = path not in own and path.parent != folder and path.exists()
        run_directory.write_text(path, as_text(merged(run_directory.read_json(path), content) if renewed else content))
    for path in folder.glob("*.json"):
        if path not in found:
            path.unlink()
    return results_path(scale.name, table)


def as_text(value: Any) -> str:
    """JSON of which a line holds one value, or a small group of them, so that a change can be read line by line."""
    return _lines(value, 0) + "\n"


def _lines(value: Any, indent: int) -> str:
    """On one line what fits; else an entry a line, and long lists of numbers as a filled paragraph."""
    line = json.dumps(value, ensure_ascii=False, allow_nan=False)
    if not isinstance(value, dict | list) or indent + len(line) <= WIDTH:
        return line
    pad, end = " " * (indent + 1), "\n" + " " * indent
    if isinstance(value, dict):
        names = [json.dumps(name, ensure_ascii=False) for name in value]
        entries = [f"{pad}{n}: {_lines(v, indent + 1)}" for n, v in zip(names, value.values(), strict=True)]
        return "{\n" + ",\n".join(entries) + end + "}"
    if all(isinstance(entry, int | float) for entry in value):
        return "[\n" + textwrap.fill(line[1:-1], WIDTH, initial_indent=pad, subsequent_indent=pad) + end + "]"
    return "[\n" + ",\n".join(pad + _lines(entry, indent + 1) for entry in value) + end + "]"


# ------------------------------------------------------------------------------------------------- reading


def read(path: Path) -> dict[str, Any]:
    """One of the files.

    Raises:
        ValueError: for a damaged file, naming it and the remedy.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error}): {_remedy(path)}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} is no record: {_remedy(path)}")
    return found


def _remedy(path: Path) -> str:
    table = path.parent.name if path.parent.parent.name == "runs" else path.stem
    return f"restore it with git checkout {path} or make it again with python -m experiments run {table}"


def read_table(path: Path, needed: Collection[str]) -> dict[str, Any]:
    """The file of a table in results/ or measured/.

    Raises:
        ValueError: for a damaged or foreign file, naming it and the remedy.
    """
    found = read(path)
    absent = [name for name in needed if name not in found]
    if absent or found.get("schema") != SCHEMA:
        what = (
            f"without the field {absent[0]!r}" if absent else f"of schema {found.get('schema')!r} instead of {SCHEMA}"
        )
        raise ValueError(f"{path} is a results file {what}: {_remedy(path)}")
    return found


def read_runs(root: Path, scale: str, measured: bool = True) -> dict[str, dict[str, Any]]:
    """Run key -> its configuration, owner and seeds with outcome, curve and evaluations; of every run of a scale.

    `measured` adds what was measured to each seed and each evaluation. A run without configuration is left out: the
    table that owns it was not collected.
    """
    runs: dict[str, dict[str, Any]] = {}
    for path in sorted((root / "results" / scale / "runs").glob("*/*.json")):
        part = read(path)
        owner = {"owner": path.parent.name} if "config" in part else {}
        runs[path.stem] = merged(runs.get(path.stem, {}), {**part, **owner})
    runs = {key: run for key, run in runs.items() if "config" in run}
    for run in runs.values():
        run["config"] = Run.from_dict(run["config"])
        run["seeds"] = {
            seed: run["seeds"][seed] for seed in sorted(run["seeds"], key=int) if "top1" in run["seeds"][seed]
        }
    for path in sorted((root / "measured" / scale).glob("*.json")) if measured else ():
        for key, part in read_table(path, ("runs",))["runs"].items():
            seeds = runs.get(key, {}).get("seeds", {})
            for seed, values in part["seeds"].items():
                if seed in seeds:
                    seeds[seed] = merged(seeds[seed], values)
    return runs


def joined(record: Mapping[str, Any], runs: Mapping[str, Any], measured: Mapping[str, Any] | None) -> dict[str, Any]:
    """The file of a table with its runs, and with the cells and claims of measured/ where they are given."""
    measured = measured or {}
    older = {(row, column) for row, column in measured.get("older_code", ())}
    rows = []
    for row in record["rows"]:
        both = row["cells"] | measured.get("cells", {}).get(row["id"], {})
        columns = [column["id"] for column in record["value_columns"] if column["id"] in both]
        cells = {column: {**both[column], "older_code": (row["id"], column) in older} for column in columns}
        rows.append({**row, "cells": cells})
    return {
        **record,
        "rows": rows,
        "claims": [*record["claims"], *measured.get("claims", ())],
        "runs": {key: runs[key] for key in record["runs"] if key in runs},
    }
