"""Results on the disk: gathered, kept by their owners, read back; what a machine measures never touches results/."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from bench import bench_scale, finish, finished_table, measure

from experiments import formatting, results
from experiments.registry import directory_of, get_table, owners
from experiments.results import collect, read_results
from experiments.runs import Item, evaluation_items, items_of_table
from training import run_directory

RIVALS, COMPONENTS, SHUFFLING = "lumix_table06_rivals", "lumix_table02_components", "lumix_table07_shuffling"


@pytest.fixture
def scale(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return bench_scale(1, 2)


def collected(scale, table, seeds=None):
    """The record of a table, when its files are written."""
    (record,) = collect(scale, [table], seeds)
    return record


def finish_rivals(scale, speed, seconds):
    """Table 6, all of it, on a machine of that speed."""
    table = get_table(RIVALS, scale)
    for item in items_of_table(scale, table):
        machine = {"hardware": {"device": "cpu", "cpu": f"takes {seconds} s", "cores": 2, "torch": "2", "timm": "1"}}
        machine |= {"commit": "c" * 40, "dirty": False, "seconds": seconds, "images_per_second": 1 / seconds}
        finish(item, 90.0 + item.seed, checksum="c", measured=machine)
    for item in evaluation_items(scale, table):
        values = {"speed": speed + item.item.seed, "memory": speed, "parameters": 18.2}
        measure(item, values, checksum="c", others=dict.fromkeys(item.others, "c"), measured={"seconds": seconds})
    return table


def texts(folder):
    return {path: path.read_text() for path in Path(folder).rglob("*.json")}


def seeds_of(scale, table, row, column="top1"):
    """What the file of a cell's run holds of each seed."""
    run = table.cells[row, column]
    return results.read(results.run_path(scale.name, owners(scale)[run.key], run.key))["seeds"]


@pytest.mark.parametrize("name", [RIVALS, COMPONENTS, SHUFFLING])
def test_a_record_read_back_is_the_record(scale, name):
    finish_rivals(scale, 100.0, 2.0)
    finished_table(scale)
    record = collected(scale, get_table(name, scale))
    back = read_results(Path(), scale, [name, "dm_with_lumix"])
    assert back.missing == ["dm_with_lumix"]
    assert back.records[name]["rows"] == record["rows"]
    assert back.records[name]["runs"] == {key: run for key, run in record["runs"].items() if key in back.runs}
    assert {key for key, run in record["runs"].items() if run["seeds"]} <= back.runs.keys()
    alone = [claim.get("alone", claim["verdict"]) for claim in back.records[name]["claims"]]
    assert alone == [claim["verdict"] for claim in record["claims"]]


def test_a_failed_training_replaces_no_result(scale):
    """Nor one of another machine: what is not finished here keeps what is recorded, with its evaluations."""
    table = finish_rivals(scale, 100.0, 2.0)
    collected(scale, table)
    before = texts("results"), texts("measured")
    for folder in Path("runs").glob("*/*"):
        folder.rename(folder.with_name(f"away from {folder.name}"))
    collected(scale, table)
    assert (texts("results"), texts("measured")) == before
    again = next(item for item in items_of_table(scale, table) if item.run == table.cells["deit_s_lumix", "top1"])
    finish(again, 12.5)
    found = collected(scale, table)["runs"][again.run.key]["seeds"]
    assert {seed: result["top1"]["last"] for seed, result in found.items()} == {
        seed: 12.5 if seed == str(again.seed) else 90.0 + int(seed) for seed in found
    }
    assert len(found) > 1
    assert "evaluations" not in found[str(again.seed)]  # they were of other weights


def test_fewer_seeds_take_no_recorded_seed_away(scale):
    table = finish_rivals(scale, 100.0, 2.0)
    collected(scale, table)
    before = texts("results"), texts("measured")
    assert collected(scale, table, seeds=1)["rows"][0]["cells"]["top1"]["n"] == 1
    assert (texts("results"), texts("measured")) == before
    for seed in range(2):
        for folder in Path("runs").glob(f"*/*/*/seed{seed}"):
            folder.rename(folder.with_name(f"away{seed}"))
    collected(scale, table, seeds=2)
    assert (texts("results"), texts("measured")) == before


