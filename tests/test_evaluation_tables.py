"""Evaluations in tables, pool, records and text: made after their trainings, kept beside them, shown by cells."""

import dataclasses

import numpy as np
import pool_jobs
import pytest
from bench import GRIDS, bench_scale, file_of, finish, finished_table, measure, stand_in

from evaluation.evaluation import Evaluation
from experiments import registry, runs, terminal
from experiments.pool import run_pool
from experiments.registry import get_table
from experiments.results import collect
from experiments.runs import EvaluationItem, Item, evaluation_items, is_open, items_of_table, state
from experiments.scale import get_scale
from experiments.table import Column, Row, Table
from training import run_directory
from training.config import Execution

SHUFFLING = Evaluation("shuffling", {"grids": [1, 4], "draw": "per_image", "repetitions": 1, "seed": 0, "batch": 500})


@pytest.fixture
def scale(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return bench_scale(1, 2)


def test_rows_may_replace_evaluation_metric_and_comparison():
    run, own = stand_in("deit_s"), Evaluation("fgsm", {"radius": 8, "batch": 100})
    columns = (Column("a", "A"), Column("b", "B", SHUFFLING, "average", lower_is_better=True))
    one = Row("one", {}, {"a": run, "b": run})
    two = Row("two", {}, {"b": run}, evaluations={"b": own}, metrics={"b": "error"}, compared_with="one")
    table = Table(title="", paper_table=None, label_columns=(), value_columns=columns, rows=(one, two))
    assert table.evaluation(("one", "a")) is None
    assert (table.evaluation(("one", "b")), table.metric_of(("one", "b"))) == (SHUFFLING, "average")
    assert (table.evaluation(("two", "b")), table.metric_of(("two", "b"))) == (own, "error")
    assert table.evaluations == {(run.key, SHUFFLING.key): SHUFFLING, (run.key, own.key): own}
    assert (table.against(("two", "b")), table.against(("one", "b"))) == (("one", "b"), ("one", "a"))


def test_a_source_must_be_a_run_of_the_table_and_may_have_a_fixed_seed(scale):
    table = get_table("lumix_table09_occlusion", scale)
    (occlusion,) = {e.key: e for e in table.evaluations.values()}.values()
    base, other = table.runs.values()
    item = runs.evaluation_item(scale, table, other, occlusion, 1)
    assert item.others == {"source": registry.directory_of(scale, base, 1)}
    assert item.needs == {registry.directory_of(scale, run, 1) for run in (base, other)}
    fixed = Evaluation("occlusion", {"filter": {"key": base.key, "seed": 0}})
    item = runs.evaluation_item(scale, table, other, fixed, 1)
    assert item.others == {"filter": registry.directory_of(scale, base, 0)}
    foreign = Evaluation("occlusion", {"filter": {"key": "nobody"}})
    with pytest.raises(ValueError, match="needs the run nobody as its filter: add it to sources of"):
        runs.evaluation_item(scale, table, other, foreign, 1)
    alone = dataclasses.replace(table, rows=(Row("r", {}, {"lumix": other}),), sources=(base,))
    for rows in (None, ["r"]):  # some rows need the runs of their sources too
        assert {item.run.key for item in items_of_table(scale, alone, rows)} == {base.key, other.key}
        assert [item.item.run for item in evaluation_items(scale, alone, rows)] == [other, other]


def evaluation_of(item, *needs):
    return EvaluationItem(item, SHUFFLING, {str(i): other.directory for i, other in enumerate(needs)})


@pytest.mark.parametrize("processes", [1, 2])
def test_evaluations_wait_for_their_trainings_or_go_with_them(tmp_path, processes):
    jobs = [item for item in pool_jobs.items(tmp_path, 6) if item.seed != 2]  # seed 1 fails
    good = [evaluation_of(jobs[-1], jobs[0]), *map(evaluation_of, jobs[2:4])]
    lost = [evaluation_of(jobs[1]), evaluation_of(jobs[0], jobs[1])]
    answers = list(run_pool([*good, *lost, *jobs], Execution(), processes, work=pool_jobs.echo))
    done = [answer.item for answer in answers]
    assert len(done) == len(good) + len(lost) + len(jobs)
    for evaluation in good:
        assert evaluation.needs <= {item.directory for item in done[: done.index(evaluation)] if isinstance(item, Item)}
    errors = {answer.item.name: answer.error for answer in answers if answer.item in lost}
    assert set(errors.values()) == {f"it needs {jobs[1].name}, whose training failed"}


def test_a_real_run_is_trained_and_evaluated_in_one_pool(tmp_path):
    (job,) = pool_jobs.items(tmp_path, 1)
    item = evaluation_of(job)
    trained, evaluated = run_pool([job, item], Execution(), 1)
    assert (trained.error, evaluated.error) == ("", "")
    assert trained.result["key"] == pool_jobs.RUN.key
    assert run_directory.read_result(job.directory) == trained.result
    assert evaluated.result["checksum"] == trained.result["checksum"]
    assert evaluated.result["values"]["grid_1"] == pytest.approx(trained.result["top1"]["last"])
    assert item.read() == evaluated.result


def grid_4(scale, table):
    """The baseline's cell of four patches, as it is collected."""
    (record,) = collect(scale, [table])
    return next(row["cells"]["base"] for row in record["rows"] if row["id"] == "grid_4")


def test_cells_show_the_metric_of_their_evaluation(scale):
    table = finished_table(scale)
    arrays = {"curve": np.array([[1 / 3, 2.0]]), "count": np.array([3, 4])}
    first = evaluation_items(scale, table)[0]
    run_directory.write_atomically(file_of(first, "npz"), lambda file: np.savez(file, **arrays))
    (values,) = collect(scale, [table])
    rows = {row["id"]: row["cells"] for row in values["rows"]}
    cell = rows["average"]["lumix"]
    assert (cell["status"], cell["values"], cell["n_samples"]) == ("done", {"0": 50.5, "1": 51.0}, 797)
    assert (cell["paper"], cell["evaluation"]) == (67.8, next(iter(values["evaluations"])))
    assert cell["difference"]["to"] == ["average", "base"]
    assert (cell["difference"]["mean"], cell["difference"]["paper"]) == (0.75, 0.5)
    assert rows["average"]["base"]["difference"] is None
    assert rows["grid_64"]["lumix"]["status"] == "not at this scale"
    assert "smaller than a token" in rows["grid_64"]["lumix"]["reason"]
    (protocol,) = values["evaluations"].values()
    assert (protocol["protocol"], protocol["arguments"]["grids"]) == ("shuffling", [1, 4, 8, 16])
    kept = values["runs"][first.item.run.key]["seeds"][str(first.item.seed)]["evaluations"][first.evaluation.key]
    assert kept["arrays"] == {"curve": [[0.3333, 2.0]], "count": [3, 4]}


def test_missing_stale_and_older_evaluations_are_told_apart(scale):
    table = finished_table(scale)
    first, second, *_ = evaluation_items(scale, table)
    assert not is_open(scale, first)
    for _ in range(2):  # what is recorded stays when its file is gone
        cell = grid_4(scale, table)
        assert (cell["n"], cell["reason"]) == (2, "")
        file_of(first).unlink(missing_ok=True)
    finish(second.item, 90.0, checksum="other weights")
    assert is_open(scale, second)
    cell = grid_4(scale, table)
    assert (cell["n"], cell["reason"]) == (1, "1 of 2 seeds are evaluated")
    measure(first, {"grid_1": 1.0}, fingerprint="of other code")
    assert is_open(scale, first)
    assert not is_open(get_scale("lab"), first)
    with pytest.raises(ValueError, match="has no number 'grid_4'; it has grid_1"):
        grid_4(scale, table)
    measure(first, dict.fromkeys(GRIDS, 1.0), fingerprint="other")
    assert grid_4(scale, table)["older_code"]
    run_directory.write_text(file_of(first), "{")
    assert state(first) == "damaged"
    with pytest.raises(run_directory.RunError, match="is damaged"):
        grid_4(scale, table)


def test_an_evaluation_of_unfinished_training_is_not_shown(scale):
    table = finished_table(scale)
    for item in items_of_table(scale, table):
        (item.directory / "result.json").unlink()
    cell = grid_4(scale, table)
    assert (cell["status"], cell["reason"]) == ("not run", "no finished run")


def test_text_names_evaluations(scale):
    table = finished_table(scale)
    shown = terminal.showing(scale, table, None)
    (evaluation,) = {e.key: e for e in table.evaluations.values()}.values()
    assert f"{evaluation.key} grid_16" in shown
    assert f'{evaluation.key}: {{"grids": [1, 4, 8, 16]' in shown
    assert "4 of 4" in terminal.statuses(scale, [table], None)
    columns = tuple(dataclasses.replace(column, lower_is_better=True) for column in table.value_columns)
    (record,) = collect(scale, [dataclasses.replace(table, value_columns=columns)])
    assert all(column["title"].endswith(" (lower is better)") for column in record["value_columns"])
