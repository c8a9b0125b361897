"""Tables, scales and ownership: every cell has its run, every run one owner; states of a run; what a record says."""

import csv
import json
import math
from pathlib import Path

import pytest
from bench import bench_scale, finish

from experiments.lumix_table06_rivals import table as table06
from experiments.methods import constant_control, lumix
from experiments.registry import TABLES, directory_of, get_table, owners, seeds_of, tables_of
from experiments.results import collect
from experiments.runs import ABSENT, DAMAGED, FINISHED, OLDER, STARTED, Item, activity, is_open, items_of_table, state
from experiments.scale import NAMES, get_scale
from experiments.terminal import costs
from experiments.verdicts import read_primary
from training import run_directory
from training.config import Run

ROOT = Path(__file__).resolve().parents[1]
COMPONENTS = "lumix_table02_components"
PAPER = get_scale("paper")


@pytest.fixture
def scale(tmp_path, monkeypatch):
    """The scale of stand-ins, in an empty project root."""
    monkeypatch.chdir(tmp_path)
    return bench_scale()


@pytest.mark.parametrize(
    ("name", "table"), [(name, table.id) for name in NAMES for table in tables_of(get_scale(name))]
)
def test_every_scale_builds_its_tables(name, table):
    built = get_table(table, get_scale(name))
    assert built.id == built.folder.name == table
    assert set(built.headline) <= built.cells.keys()
    for row in built.rows:
        assert row.runs.keys() == {column.id for column in built.value_columns} or row.unavailable or row.gains
        assert set(row.gains.values()) <= {sign + claim.id for claim in built.claims for sign in ("", "-")}
        assert row.labels.keys() == {column.id for column in built.label_columns}
        assert all(Run.from_dict(json.loads(json.dumps(run.to_dict()))) == run for run in row.runs.values())
    assert len({row.id for row in built.rows}) == len(built.rows)
    assert len({claim.id for claim in built.claims}) == len(built.claims)


@pytest.mark.parametrize("table", TABLES)
def test_paper_cells_claims_and_card_speak_of_their_table(table):
    built = get_table(table, PAPER if PAPER.has(table) else get_scale("small"))
    ours = {row.id for row in built.rows if row.ours}
    columns = {column for _, column in built.paper}  # an evaluation may show more than the paper did
    gains = {(row.id, column) for row in built.rows for column in row.gains}
    assert built.paper.keys() == gains | {cell for cell in built.cells if cell[0] not in ours and cell[1] in columns}
    # Tables of ours have no cells of the paper, and its figures print no numbers.
    assert (not built.paper_table or built.paper_table.startswith("Figure")) == (not built.paper)
    with (built.folder / "claims.csv").open(encoding="utf-8") as file:
        assert [line["id"] for line in csv.DictReader(file)] == [claim.id for claim in built.claims]
    for claim in built.claims:
        assert claim.sentence
        assert claim.source
        assert set() < claim.cells <= set(built.cells)
        if any(one.paper for one in claim.comparisons):
            assert claim.cells <= set(built.paper)
    card = (built.folder / "README.md").read_text()
    for part in ("Claim under test", "Commands", f"python -m experiments run {table}", "Outcome"):
        assert part in card


def test_the_papers_cells_add_up_as_the_register_says():
    def average(table, column, skip):
        paper = get_table(table, PAPER).paper
        cells = [value for (id, of), value in paper.items() if of == column and not id.endswith(skip)]
        return sum(cells) / len(cells), paper

    (base, _), (full, _) = (average("lumix_table01_models", column, "-") for column in ("base", "lumix"))
    assert full - base == pytest.approx(0.38, abs=0.005)  # recomputed in methods.md 6.2
    for row, recomputed in (("base", 67.32), ("lumix", 67.82)):  # I-28
        mean, paper = average("lumix_table07_shuffling", row, "average")
        assert (mean, paper["average", row]) == pytest.approx((recomputed, recomputed), abs=0.05)
    for row, recomputed, printed in (("base", 49.74, 49.75), ("lumix", 52.93, 52.92)):  # I-30
        mean, paper = average("lumix_table09_occlusion", row, "average")
        assert mean == pytest.approx(recomputed, abs=0.005)
        assert paper["non_salient_average", row] == printed


def test_paper_cells_of_table_6_are_those_of_the_page():
    """Speeds as ratios of the printed images per second, parameters as printed, 22M also for ResNet-50 (I-33)."""
    table = get_table("lumix_table06_rivals", PAPER)
    assert len([cell for cell in table.paper if cell[1] == "top1"]) == 11
    for (row, column), value in table.paper.items():
        role, id = row.rsplit("_", 1)
        printed = table06.PAPER_SPEED[role]
        if column == "speed":
            assert value == pytest.approx(100 * printed[id] / printed["baseline"], abs=0.051)
        if column == "parameters":
            assert value == 22000
    assert {table.paper[f"{r}_lumix", "top1"] for r, _ in table06.BACKBONES} == {80.6, 79.1}


@pytest.mark.parametrize("name", ["lab", "paper"])
def test_every_primary_claim_has_three_seeds_planned(name):
    scale = get_scale(name)
    claims = {claim.id: (table, claim) for table in tables_of(scale) for claim in table.claims}
    for primary in read_primary():
        table, claim = next(claims[id] for id in primary.claims if id in claims)
        assert all(len(seeds_of(scale, table.cells[cell])) >= 3 for cell in claim.cells)