def test_another_machine_changes_measured_and_no_byte_of_results(scale):
    table = finish_rivals(scale, 100.0, 2.0)
    collected(scale, table)
    kept, measured = texts("results"), texts("measured")
    finish_rivals(scale, 55.0, 7.0)
    collected(scale, table)
    assert texts("results") == kept
    assert texts("measured").keys() == measured.keys()
    for path, text in texts("measured").items():
        assert text != measured[path]
        assert json.loads(text)["table"] == path.stem


def test_speeds_are_measured_and_parameters_are_not(scale):
    table = finish_rivals(scale, 100.0, 2.0)
    assert table.measured_columns == {"speed", "memory"}
    collected(scale, table)
    for text in texts("results").values():
        assert not any(f'"{name}"' in text for name in (*results.MEASURED, "older_code", "mean", "verdict"))
    whole, part = (read_results(Path(), scale, [RIVALS], measured=m).records[RIVALS] for m in (True, False))
    assert {c["id"] for c in whole["claims"]} - {c["id"] for c in part["claims"]} == {
        c.id for c in table.claims if "speed" in c.id
    }
    assert set(part["rows"][0]["cells"]) == {"top1", "parameters"}
    assert set(whole["rows"][0]["cells"]) == {"top1", "parameters", "speed", "memory"}


def test_a_run_is_kept_once_with_the_evaluations_of_every_table(scale):
    table = finished_table(scale)
    collected(scale, table)
    for key, run in table.runs.items():
        assert owners(scale)[key] == "lumix_table01_models"
        (path,) = Path("results").rglob(f"{key}.json")
        assert path == results.run_path(scale.name, "lumix_table01_models", key)
        found = results.read(path)
        assert found["config"] == run.to_dict()
        assert len(found["seeds"]["0"]["curve"]) == 2
        assert found["seeds"]["0"]["evaluations"].keys() == {one.key for one in table.evaluations.values()}


def test_a_table_renews_its_part_of_what_others_own_and_removes_what_is_gone(scale):
    table = get_table(COMPONENTS, scale)
    run = table.cells["full", "top1"]
    path = results.run_path(scale.name, owners(scale)[run.key], run.key)
    evaluations = {"e-1": {"values": {"a": 1.0}, "n_samples": 1, "facts": {}}}
    kept = {
        "top1": {"last": 1.0, "best": 1.0, "median_last": 1.0},
        "checksum": "None",
        "n_samples": 1,
        "evaluations": evaluations,
    }
    run_directory.write_json(path, {"config": run.to_dict(), "seeds": {"0": kept, "5": kept}})
    gone, foreign = (results.run_path(scale.name, owner, "gone") for owner in (COMPONENTS, RIVALS))
    for other in (gone, foreign):
        run_directory.write_json(other, {"config": run.to_dict(), "seeds": {}})
    finish(Item(run, 0, directory_of(scale, run, 0)), 77.0, checksum="None")
    collected(scale, table)
    seeds = seeds_of(scale, table, "full")
    assert (seeds["0"]["top1"]["last"], seeds["0"]["evaluations"]) == (77.0, evaluations)
    assert "5" in seeds
    assert (gone.exists(), foreign.exists()) == (False, True)


def test_a_cell_of_another_run_than_the_table_has_by_now_is_not_run(scale):
    table = finish_rivals(scale, 100.0, 2.0)
    collected(scale, table)
    path = results.results_path(scale.name, RIVALS)
    path.write_text(path.read_text().replace(table.cells["deit_s_lumix", "top1"].key, "other"))
    rows = read_results(Path(), scale, [RIVALS]).records[RIVALS]["rows"]
    assert {row["id"] for row in rows if row["cells"]["top1"]["status"] == "not run"} == {"deit_s_lumix"}


