"""Results: gathered from run directories, kept in results/ and measured/, and read back as the record of a table.

    results/<scale>/<table>.json              of each cell that has a number: its run and its evaluation
    results/<scale>/runs/<table>/<key>.json   of each run that the table owns: configuration; of each seed outcome,
                                              checksum of the weights, curve, and what evaluations found
    measured/<scale>/<table>.json             of the same runs: seconds, speeds, hardware, commit

What code and seeds determine lies in results/, what a machine took in measured/. Both keep what seeds gave and nothing
else: means, intervals, differences and verdicts are computed here whenever a record is read.
"""

import json
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from evaluation.evaluation import PROTOCOLS, fingerprint, read_arrays
from experiments.claims import Claim
from experiments.intervals import LEAST, paired_differences, t_interval
from experiments.registry import get_table, owners, seeds_of
from experiments.runs import evaluated_seeds, evaluation_items, items_of_table
from experiments.scale import Scale
from experiments.table import CURVE_MEAN, Reference, Row, Table
from experiments.verdicts import (
    NATS,
    POINTS,
    PRIMARY,
    SECONDARY,
    Primary,
    Values,
    correct,
    is_excluded,
    judge,
    read_primary,
)
from training import run_directory
from training.config import Run

SCHEMA = 3
WIDTH = 120
CURVE = ("epoch", "loss", "top1", "top1_mixed", "top2_mixed", "lam_0", "lam", "perturbation")
EVALUATED = ("values", "facts", "n_samples", "seconds", "fingerprint")
NOT_RECORDED = ("key", "seed", "lambda")
# Of result.json and of an evaluation's file; the code's fingerprint says what made them, and decides no number.
MEASURED = frozenset(("seconds", "images_per_second", "hardware", "commit", "dirty", "processes", "fingerprint"))
Runs = dict[str, dict[str, Any]]  # run key -> {"config": Run, "owner": table, "seeds": {"0": outcome}}
Outcomes = dict[Reference, dict[int, dict[str, Any]]]  # of a cell and a seed: its training's or its evaluation's


def results_path(scale: str, table: str) -> Path:
    """Where the cells of a table lie, relative to the project's root."""
    return Path("results", scale, f"{table}.json")


def run_path(scale: str, owner: str, key: str) -> Path:
    """Where a run lies."""
    return Path("results", scale, "runs", owner, f"{key}.json")


def flat(found: Mapping[str, Any]) -> dict[str, Any]:
    """A result.json, or the file of an evaluation, with its measurements beside its outcome."""
    return {name: value for name, value in found.items() if name != "measured"} | found.get("measured", {})


# ------------------------------------------------------------------------------------------------- writing


def collect(scale: Scale, tables: Iterable[Table], seeds: int | None = None) -> Iterator[dict[str, Any]]:
    """Write the files of tables from what is finished, and yield the record of each.

    A training or an evaluation that is not finished here, or not among so few `seeds`, keeps what is recorded of it: a
    failure loses no result, and several machines can add to one record. Processes that collect at the same time wait
    for each other.
    """
    Path("runs").mkdir(exist_ok=True)
    with FileLock("runs/.collect.lock"):
        runs = read_runs(Path(), scale.name)
        for table in tables:
            _renew(scale, table, runs, seeds)
            _write(scale, table, runs, seeds)
            yield read_record(Path(), scale, table, runs, seeds)


