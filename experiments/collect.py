"""Run directories -> the record of one table: cells, differences, claims, runs. `records` says how it is kept."""

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.evaluation import read_arrays
from experiments import evaluations
from experiments.claims import Claim, Evidence
from experiments.intervals import paired_differences, t_interval
from experiments.records import SCHEMA, flat, read_runs
from experiments.registry import owners, seeds_of
from experiments.runs import is_older, items_of, read_item
from experiments.scale import Scale
from experiments.table import Column, Reference, Row, Table
from training import run_directory
from training.config import Run

CURVE = ("epoch", "loss", "top1", "top1_mixed", "top2_mixed", "lam_0", "lam", "perturbation")
EVALUATED = ("values", "facts", "n_samples", "arrays", "seconds", "fingerprint")
NOT_RECORDED = ("key", "seed", "lambda")
Results = dict[str, dict[int, dict[str, Any]]]  # run key -> seed -> result.json
Outcomes = dict[tuple[str, str], dict[int, dict[str, Any]]]  # (run key, evaluation key) -> seed -> its outcome


@dataclass(frozen=True)
class Finished:
    """What is finished of a table."""

    scale: Scale
    table: Table
    seeds: int | None
    results: Results
    outcomes: Outcomes

    @property
    def evidence(self) -> Evidence:
        """The number of each cell and seed."""
        values = {}
        for cell, run in self.table.cells.items():
            evaluation = self.table.evaluation(cell)
            metric = self.table.metric_of(cell)
            if evaluation is None:
                found = self.results[run.key].items()
                values[cell] = {seed: float(result[metric][self.table.statistic]) for seed, result in found}
            else:
                outcomes = self.outcomes[run.key, evaluation.key].items()
                values[cell] = {seed: _metric(outcome, metric) for seed, outcome in outcomes}
        return Evidence(values, self.table.paper, at_paper_scale=self.scale.replicates)


def collect(scale: Scale, table: Table, seeds: int | None = None) -> dict[str, Any]:
    """The record of one table from whatever is finished. Its runs have a `Run` as "config".

    At a scale whose runs are kept when the code changes, seeds that are recorded already and have no run directory here
    stay as they are: several machines can add to one record.

    Raises:
        RunError: for a damaged file in a run directory, naming it and the remedy.
    """
    finished, runs = _finished(scale, table, seeds)
    evidence, measured = finished.evidence, table.measured_columns
    return {
        "schema": SCHEMA,
        "table": table.id,
        "title": table.title,
        "paper_table": table.paper_table,
        "scale": scale.name,
        "setting": table.setting or scale.text,
        "statistic": table.statistic,
        "metric": table.metric,
        "label_columns": [{"id": column.id, "title": column.title} for column in table.label_columns],
        "value_columns": [_value_column(column, column.id in measured) for column in table.value_columns],
        "baseline": {"row": table.baseline[0], "column": table.baseline[1]} if table.baseline else None,
        "rows": [_row(finished, row, evidence) for row in table.rows],
        "claims": [_claim(claim, evidence, measured) for claim in table.claims],
        "runs": runs,
        "evaluations": {evaluation.key: evaluation.to_dict() for evaluation in table.evaluations.values()},
    }