@pytest.mark.parametrize(("statistic", "value"), [("last", 1.0), ("best", 3.0), ("median_last", 2.0)])
def test_a_table_says_which_accuracy_it_shows(scale, statistic, value):
    table = replace(get_table(COMPONENTS, scale), statistic=statistic)
    run = table.cells["none", "top1"]
    finish(Item(run, 0, directory_of(scale, run, 0)), 1.0, top1={"last": 1.0, "best": 3.0, "median_last": 2.0})
    record = collected(scale, table)
    assert (record["statistic"], record["rows"][0]["cells"]["top1"]["mean"]) == (statistic, value)
    with pytest.raises(ValueError, match="median_last"):
        replace(table, statistic="median")


def test_average_gains_are_rows_numbers_have_the_papers_decimals_and_rows_share_seeds(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scale = bench_scale(6)
    table = get_table("dm_table04_losses", scale)
    better = {"dm_ce": 1.0, "mbce_one": 2.0, "mbce_two": -1.0, "dm_bce": 2.5}
    for (_, column), run in table.cells.items():
        for seed in range(5 if column == "dm_bce" else 6):
            accuracy = 70 + better.get(column, 0.0) * (1 + seed / 10)
            finish(Item(run, seed, directory_of(scale, run, seed)), accuracy)
    rows = {row["id"]: row["cells"] for row in collected(scale, table)["rows"]}
    gains = {
        column: (formatting.measured(cell), formatting.paper(cell)) for column, cell in rows["gain_average"].items()
    }
    assert gains["dm_ce"] == ("+1.25 (n = 6)", "+0.30")  # 1 to 1.5
    assert gains["mbce_two"] == (f"{formatting.MINUS}3.75 (n = 6)", f"{formatting.MINUS}1.99")
    assert gains["dm_bce"] == ("+0.60 (n = 5)", "+0.04")
    plain, gained = rows["saliencymix"]["mce"], rows["saliencymix"]["dm_ce"]
    assert (formatting.measured(plain), formatting.paper(plain)) == ("70.00 ± 0.00 (n = 6)", "76.85")
    assert formatting.difference(gained).startswith("+1.20 [")  # of the five seeds that all rows have
    assert formatting.difference(gained).endswith("(n = 5)")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"last": 90.0', '"last": NaN'),
        ('"last": 90.0', '"last": 1e999'),
        ('"last": 90.0', '"last": "90"'),
        ('"last": 90.0', '"last": true'),
        ('"seeds": {', '"seeds": {"x": {},'),
        ('"config": {', '"config": [1], "other": {'),
        ('"top1": {', '"top": {'),
        ('"checksum": "c"', '"checksum": null'),
    ],
)
def test_half_valid_files_are_named(scale, old, new):
    table = finish_rivals(scale, 100.0, 2.0)
    collected(scale, table)
    run = table.cells["deit_s_fmix", "top1"]
    path = results.run_path(scale.name, owners(scale)[run.key], run.key)
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(ValueError, match=rf"{run.key}.json is damaged .* git checkout .* run {RIVALS}"):
        read_results(Path(), scale, [RIVALS])


@pytest.mark.parametrize(
    "damage", ["{", "[]", '{"schema": 1}', "[" * 100000, '{"a":' * 20000, '{"schema": ' + "9" * 5000, "\xff\xfe", ""]
)
def test_damaged_files_are_named_in_one_sentence(tmp_path, damage):
    path = tmp_path / "results" / "mini" / f"{COMPONENTS}.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(damage.encode("latin-1"))
    with pytest.raises(ValueError, match=rf"{COMPONENTS}.json is damaged \(.*run {COMPONENTS} --scale mini$") as error:
        results.read(path)
    assert "\n" not in str(error.value)


def test_text_is_json_of_short_lines():
    value = {"a": {"b": list(range(200)), "é": "x  y", "c": {}}, "d": None, "e": [[1, "{"], []], "f": "g" * 90}
    text = results.as_text(value)
    assert json.loads(text) == value
    assert max(map(len, text.splitlines())) <= results.WIDTH
    assert results.as_text({"a": [1, 2.5]}) == '{"a": [1, 2.5]}'