def _renew(scale: Scale, table: Table, runs: Runs, seeds: int | None) -> None:
    """Put what is finished of a table in place of what is recorded; without `seeds` those go that it wants no more."""
    recorded = {key: runs[key]["seeds"] if key in runs else {} for key in table.runs}
    for key, run in table.runs.items():
        owner = owners(scale)[key]
        renewed = owner == table.id and seeds is None
        runs[key] = {"config": run, "owner": owner, "seeds": {} if renewed else dict(recorded[key])}
    for item in items_of_table(scale, table, seeds=seeds):
        found = recorded[item.run.key].get(str(item.seed), {})
        if (result := item.read()) is not None:
            old, found = found, {name: value for name, value in flat(result).items() if name not in NOT_RECORDED}
            found["curve"] = [_reduced(epoch) for epoch in run_directory.read_metrics(item.directory)]
            if old.get("evaluations") and old.get("checksum") == found.get("checksum"):
                found["evaluations"] = old["evaluations"]
        if found:
            runs[item.run.key]["seeds"][str(item.seed)] = found
    for made in evaluation_items(scale, table, seeds=seeds):
        if (outcome := made.read()) is not None:
            shown = {name: value for name, value in flat(outcome).items() if name in EVALUATED}
            arrays = read_arrays(made.place.parent, made.evaluation)
            if arrays:
                shown["arrays"] = {n: (a.round(4) if a.dtype.kind == "f" else a).tolist() for n, a in arrays.items()}
            seed = runs[made.item.run.key]["seeds"][str(made.item.seed)]
            seed["evaluations"] = {**seed.get("evaluations", {}), made.evaluation.key: shown}
    for key in table.runs:
        runs[key]["seeds"] = dict(sorted(runs[key]["seeds"].items(), key=lambda one: int(one[0])))


def _reduced(epoch: Mapping[str, Any]) -> dict[str, Any]:
    """One point of a training curve with five significant digits, enough for a figure."""
    shown = {name: epoch[name] for name in CURVE if name in epoch}
    return {name: float(f"{value:.5g}") if isinstance(value, float) else value for name, value in shown.items()}


def _outcomes(scale: Scale, table: Table, runs: Runs, seeds: int | None) -> Outcomes:
    """What stands behind each cell, of the seeds that it should have."""
    found: Outcomes = {}
    for cell, run in table.cells.items():
        of_run, evaluation = runs[run.key]["seeds"] if run.key in runs else {}, table.evaluation(cell)
        for seed in _wanted(scale, table, cell, seeds):
            outcome = of_run.get(str(seed), {})
            if evaluation:
                outcome = outcome.get("evaluations", {}).get(evaluation.key)
            if outcome:
                found.setdefault(cell, {})[seed] = outcome
    return found


def _wanted(scale: Scale, table: Table, cell: Reference, seeds: int | None) -> range:
    run = table.cells[cell]
    if table.evaluation(cell) is None:
        return seeds_of(scale, run, seeds)
    return evaluated_seeds(scale, table, run, seeds)


def _source(table: Table, cell: Reference) -> str:
    """The run of a cell and, behind a space, its evaluation."""
    evaluation = table.evaluation(cell)
    return table.cells[cell].key + (f" {evaluation.key}" if evaluation else "")


def _write(scale: Scale, table: Table, runs: Runs, seeds: int | None) -> None:
    """Write a table's files, and the runs of other tables that it shows; runs that it owns no more are removed."""
    name, cells = scale.name, dict[str, dict[str, str]]()
    seen = _outcomes(scale, table, runs, seeds).keys() | _outcomes(scale, table, runs, None).keys()
    for row, column in (cell for cell in table.cells if cell in seen):
        cells.setdefault(row, {})[column] = _source(table, (row, column))
    head = {"schema": SCHEMA, "table": table.id, "scale": name}
    _put(results_path(name, table.id), {**head, "cells": cells})
    folder = run_path(name, table.id, "").parent
    for key in [path.stem for path in folder.glob("*.json") if owners(scale).get(path.stem) != table.id]:
        (folder / f"{key}.json").unlink()
        if key in runs and runs[key]["owner"] == table.id:
            del runs[key]
    for key in table.runs:
        run, owner = runs[key], runs[key]["owner"]
        if owner == table.id or run["seeds"]:
            plain = {seed: _divided(found)[0] for seed, found in run["seeds"].items()}
            _put(run_path(name, owner, key), {"config": run["config"].to_dict(), "seeds": plain})
    for owner in {table.id, *(runs[key]["owner"] for key in table.runs if runs[key]["seeds"])}:
        own = {key: runs[key]["seeds"] for key in sorted(runs) if runs[key]["owner"] == owner}
        of = {key: {"seeds": {s: _divided(one)[1] for s, one in own[key].items()}} for key in own if own[key]}
        _put(Path("measured", name, f"{owner}.json"), {**head, "table": owner, "runs": of})


