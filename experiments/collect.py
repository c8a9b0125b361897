"""Run directories -> results/<scale>/<table>.json, the committed record behind tables, figures and report."""

import json
import statistics
from pathlib import Path
from typing import Any

from experiments import evaluations
from experiments.claims import Claim, Evidence, paired_differences, t_interval
from experiments.registry import owners
from experiments.runs import is_older, items_of, read_item
from experiments.scale import Scale
from experiments.table import Column, Reference, Row, Table
from lumix.evaluate.evaluation import read_arrays
from lumix.train import run_directory

SCHEMA = 1
CURVE = ("epoch", "loss", "top1", "lam_0", "lam", "perturbation")
Results = dict[str, dict[int, dict[str, Any]]]  # run key -> seed -> result.json
Measured = dict[tuple[str, str], dict[int, dict[str, Any]]]  # (run key, evaluation key) -> seed -> its outcome


def results_path(scale: Scale, table: str) -> Path:
    """Where the record of a table lies, relative to the project's root."""
    return Path("results", scale.name, f"{table}.json")


def collect(scale: Scale, table: Table, seeds: int | None = None) -> dict[str, Any]:
    """The record of one table from whatever is finished: cells, differences, claims, runs.

    Raises:
        RunError: for a damaged file in a run directory, naming it and the remedy.
    """
    results: Results = {key: {} for key in table.runs}
    runs: dict[str, Any] = {}
    for key, run in table.runs.items():
        of_seeds = {}
        for item in items_of(scale, [run], seeds):
            if (result := read_item(item)) is not None:
                result |= result.pop("measured")
                results[key][item.seed] = result
                curve = run_directory.read_metrics(item.directory)
                of_seeds[str(item.seed)] = _without_lambda(result) | {"curve": [_reduced(epoch) for epoch in curve]}
        runs[key] = {"config": run.to_dict(), "owner": owners(scale)[key], "seeds": of_seeds}
    measured = _measured(scale, table, results, seeds)
    _add_evaluations(runs, measured)
    evidence = _evidence(scale, table, results, measured)
    owned = [key for key in table.runs if owners(scale)[key] == table.id]
    return {
        "schema": SCHEMA,
        "table": table.id,
        "title": table.title,
        "paper_table": table.paper_table,
        "scale": scale.name,
        "setting": table.setting or scale.text,
        "statistic": "last",
        "metric": table.metric,
        "label_columns": [{"id": column.id, "title": column.title} for column in table.label_columns],
        "value_columns": [_value_column(column) for column in table.value_columns],
        "baseline": {"row": table.baseline[0], "column": table.baseline[1]} if table.baseline else None,
        "rows": [_row(scale, table, row, results, measured, evidence, seeds) for row in table.rows],
        "claims": [_claim(claim, evidence) for claim in table.claims],
        "runs": runs,
        "seconds": round(sum(r["seconds"] for key in owned for r in results[key].values()), 1),
        **_evaluations(table, measured),
    }


def _value_column(column: Column) -> dict[str, Any]:
    if column.lower_is_better:
        return {"id": column.id, "title": f"{column.title} (lower is better)", "lower_is_better": True}
    return {"id": column.id, "title": column.title}


def _measured(scale: Scale, table: Table, results: Results, seeds: int | None) -> Measured:
    """The outcomes of the table's evaluations on runs that are finished."""
    found: Measured = {pair: {} for pair in table.evaluations}
    for item in evaluations.evaluation_items(scale, table, seeds=seeds):
        key, seed = item.item.run.key, item.item.seed
        if seed in results[key] and (outcome := evaluations.read(item)) is not None:
            arrays = read_arrays(item.cache, item.evaluation)
            found[key, item.evaluation.key][seed] = outcome | {"arrays": {n: _listed(a) for n, a in arrays.items()}}
    return found


def _listed(array: Any) -> Any:
    """A NumPy array as nested lists, for figures; floats to 4 decimals."""
    return (array.round(4) if array.dtype.kind == "f" else array).tolist()


def _add_evaluations(runs: dict[str, Any], measured: Measured) -> None:
    """Put every number and array of the evaluations beside the seeds that they are of."""
    for (key, evaluation), by_seed in measured.items():
        for seed, outcome in by_seed.items():
            shown = {name: outcome[name] for name in ("values", "n_samples", "facts", "arrays")}
            shown["seconds"] = outcome["measured"]["seconds"]
            runs[key]["seeds"][str(seed)].setdefault("evaluations", {})[evaluation] = _rounded_values(shown)


def _rounded_values(shown: dict[str, Any]) -> dict[str, Any]:
    values = {name: round(value, 4) for name, value in shown["values"].items()}
    return shown | {"values": values, "seconds": round(shown["seconds"], 2)}


def _evaluations(table: Table, measured: Measured) -> dict[str, Any]:
    """What each evaluation of the table is, and what it took; nothing for a table of training results."""
    protocols = {evaluation.key: evaluation.to_dict() for evaluation in table.evaluations.values()}
    for key, protocol in protocols.items():
        outcomes = [o for (_, other), by_seed in measured.items() if other == key for o in by_seed.values()]
        protocol["seconds"] = round(sum(outcome["measured"]["seconds"] for outcome in outcomes), 1)
        protocol["n"] = len(outcomes)
    return {"evaluations": protocols} if protocols else {}


