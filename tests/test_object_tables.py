"""Tables 5 and 8 at every scale: which models, evaluations and reference, and that the record keeps their arrays."""

import numpy as np
import pytest
from test_evaluation_tables import finished_table, measure, scale  # noqa: F401 - a fixture

from evaluation.weak_localisation import START
from experiments import evaluations
from experiments.registry import get_table, owners
from experiments.results import collect
from experiments.scale import Scale, get_scale
from experiments.scales import mini
from training import run_directory

SCALES = ("mini", "lab", "paper")


@pytest.mark.parametrize("name", SCALES)
def test_stand_ins_are_filtered_by_one_model_that_is_not_compared(name: str) -> None:
    table = get_table("lumix_table08_natural", get_scale(name))
    (evaluation,) = {e.key: e for e in table.evaluations.values()}.values()
    if name == "paper":
        assert not evaluation.arguments
        assert not table.sources
        return
    (reference,) = table.sources
    assert evaluation.sources == {"reference": (reference.key, 0)}
    assert reference.key not in {run.key for run in table.cells.values()}
    assert reference.model.role == "resnet50"
    assert {run.data for run in table.runs.values()} == {reference.data}
    items = evaluations.evaluation_items(get_scale(name), table)
    assert len({item.others["reference"] for item in items}) == 1
    kept, known = evaluation.arguments["classes"], evaluation.arguments["known_classes"]
    assert len(set(kept)) == len(kept) == len(known)
    assert 0 < len(set(kept) & set(known)) < len(kept)  # as the classes of ImageNet-A and -O


@pytest.mark.parametrize("name", SCALES)
def test_boxes_are_drawn_by_the_frozen_or_the_starting_setting(name: str) -> None:
    table = get_table("lumix_table05_localisation", get_scale(name))
    arguments = {e.protocol: e.arguments for e in table.evaluations.values()}
    boxes = arguments["weak_localisation"]
    if name == "paper":
        assert boxes["reference"] == table.paper["deit_s", "localisation"]
    else:
        assert boxes == {"setting": START}
    assert table.metric_of(("lumix", "localisation_mean_head")) == "iou_mean_head"
    assert ("weak_segmentation" in arguments) == (name != "lab")
    assert all(table.against(cell) in (None, ("deit_s", cell[1])) for cell in table.cells)


def test_shapes_runs_are_runs_of_their_own_with_an_owner() -> None:
    runs = {run.key for role in ("deit_s", "resnet50") for run in (mini.run(role), mini.shapes_run(role))}
    assert len(runs) == 4
    assert set(owners(get_scale("mini"))) > {mini.shapes_run(role).key for role in ("deit_s", "resnet50")}


def test_the_record_keeps_numbers_and_arrays_of_each_evaluation(scale: Scale) -> None:  # noqa: F811
    table = finished_table(scale)
    item = evaluations.evaluation_items(scale, table)[0]
    values = dict.fromkeys(("grid_1", "grid_4", "grid_8", "grid_16", "average"), 12.34567)
    measure(item, values)
    arrays = {"curve": np.array([[1 / 3, 2.0]]), "count": np.array([3, 4])}
    path = item.place.with_name(f"{item.place.name}.npz")
    run_directory.write_atomically(path, lambda file: np.savez(file, **arrays))
    seeds = next(collect(scale, [table]))["runs"][item.item.run.key]["seeds"]
    shown = seeds[str(item.item.seed)]["evaluations"][item.evaluation.key]
    assert shown["values"]["grid_1"] == 12.34567
    assert shown["arrays"] == {"curve": [[0.3333, 2.0]], "count": [3, 4]}
    assert (shown["n_samples"], shown["seconds"]) == (797, 2.0)