def _divided(found: Mapping[str, Any], names: frozenset[str] = MEASURED) -> tuple[dict[str, Any], dict[str, Any]]:
    """What code and seeds determine of an outcome, and what a machine measured."""
    plain = {name: value for name, value in found.items() if name not in names}
    measured = {name: value for name, value in found.items() if name in names}
    if parts := {key: _divided(outcome) for key, outcome in found.get("evaluations", {}).items()}:
        plain["evaluations"], measured["evaluations"] = ({key: part[i] for key, part in parts.items()} for i in (0, 1))
        for key in parts:
            protocol = PROTOCOLS.get(key.rpartition("-")[0])  # None: another package's that is not loaded
            names = protocol.measured if protocol else frozenset[str]()
            values, speeds = _divided(found["evaluations"][key]["values"], names)
            plain["evaluations"][key]["values"] = values
            measured["evaluations"][key] |= {"values": speeds} if speeds else {}
    return plain, measured


def _put(path: Path, value: Any) -> None:
    run_directory.write_text(path, as_text(value) + "\n")


def as_text(value: Any, indent: int = 0) -> str:
    """JSON on one line where it fits; else an entry a line, but as many numbers and texts to a line as fit."""
    line = json.dumps(value, ensure_ascii=False, allow_nan=False)
    if not isinstance(value, dict | list) or indent + len(line) <= WIDTH:
        return line
    entries = list(value.values() if isinstance(value, dict) else value)
    texts = [as_text(entry, indent + 1) for entry in entries]
    if isinstance(value, dict):
        texts = [f"{json.dumps(name, ensure_ascii=False)}: {text}" for name, text in zip(value, texts, strict=True)]
    lines = [" " * (indent + 1) + texts[0]]
    for text, entry in zip(texts[1:], entries[1:], strict=True):
        if isinstance(entry, dict | list) or len(lines[-1]) + len(text) + 3 > WIDTH:
            lines.append(" " * (indent + 1) + text)
        else:
            lines[-1] += f", {text}"
    first, last = "{}" if isinstance(value, dict) else "[]"
    return first + "\n" + ",\n".join(lines) + "\n" + " " * indent + last


# ------------------------------------------------------------------------------------------------- reading


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    """Whatever is wrong with a file becomes a ValueError of one sentence with the remedy."""
    try:
        yield
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        if str(error).startswith(f"{path} is damaged"):
            raise  # it is named already
        of_run = path.parent.parent.name == "runs"
        table, scale = (path.parent.name, path.parts[-4]) if of_run else (path.stem, path.parts[-2])
        what = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ValueError(
            f"{path} is damaged ({what}): restore it with git checkout {path}, or delete it and make it again with "
            f"python -m experiments run {table} --scale {scale}"
        ) from error


def read(path: Path) -> dict[str, Any]:
    """One of the files; ValueError for a damaged one."""
    with _damage_named(path):
        found = json.loads(path.read_text(encoding="utf-8"), parse_constant=_finite, parse_float=_finite)
        if path.parent.parent.name != "runs" and found["schema"] != SCHEMA:
            raise ValueError(f"it is of schema {found['schema']}, not {SCHEMA}")
        return dict(found)


def _finite(text: str) -> float:
    if not abs(value := float(text)) < 1e15:
        raise ValueError(f"{text[:30]} is no result")
    return value