def test_the_first_table_owns_a_run_and_seeds_are_paired(scale):
    base = scale.base("deit", "deit_s")
    assert owners(scale)[base.key] == "lumix_table01_models"
    assert owners(scale)[constant_control(base).key] == "lumix_controls"
    assert directory_of(scale, base, 4) == Path("runs", "bench", "lumix_table01_models", base.key, "seed4")
    assert list(seeds_of(scale, base)) == list(seeds_of(scale, lumix(base))) == [0, 1, 2]
    assert list(seeds_of(scale, constant_control(base))) == [0, 1, 2]
    assert list(seeds_of(scale, scale.base("deit", "swin_t"))) == [0, 1]
    assert list(seeds_of(scale, base, 1)) == [0]


def test_costs_count_every_run_once(scale):
    every = costs(scale)
    unique = {key for table in tables_of(scale) for key in table.runs}
    assert sum(runs for runs, *_ in every.values()) == len(unique)
    runs, trainings, hours, *_ = every["lumix_table01_models"]
    assert runs == len(get_table("lumix_table01_models", scale).runs)
    assert trainings == hours == 2 * runs + 2  # DeiT-S and its LUMix run have a third seed


def test_states_of_a_run(scale):
    (item, *_) = items_of_table(scale, get_table(COMPONENTS, scale))
    assert (state(item), is_open(scale, item)) == (ABSENT, True)
    run_directory.write_json(item.directory / "environment.json", {})
    assert (state(item), is_open(scale, item), activity(item)) == (STARTED, True, "started")
    (item.directory / "log.txt").write_text("attempt 1\nfailed: no such disk\n")
    assert activity(item) == "failed"
    (item.directory / "lock").write_text("{}")
    assert activity(item) == "running"
    finish(item, 90.0)
    assert (state(item), is_open(scale, item)) == (FINISHED, False)
    finish(item, 90.0, fingerprint="of other code")
    assert (state(item), is_open(scale, item)) == (OLDER, True)
    assert not is_open(get_scale("lab"), item)
    (item.directory / "result.json").write_text('{"key": "cut')
    assert (state(item), is_open(scale, item)) == (DAMAGED, True)


def test_a_record_of_nothing_says_so(scale):
    (values,) = collect(scale, [get_table("lumix_table01_models", scale)])
    cells = {row["id"]: row["cells"]["base"] for row in values["rows"]}
    assert cells["deit_s"]["status"] == "not run"
    assert cells["xcit_l"] == {**cells["xcit_l"], "status": "not at this scale", "reason": "needs more pixels"}
    assert {claim["verdict"] for claim in values["claims"]} == {"not run"}
    assert not any(run["seeds"] for run in values["runs"].values())


def test_a_record_holds_cells_differences_claims_and_runs(scale):
    table = get_table(COMPONENTS, scale)
    for row, accuracies in {"none": (90.0, 91.0, 89.5), "full": (91.0, 92.5, 90.5)}.items():
        run = table.cells[row, "top1"]
        for seed, accuracy in enumerate(accuracies):
            finish(Item(run, seed, directory_of(scale, run, seed)), accuracy)
    (values,) = collect(scale, [table])
    none, *_, full = [row["cells"]["top1"] for row in values["rows"]]
    assert (full["mean"], full["n"], full["values"]) == (91.333333, 3, {"0": 91.0, "1": 92.5, "2": 90.5})
    assert full["std"] == pytest.approx(1.040833)
    assert (full["paper"], full["status"], full["n_samples"], full["older_code"]) == (80.5, "done", 297, False)
    assert none["difference"] is None
    difference = full["difference"]
    assert (difference["to"], difference["n"], difference["paper"]) == (["none", "top1"], 3, 0.7)
    assert (difference["mean"], difference["low"]) == (pytest.approx(7 / 6), None)  # of three seeds, no interval
    claims = {claim["id"]: claim["verdict"] for claim in values["claims"]}
    assert (claims["components-full"], claims["components-lam_s"]) == ("", "not run")
    run = values["runs"][table.cells["full", "top1"].key]
    assert (run["owner"], run["config"]) == ("lumix_table01_models", table.cells["full", "top1"])
    assert not {"lambda", "key", "seed"} & set(run["seeds"]["0"])
    assert run["seeds"]["0"]["curve"][1] == {"epoch": 2, "loss": 2.1235, "lam_0": 0.5, "lam": None, "top1": 91.0}


def test_fewer_seeds_older_code_and_foreign_results_are_told(scale):
    table = get_table(COMPONENTS, scale)
    (item, *_) = items_of_table(scale, table)
    finish(item, 90.0, fingerprint="of other code")
    cell, one = (next(collect(scale, [table], seeds))["rows"][0]["cells"]["top1"] for seeds in (None, 1))
    assert (cell["n"], cell["std"], cell["older_code"]) == (1, None, True)
    assert (cell["reason"], one["reason"]) == ("1 of 3 seeds are finished", "")
    finish(item, 90.0, seed=7)
    with pytest.raises(run_directory.RunError, match="seed 7, not of"):
        next(collect(scale, [table]))
    odd: dict[str, object]
    for odd in (
        {"top1": {"last": "x"}},
        {"top1": {"last": math.nan}},
        {"n_samples": None},
        {"measured": []},
        {"checksum": 1},
    ):
        finish(item, 90.0)
        found = json.loads((item.directory / "result.json").read_text())
        (item.directory / "result.json").write_text(json.dumps({**found, **odd}))
        with pytest.raises(run_directory.RunError, match=r"result\.json is not whole: delete it and run"):
            next(collect(scale, [table]))
    (item.directory / "result.json").write_text('{"key": "dig')
    with pytest.raises(run_directory.RunError, match=r"result\.json is damaged .* delete it and run"):
        next(collect(scale, [table]))
