"""Table 6: its rows at every scale, its paper cells, and what its speed column compares."""

import csv
import math

import pytest

from evaluation.throughput import on_every_batch
from experiments import methods
from experiments.lumix_table06_rivals import table as table06
from experiments.registry import get_table
from experiments.scale import get_scale

SCALES = ["mini", "lab", "paper"]


def built(name):
    scale = get_scale(name)
    return scale, get_table("lumix_table06_rivals", scale)


@pytest.mark.parametrize("name", SCALES)
def test_all_rows_exist_for_both_backbones(name):
    scale, table = built(name)
    rows = {row.id: row for row in table.rows}
    assert len(rows) == 2 * (len(table06.METHODS) + 1)  # and the one that learns
    for role, id in table06.LACKING:
        assert not rows[f"{role}_{id}"].runs
        assert rows[f"{role}_{id}"].unavailable
    with_runs = [row for row in table.rows if row.runs]
    assert len(with_runs) == len(rows) - len(table06.LACKING)
    assert len({row.runs["top1"].key for row in with_runs}) == len(with_runs)
    assert {row.runs["top1"].method for row in with_runs if "attentive" in row.id} == {"mixup_attentivecutmix"}
    assert methods.lumix(scale.base("deit", "deit_s")).key in table.runs


@pytest.mark.parametrize("name", SCALES)
def test_gains_are_over_the_baseline_of_the_backbone_and_speeds_stand_alone(name):
    _, table = built(name)
    for row, column in table.cells:
        backbone = "deit_s" if row.startswith("deit_s") else "resnet50"
        expected = (f"{backbone}_baseline", "top1") if column == "top1" and "baseline" not in row else None
        assert table.against((row, column)) == expected


@pytest.mark.parametrize("name", SCALES)
def test_speeds_are_of_the_method_on_every_batch(name):
    """One evaluation serves speed, memory and parameters; bfloat16 is measured where there is a GPU."""
    scale, table = built(name)
    for row in table.rows:
        found = {column: table.evaluation((row.id, column)) for column in row.runs}
        assert found.pop("top1", None) is None
        assert len({evaluation.key for evaluation in found.values()}) == (0 if not found else 2 if scale.gpus else 1)
        for evaluation in found.values():
            run, baseline = row.runs["speed"], table.runs[evaluation.arguments["baseline"]["key"]]
            assert baseline.mix.names == ("mixup",)
            assert run.model == baseline.model
            assert evaluation.arguments["every_batch"]
            assert ("mixup" in on_every_batch(run).mix.names) is ("baseline" in row.id)
            assert evaluation.arguments["batch"] == (128 if scale.gpus else 50)


def test_paper_cells_are_those_of_the_page():
    """Speeds as ratios of the printed images per second, parameters as printed, 22M also for ResNet-50 (I-33)."""
    _, table = built("paper")
    assert len([cell for cell in table.paper if cell[1] == "top1"]) == 11
    for (row, column), value in table.paper.items():
        role, id = row.rsplit("_", 1)
        printed = table06.PAPER_SPEED[role]
        if column == "speed":
            assert value == pytest.approx(100 * printed[id] / printed["baseline"], abs=0.051)
        if column == "parameters":
            assert value == 22000
    assert {table.paper[f"{r}_lumix", "top1"] for r, _ in table06.BACKBONES} == {80.6, 79.1}
    with open(table.folder / "paper.csv", newline="") as file:
        assert all(math.isfinite(float(line["value"])) for line in csv.DictReader(file))


def test_hours_count_what_a_method_costs():
    scale = get_scale("paper")
    base = scale.base("deit", "deit_s")
    assert scale.hours(methods.puzzle_mix(base)) == pytest.approx(2.4 * scale.hours(base))
    assert scale.hours(methods.lumix(base)) == scale.hours(base)
