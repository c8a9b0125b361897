"""Records on the disk: taken apart and put together unchanged; what a machine measures never touches results/."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_evaluation_tables import finished_table, measure, scale  # noqa: F401 - a fixture
from test_experiments import finish

from experiments import records
from experiments.collect import collect
from experiments.evaluations import evaluation_items
from experiments.registry import directory_of, evaluation_owners, get_table, owners
from experiments.runs import Item, items_of_table
from experiments.scale import Scale
from experiments.table import Column, Table
from report.load import NEEDED
from training import run_directory

RIVALS, COMPONENTS = "lumix_table06_rivals", "lumix_table02_components"


def finish_rivals(scale: Scale, speed: float, seconds: float) -> Table:  # noqa: F811
    """Table 6, all of it, on a machine of that speed."""
    table = get_table(RIVALS, scale)
    for item in items_of_table(scale, table):
        machine = {"hardware": {"cpu": f"takes {seconds} s"}, "commit": "c" * 40, "dirty": False, "processes": 1}
        finish(item, 90.0 + item.seed, seconds=seconds, images_per_second=1 / seconds, checksum="c", **machine)
    for item in evaluation_items(scale, table):
        values = {"speed": speed + item.item.seed, "memory": speed, "parameters": 18.2}
        measure(item, values, checksum="c", seconds=seconds)
    return table


def read_back(scale: Scale, table: str) -> dict[str, Any]:  # noqa: F811
    path, beside = records.results_path(scale.name, table), records.measured_path(scale.name, table)
    runs = records.read_runs(Path(), scale.name)
    return records.joined(records.read_table(path, NEEDED), runs, records.read_table(beside, ("runs",)))


def texts(folder: str) -> dict[Path, str]:
    return {path: path.read_text() for path in Path(folder).rglob("*.json")}


@pytest.mark.parametrize("name", [RIVALS, COMPONENTS, "lumix_table07_shuffling"])
def test_a_record_read_back_is_the_record(scale: Scale, name: str) -> None:  # noqa: F811
    finish_rivals(scale, 100.0, 2.0)
    if name == "lumix_table07_shuffling":
        finished_table(scale)
    record = collect(scale, get_table(name, scale))
    assert records.write(scale, record) == records.results_path(scale.name, name)
    kept = {key for key, run in record["runs"].items() if run["seeds"] or run["owner"] == name}
    assert read_back(scale, name) == {**record, "runs": {key: record["runs"][key] for key in kept}}


def test_what_other_machines_recorded_of_long_runs_stays(scale: Scale) -> None:  # noqa: F811
    long = replace(scale, retrain_on_code_change=False)
    table = finish_rivals(long, 100.0, 2.0)
    records.write(long, collect(long, table))
    before = texts("results"), texts("measured")
    again = next(iter(items_of_table(long, table)))
    for folder in Path("runs").glob("*/*"):
        folder.rename(folder.with_name(f"away from {folder.name}"))
    records.write(long, collect(long, table))
    assert (texts("results"), texts("measured")) == before
    finish(again, 12.5)
    found = collect(long, table)["runs"][again.run.key]["seeds"]
    assert found[str(again.seed)]["top1"]["last"] == 12.5
    assert {seed: result["top1"]["last"] for seed, result in found.items() if seed != str(again.seed)} == {
        seed: 90.0 + int(seed) for seed in found if seed != str(again.seed)
    }
    short = collect(scale, table)["runs"]
    assert sum(len(run["seeds"]) for run in short.values()) == 1


def test_another_machine_changes_measured_and_no_byte_of_results(scale: Scale) -> None:  # noqa: F811
    table = finish_rivals(scale, 100.0, 2.0)
    records.write(scale, collect(scale, table))
    results, measured = texts("results"), texts("measured")
    finish_rivals(scale, 55.0, 7.0)
    records.write(scale, collect(scale, table))
    assert texts("results") == results
    assert texts("measured").keys() == measured.keys()
    assert all(text != measured[path] for path, text in texts("measured").items())
    for path, text in texts("measured").items():
        assert json.loads(text)["table"] == path.stem


def test_speeds_and_the_claims_about_them_are_measured_and_parameters_are_not(scale: Scale) -> None:  # noqa: F811
    table = finish_rivals(scale, 100.0, 2.0)
    assert table.measured_columns == {"speed", "memory"}
    path = records.write(scale, collect(scale, table))
    determined, measured = records.read(path), records.read(records.measured_path(scale.name, RIVALS))
    assert set(determined["rows"][0]["cells"]) == {"top1", "parameters"}
    assert set(measured["cells"]["deit_s_baseline"]) == {"speed", "memory"}
    about = [{claim["id"] for claim in part["claims"]} for part in (determined, measured)]
    assert about[1] == {claim.id for claim in table.claims if "speed" in claim.id}
    assert about[0] == {claim.id for claim in table.claims} - about[1]
    for file in Path("results").rglob("*.json"):
        assert not any(f'"{name}"' in file.read_text() for name in (*records.MEASURED, "older_code"))


def test_a_run_is_kept_once_by_its_owner_and_an_evaluation_by_its_own(scale: Scale) -> None:  # noqa: F811
    table = finished_table(scale)
    records.write(scale, collect(scale, table))
    for key, run in table.runs.items():
        assert owners(scale)[key] == "lumix_table01_models"
        training = records.read(records.run_path(scale.name, "lumix_table01_models", key))
        assert training["config"] == run.to_dict()
        assert len(training["seeds"]["0"]["curve"]) == 2
        assert {owner for (of, _), owner in evaluation_owners(scale).items() if of == key} >= {table.id}
        assert set(records.read(records.run_path(scale.name, table.id, key))["seeds"]["0"]) == {"evaluations"}


def test_a_table_renews_its_part_of_what_others_own_and_removes_what_is_gone(scale: Scale) -> None:  # noqa: F811
    table = get_table(COMPONENTS, scale)
    run = table.cells["full", "top1"]
    path = records.run_path(scale.name, owners(scale)[run.key], run.key)
    kept = {"seeds": {"0": {"top1": {"last": 1.0}, "evaluations": {"e": {"values": {}}}}, "5": {}}}
    run_directory.write_json(path, kept)
    gone, foreign = (records.run_path(scale.name, owner, "gone") for owner in (COMPONENTS, RIVALS))
    for other in (gone, foreign):
        run_directory.write_json(other, {})
    finish(Item(run, 0, directory_of(scale, run, 0)), 77.0)
    records.write(scale, collect(scale, table))
    seeds = records.read(path)["seeds"]
    assert (seeds["0"]["top1"]["last"], seeds["0"]["evaluations"]) == (77.0, {"e": {"values": {}}})
    assert "5" in seeds
    assert not gone.exists()
    assert foreign.exists()


def test_measurements_may_stand_apart_in_result_files() -> None:
    assert records.flat({"top1": 1, "measured": {"seconds": 2}}) == records.flat({"top1": 1, "seconds": 2})


def test_a_table_says_which_accuracy_it_shows(scale: Scale) -> None:  # noqa: F811
    def table(statistic: str) -> Table:
        return Table("t", "", None, Path(), (), (Column("a", "A"),), (), statistic=statistic)

    from dataclasses import replace

    shown = get_table(COMPONENTS, scale)
    run = shown.cells["none", "top1"]
    top1 = {"last": 1.0, "best": 3.0, "best_epoch": 1, "median_last": 2.0}
    item = Item(run, 0, directory_of(scale, run, 0))
    finish(item, 1.0)
    result = run_directory.read_result(item.directory)
    run_directory.write_json(item.directory / "result.json", {**(result or {}), "top1": top1})
    for statistic, value in (("last", 1.0), ("best", 3.0), ("median_last", 2.0)):
        record = collect(scale, replace(shown, statistic=statistic))
        assert (record["statistic"], record["rows"][0]["cells"]["top1"]["mean"]) == (statistic, value)
    with pytest.raises(ValueError, match="median_last"):
        table("median")


@pytest.mark.parametrize(
    "value",
    [{"a": 1, "b": [1, 2.5]}, {"": {"long": list(range(200))}}, [["x" * 70, "y z" * 30], []], {"é": None}, 1.5, "t"],
)
def test_text_is_json_of_short_lines(value: Any) -> None:
    text = records.as_text(value)
    assert json.loads(text) == value
    assert all(len(line) <= records.WIDTH + 30 for line in text.splitlines())
    assert text.count("\n") == 1 or len(json.dumps(value)) > records.WIDTH
