"""Tables 5 and 8 at every scale: which models, evaluations and reference."""

import pytest

from evaluation.weak_localisation import START
from experiments.registry import get_table, owners
from experiments.runs import evaluation_items
from experiments.scale import get_scale
from experiments.scales import mini

SCALES = ("mini", "lab", "paper")


@pytest.mark.parametrize("name", SCALES)
def test_stand_ins_are_filtered_by_pixels_or_by_one_model_that_is_not_compared(name: str) -> None:
    table = get_table("lumix_table08_natural", get_scale(name))
    (evaluation,) = {e.key: e for e in table.evaluations.values()}.values()
    if name != "lab":
        assert not evaluation.sources
        assert not table.sources
    else:
        (reference,) = table.sources
        assert evaluation.sources == {"reference": (reference.key, 0)}
        assert reference.key not in {run.key for run in table.cells.values()}
        assert {run.data for run in table.runs.values()} == {reference.data}
        items = evaluation_items(get_scale(name), table)
        assert len({item.others["reference"] for item in items}) == 1
    if name != "paper":
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