def _finished(scale: Scale, table: Table, seeds: int | None) -> tuple[Finished, dict[str, Any]]:
    """What is finished, and the runs as they are recorded."""
    results: Results = {key: {} for key in table.runs}
    runs: dict[str, Any] = {}
    recorded = {} if scale.retrain_on_code_change else read_runs(Path(), scale.name)  # maybe by other machines
    for key, run in table.runs.items():
        of_seeds: dict[str, Any] = {}
        for item in items_of(scale, [run], seeds):
            old = recorded.get(key, {"seeds": {}})["seeds"].get(str(item.seed))
            if (result := read_item(item)) is not None:
                results[key][item.seed] = result
                curve = [_reduced(epoch) for epoch in run_directory.read_metrics(item.directory)]
                shown = {name: value for name, value in flat(result).items() if name not in NOT_RECORDED}
                of_seeds[str(item.seed)] = shown | {"curve": curve}
            elif old is not None:
                results[key][item.seed] = of_seeds[str(item.seed)] = old
        runs[key] = {"config": run, "owner": owners(scale)[key], "seeds": of_seeds}
    outcomes: Outcomes = {pair: {} for pair in table.evaluations}
    for made in evaluations.evaluation_items(scale, table, seeds=seeds):
        key, evaluation, seed = made.item.run.key, made.evaluation, made.item.seed
        if seed in results[key] and (outcome := evaluations.read(made)) is not None:
            outcomes[key, evaluation.key][seed] = outcome
            arrays = {name: _listed(array) for name, array in read_arrays(made.cache, evaluation).items()}
            shown = _evaluated({**flat(outcome), "arrays": arrays})
            runs[key]["seeds"][str(seed)].setdefault("evaluations", {})[evaluation.key] = shown
        elif evaluation.key in (old := runs[key]["seeds"].get(str(seed), {}).get("evaluations", {})):
            outcomes[key, evaluation.key][seed] = old[evaluation.key]
    return Finished(scale, table, seeds, results, outcomes), runs


def _evaluated(outcome: dict[str, Any]) -> dict[str, Any]:
    shown = {name: outcome[name] for name in EVALUATED if name in outcome}
    values = {name: round(value, 4) for name, value in shown["values"].items()}
    return shown | {"values": values, "seconds": round(shown["seconds"], 2)}


def _listed(array: Any) -> Any:
    """A NumPy array as nested lists, for figures; floats to 4 decimals."""
    return (array.round(4) if array.dtype.kind == "f" else array).tolist()


def _value_column(column: Column, measured: bool) -> dict[str, Any]:
    title = f"{column.title} (lower is better)" if column.lower_is_better else column.title
    lower = {"lower_is_better": True} if column.lower_is_better else {}
    return {"id": column.id, "title": title, **lower, **({"measured": True} if measured else {})}


def _metric(outcome: dict[str, Any], name: str) -> float:
    if name not in outcome["values"]:
        raise ValueError(f"{outcome['key']} has no number {name!r}; it has {', '.join(outcome['values'])}")
    return float(outcome["values"][name])


def _claim(claim: Claim, evidence: Evidence, measured: set[str]) -> dict[str, Any]:
    return {
        "id": claim.id,
        "text": claim.text,
        "source": claim.source,
        "register": list(claim.register),
        **_rounded(claim.predicate.judge(evidence).to_dict()),
        **({"measured": True} if any(column in measured for _, column in claim.cells) else {}),
    }


def _row(finished: Finished, row: Row, evidence: Evidence) -> dict[str, Any]:
    columns = [column.id for column in finished.table.value_columns]
    cells = {column: _cell(finished, row, (row.id, column), evidence) for column in columns}
    return {"id": row.id, "labels": dict(row.labels), "ours": row.ours, "note": row.note, "cells": cells}


def _cell(finished: Finished, row: Row, cell: Reference, evidence: Evidence) -> dict[str, Any]:
    table, run = finished.table, finished.table.cells.get(cell)
    values = evidence.values.get(cell, {})
    found = finished.results[run.key] if run else {}
    evaluation = table.evaluation(cell) if run else None
    outcomes = finished.outcomes[run.key, evaluation.key] if run and evaluation else {}
    shown, what = (outcomes, "evaluation") if evaluation else (found, "run")
    status, reason = "done", ""
    if run is None:
        status, reason = "not at this scale", row.unavailable
    elif not values:
        status, reason = "not run", f"no finished {what if found else 'run'}"
    elif len(values) < (wanted := _wanted(finished, run, evaluated=evaluation is not None)):
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


def _wanted(finished: Finished, run: Run, evaluated: bool) -> int:
    """The seeds that a cell of this run should have."""
    scale, table, seeds = finished.scale, finished.table, finished.seeds
    return len(evaluations.evaluated_seeds(scale, table, run, seeds) if evaluated else seeds_of(scale, run, seeds))


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
    return [_rounded(entry) for entry in value] if isinstance(value, list | tuple) else value