def read_runs(root: Path, scale: str, measured: bool = True) -> Runs:
    """Every run of a scale by key: configuration, owner, and each seed's outcome, curve and evaluations.

    `measured` adds what was measured to each seed and each evaluation.
    """
    runs: Runs = {}
    for path in sorted((root / "results" / scale / "runs").glob("*/*.json")):
        found = read(path)
        with _damage_named(path):
            seeds = {seed: found["seeds"][seed] for seed in sorted(found["seeds"], key=int)}
            for seed, outcome in seeds.items():
                kinds = {type(value) for value in (*outcome["top1"].values(), outcome["n_samples"])}
                if not kinds <= {int, float} or not isinstance(outcome["checksum"], str):
                    raise TypeError(f"seed {seed} holds something else than numbers")
            runs[path.stem] = {"config": Run.from_dict(found["config"]), "owner": path.parent.name, "seeds": seeds}
    for path in sorted((root / "measured" / scale).glob("*.json")) if measured else ():
        found = read(path)
        with _damage_named(path):
            for key, part in found["runs"].items():
                for seed, values in part["seeds"].items():
                    if seed in (seeds := runs.get(key, {}).get("seeds", {})):
                        seeds[seed] = _merged(seeds[seed], values)
    return runs


def _merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Both in one, dictionary by dictionary."""
    found = {**first, **second}
    for name in first.keys() & second.keys():
        if isinstance(first[name], dict) and isinstance(second[name], dict):
            found[name] = _merged(first[name], second[name])
    return found


def read_record(
    root: Path, scale: Scale, table: Table, runs: Runs, seeds: int | None = None, measured: bool = True
) -> dict[str, Any]:
    """A table and all that follows from what its seeds gave: means, differences, verdicts, to six decimals.

    A cell that is recorded of another run or evaluation than the table has by now counts as not run. Without `measured`
    the columns that show what a machine took, and the claims on them, are left out.
    """
    kept = read(root / results_path(scale.name, table.id))["cells"]
    hidden = set() if measured else table.measured_columns
    outcomes = {
        cell: found
        for cell, found in _outcomes(scale, table, runs, seeds).items()
        if kept.get(cell[0], {}).get(cell[1]) == _source(table, cell) and cell[1] not in hidden
    }
    values = {cell: {seed: _number(table, cell, one) for seed, one in of.items()} for cell, of in outcomes.items()}
    common = _common_seeds(table, values)

    claims = {}
    for claim in table.claims:
        if hidden.isdisjoint(column for _, column in claim.cells):
            told = {"id": claim.id, "text": claim.sentence, "source": claim.source, "register": list(claim.register)}
            unit = NATS if "loss" in map(table.metric_of, claim.cells) else POINTS
            found = judge(claim, values, {} if claim.source == "published" else table.paper, scale.replicates, unit)
            unfinished = scale.blocks and 0 < found["n"] < table.seeds  # a verdict now would be one of several looks
            if unfinished:
                found["explanation"] += f"; no verdict before the last of {table.seeds} blocks"
            if scale.exercises or unfinished:
                found |= {"verdict": "", **dict.fromkeys(("p", "p_equal", "agrees", "excluded"))}
            claims[claim.id] = {**told, **found, "signature": None if found["p"] is None else _signature(table, claim)}

    def shown(row: Row, column: str) -> dict[str, Any]:
        cell, run = (row.id, column), row.runs.get(column)
        evaluation = table.evaluation(cell) if run else None
        numbers = list(values.get(cell, {}).values())
        mean, n = (statistics.fmean(numbers) if numbers else None), len(numbers)
        gap, status, reason = _difference(table, cell, values, common), "done", ""
        if gain := row.gains.get(column):
            gap = _estimate(claims[gain.removeprefix("-")], -1 if gain.startswith("-") else 1)
            mean, n = (gap["mean"], gap["n"]) if gap else (None, 0)
            status = "done" if gap else "not run"
        elif run is None:
            status, reason = "not at this scale", row.unavailable
        elif not numbers:
            trained = evaluation is not None and runs.get(run.key, {}).get("seeds")
            status, reason = "not run", f"no finished {'evaluation' if trained else 'run'}"
        elif n < (wanted := len(_wanted(scale, table, cell, seeds))):
            reason = f"{n} of {wanted} seeds are {'evaluated' if evaluation else 'finished'}"
        return {
            "status": status,
            "reason": reason,
            "paper": table.paper.get(cell),
            "digits": table.digits(cell),
            "mean": mean,
            "std": statistics.stdev(numbers) if len(numbers) > 1 else None,
            "n": n,
            "values": {str(seed): value for seed, value in values.get(cell, {}).items()},
            "run": run.key if run else None,
            "evaluation": evaluation.key if evaluation else None,
            "n_samples": next((one["n_samples"] for one in outcomes.get(cell, {}).values()), None),
            "older_code": _is_of_older_code(table, cell, outcomes.get(cell, {}), runs),
            "difference": gap,
            "gain": bool(gain),
        }

    rows = []
    for row in table.rows:
        columns = [column.id for column in table.value_columns if column.id not in hidden]
        cells = {column: shown(row, column) for column in columns if column in (row.gains or columns)}
        rows.append({"id": row.id, "labels": dict(row.labels), "ours": row.ours, "note": row.note, "cells": cells})
    record = {
        "table": table.id,
        "title": table.title,
        "paper_table": table.paper_table,
        "scale": scale.name,
        "setting": table.setting or scale.text,
        "exercises": scale.exercises,
        "statistic": table.statistic,
        "metric": table.metric,
        "label_columns": [{"id": column.id, "title": column.title} for column in table.label_columns],
        "value_columns": [
            {"id": column.id, "title": column.title + " (lower is better)" * column.lower_is_better}
            for column in table.value_columns
        ],
        "rows": rows,
        "claims": list(claims.values()),
    }
    made = {evaluation.key: evaluation.to_dict() for evaluation in table.evaluations.values()}
    shown_runs = {key: {**runs[key], "seeds": _first(runs[key]["seeds"], seeds)} for key in table.runs if key in runs}
    return {**_rounded(record), "evaluations": made, "runs": shown_runs}


def _first(of: Mapping[str, Any], seeds: int | None) -> dict[str, Any]:
    """The outcomes of seeds 0 to `seeds` - 1, or of all."""
    return {seed: outcome for seed, outcome in of.items() if seeds is None or int(seed) < seeds}


def _number(table: Table, cell: Reference, outcome: Mapping[str, Any]) -> float:
    metric = table.metric_of(cell)
    if metric == CURVE_MEAN:
        return statistics.fmean(epoch["top1"] for epoch in outcome["curve"] if "top1" in epoch)
    numbers, name = (outcome["values"], metric) if table.evaluation(cell) else (outcome[metric], table.statistic)
    if name not in numbers:
        raise ValueError(f"{_source(table, cell)} has no number {name!r}; it has {', '.join(numbers)}")
    return float(numbers[name])


def _is_of_older_code(table: Table, cell: Reference, of: Mapping[int, dict[str, Any]], runs: Runs) -> bool:
    """Whether other code than that of now trained or evaluated what a cell shows; not known without measurements."""
    trained = [runs[table.cells[cell].key]["seeds"][str(seed)] for seed in of]
    made = [(one, run_directory.code_fingerprint()) for one in trained]
    made += [(one, fingerprint()) for one in of.values() if table.evaluation(cell)]
    return any(one.get("fingerprint", code) != code for one, code in made)


def _signature(table: Table, claim: Claim) -> str:
    """What a claim tests, whichever table it stands in: runs, evaluations, numbers and limits."""

    def named(cell: Reference) -> str:
        return f"{_source(table, cell)} {table.metric_of(cell)}" + f" {table.statistic}" * (not table.evaluation(cell))

    tests = [[sorted(map(named, side)) for side in (one.above, one.below)] for one in claim.comparisons]
    limits = [(one.within, one.paper, one.times) for one in claim.comparisons]
    return str(sorted(zip(tests, limits, strict=True), key=str))


def _common_seeds(table: Table, values: Values) -> set[int]:
    """The seeds on which rows are compared: those that every comparison of the table with enough seeds has."""
    pairs = [(values.get(cell, {}), values.get(to, {})) for cell in table.cells if (to := table.against(cell))]
    enough = [found for one, other in pairs if len(found := one.keys() & other.keys()) >= LEAST]
    return set.intersection(*map(set, enough)) if enough else set()


def _difference(table: Table, cell: Reference, values: Values, common: set[int]) -> dict[str, Any] | None:
    """The cell less the one it is compared with, paired by seed; None where either has no value.

    On the common seeds of the table; a row of fewer has no interval, and shows the mean of what it has.
    """
    to = table.against(cell)
    if to is None or not values.get(cell) or not values.get(to):
        return None
    seeds = values[cell].keys() & values[to].keys()
    seeds = common if len(seeds) >= LEAST else seeds
    above, below = ({seed: values[one][seed] for seed in seeds} for one in (cell, to))
    if not (differences := paired_differences([above], [below])):
        return None
    gap = t_interval(differences)
    paper = round(table.paper[cell] - table.paper[to], 2) if {cell, to} <= table.paper.keys() else None
    return {"to": list(to), "mean": gap.mean, "low": gap.low, "high": gap.high, "n": gap.n, "paper": paper}


def _estimate(claim: Mapping[str, Any], sign: int) -> dict[str, Any] | None:
    """A cell of average gains: the estimate of a claim, or the opposite."""
    if claim["estimate"] is None:
        return None
    low, high = sorted((sign * claim["low"], sign * claim["high"])) if claim["low"] is not None else (None, None)
    return {"to": [], "mean": sign * claim["estimate"], "low": low, "high": high, "n": claim["n"], "paper": None}


def _rounded(value: Any) -> Any:
    """Floats to six decimals, so that nothing changes with the order of a sum."""
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {name: _rounded(entry) for name, entry in value.items()}
    return [_rounded(entry) for entry in value] if isinstance(value, list | tuple) else value


@dataclass(frozen=True)
class Results:
    """The results of one scale: the tables asked for, in order, and the records of those that were run."""

    scale: str
    tables: tuple[str, ...]
    records: dict[str, dict[str, Any]]
    primary: tuple[tuple[Primary, dict[str, Any] | None], ...] = ()  # each question and its claim's record

    @property
    def missing(self) -> list[str]:
        """Tables without a results file."""
        return [table for table in self.tables if table not in self.records]

    @property
    def runs(self) -> Runs:
        """Every training run behind the tables, by run key; a run that several tables use appears once."""
        return dict(sorted({key: run for table in self.records.values() for key, run in table["runs"].items()}.items()))


def read_results(
    root: Path, scale: Scale, tables: Sequence[str], seeds: int | None = None, measured: bool = True
) -> Results:
    """The results of one scale, with verdicts corrected for the number of claims; `measured` as of `read_record`."""
    runs = read_runs(root, scale.name, measured)
    wanted = [table for table in tables if scale.has(table)]
    found = [table for table in wanted if (root / results_path(scale.name, table)).exists()]
    known = {claim.id for table in wanted for claim in get_table(table, scale).claims}
    records = {}
    for table in found:
        with _damage_named(root / results_path(scale.name, table)):
            records[table] = read_record(root, scale, get_table(table, scale), runs, seeds, measured)
    told = {claim["id"]: claim for record in records.values() for claim in record["claims"]}
    primary = []
    for one in read_primary():
        claim = told.get(next((name for name in one.claims if name in known), ""))
        if claim and one.difference is not None:
            claim["paper"] = one.difference
            claim["excluded"] = is_excluded(claim)
        primary.append((one, claim))
    first = {claim["id"]: one.paper for one, claim in primary if claim}
    families: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for table in found:
        for claim in records[table]["claims"]:
            of = (PRIMARY, first[claim["id"]]) if claim["id"] in first else (SECONDARY, table.split("_")[0])
            families.setdefault(of, []).append(claim)
    correct([(of[0], families[of]) for of in sorted(families)])  # primary before secondary
    return Results(scale.name, tuple(wanted), records, tuple(primary))
