"""Table 6: its rows at every scale, its paper cells, and what its speed column compares."""

import pytest

from evaluation.throughput import on_every_batch
from experiments import methods
from experiments.lumix_table06_rivals import table as table06
from experiments.registry import get_table
from experiments.scale import get_scale


@pytest.mark.parametrize("name", ["mini", "lab", "paper"])
def test_rows_gains_and_speeds_of_both_backbones(name):
    """One evaluation serves speed, memory and parameters; the method acts on every batch, bfloat16 is for GPUs."""
    scale = get_scale(name)
    table = get_table("lumix_table06_rivals", scale)
    rows = {row.id: row for row in table.rows}
    assert {f"{role}_{id}" for role, id in table06.LACKING} == {id for id, row in rows.items() if not row.runs}
    with_runs = [row for row in table.rows if row.runs]
    assert len({row.runs["top1"].key for row in with_runs}) == len(with_runs)
    assert methods.lumix(scale.base("deit", "deit_s")).key in table.runs
    for row, column in table.cells:
        backbone = "deit_s" if row.startswith("deit_s") else "resnet50"
        expected = (f"{backbone}_baseline", "top1") if column == "top1" and "baseline" not in row else None
        assert table.against((row, column)) == expected
    for row in with_runs:
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
    table = get_table("lumix_table06_rivals", get_scale("paper"))
    assert len([cell for cell in table.paper if cell[1] == "top1"]) == 11
    for (row, column), value in table.paper.items():
        role, id = row.rsplit("_", 1)
        printed = table06.PAPER_SPEED[role]
        if column == "speed":
            assert value == pytest.approx(100 * printed[id] / printed["baseline"], abs=0.051)
        if column == "parameters":
            assert value == 22000
    assert {table.paper[f"{r}_lumix", "top1"] for r, _ in table06.BACKBONES} == {80.6, 79.1}