def write(scale: Scale, values: dict[str, Any]) -> Path:
    """Write a record atomically; rows, claims and runs take one line each, so that changes can be reviewed."""
    path = results_path(scale, values["table"])
    lines = []
    for name, value in values.items():
        if name in ("rows", "claims") and value:
            text = "[\n" + ",\n".join("  " + _json(entry) for entry in value) + "\n ]"
        elif name in ("runs", "evaluations") and value:
            text = "{\n" + ",\n".join(f"  {_json(key)}: {_json(entry)}" for key, entry in value.items()) + "\n }"
        else:
            text = _json(value)
        lines.append(f" {_json(name)}: {text}")
    run_directory.write_text(path, "{\n" + ",\n".join(lines) + "\n}\n")
    return path


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _evidence(scale: Scale, table: Table, results: Results, measured: Measured) -> Evidence:
    values = {}
    for cell, run in table.cells.items():
        evaluation = table.evaluation(cell)
        if evaluation is None:
            values[cell] = {seed: float(result["top1"]["last"]) for seed, result in results[run.key].items()}
        else:
            outcomes = measured[run.key, evaluation.key].items()
            values[cell] = {seed: _metric(outcome, table.metric_of(cell)) for seed, outcome in outcomes}
    return Evidence(values, table.paper, at_paper_scale=scale.replicates)


def _metric(outcome: dict[str, Any], name: str) -> float:
    if name not in outcome["values"]:
        raise ValueError(f"{outcome['key']} has no number {name!r}; it has {', '.join(outcome['values'])}")
    return float(outcome["values"][name])


def _claim(claim: Claim, evidence: Evidence) -> dict[str, Any]:
    return {
        "id": claim.id,
        "text": claim.text,
        "source": claim.source,
        "register": list(claim.register),
        **_rounded(claim.predicate.judge(evidence).to_dict()),
    }


def _row(
    scale: Scale,
    table: Table,
    row: Row,
    results: Results,
    measured: Measured,
    evidence: Evidence,
    seeds: int | None,
) -> dict[str, Any]:
    cells = {
        column.id: _cell(scale, table, row, (row.id, column.id), results, measured, evidence, seeds)
        for column in table.value_columns
    }
    return {"id": row.id, "labels": dict(row.labels), "ours": row.ours, "note": row.note, "cells": cells}


def _cell(
    scale: Scale,
    table: Table,
    row: Row,
    cell: Reference,
    results: Results,
    measured: Measured,
    evidence: Evidence,
    seeds: int | None,
) -> dict[str, Any]:
    run = table.cells.get(cell)
    values = evidence.values.get(cell, {})
    found = results[run.key] if run else {}
    evaluation = table.evaluation(cell) if run else None
    outcomes = measured[run.key, evaluation.key] if run and evaluation else {}
    shown, what = (outcomes, "evaluation") if evaluation else (found, "run")
    status, reason = "done", ""
    if run is None:
        status, reason = "not at this scale", row.unavailable
    elif not values:
        status, reason = "not run", f"no finished {what if found else 'run'}"
    elif len(values) < (wanted := len(items_of(scale, [run], seeds))):
        reason = f"{len(values)} of {wanted} seeds are {'evaluated' if evaluation else 'finished'}"
    numbers = list(values.values())
    return _rounded(
        {
            "status": status,
            "reason": reason,
            "paper": table.paper.get(cell),
            "mean": statistics.fmean(numbers) if numbers else None,
            "std": statistics.stdev(numbers) if len(numbers) > 1 else None,
            "n": len(numbers),
            "values": {str(seed): value for seed, value in sorted(values.items())},
            "run": run.key if run else None,
            "n_samples": next((result["n_samples"] for result in shown.values()), None),
            "older_code": any(map(is_older, found.values())) or any(map(evaluations.is_older, outcomes.values())),
            "difference": _difference(table, cell, evidence),
            **({"evaluation": evaluation.key, "metric": table.metric_of(cell)} if evaluation else {}),
        }
    )


def _difference(table: Table, cell: Reference, evidence: Evidence) -> dict[str, Any] | None:
    """The cell less the one it is compared with, paired by seed; None where either has no value."""
    to = table.against(cell)
    mine, other = evidence.values.get(cell), evidence.values.get(to) if to else None
    if to is None or not mine or not other:
        return None
    differences = paired_differences([mine], [other])
    if not differences:
        return None
    interval = t_interval(differences)
    both = cell in table.paper and to in table.paper
    paper = round(table.paper[cell] - table.paper[to], 2) if both else None
    return {
        "to": list(to),
        "mean": interval.mean,
        "low": interval.low,
        "high": interval.high,
        "n": interval.n,
        "paper": paper,
    }


def _without_lambda(result: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in result.items() if name != "lambda"}


def _reduced(epoch: dict[str, Any]) -> dict[str, Any]:
    """One point of a training curve with five significant digits, enough for a figure."""
    return {
        name: float(f"{epoch[name]:.5g}") if isinstance(epoch[name], float) else epoch[name]
        for name in CURVE
        if name in epoch
    }


def _rounded(value: Any) -> Any:
    """Floats to six decimals, so that a record does not change with the order of a sum."""
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {name: _rounded(entry) for name, entry in value.items()}
    return value
