"""Figures draw what the results hold, say "not run" where there is nothing, and notebooks equal their text twins."""

import json
import math
from pathlib import Path
from typing import Any

import figures
import label_error
import masks
import mixed
import pair
import pytest
import swept
import torch
from figure_checks import check_names_its_data_and_is_stable, texts
from report_fixture import ROOT, RUNS, cell, fake_record, row

from experiments.registry import get_table
from experiments.scale import get_scale
from report import page
from report.load import Results, read_results
from training.data.sets import shapes

pytestmark = pytest.mark.usefixtures("closed_figures")
NOTHING = Results("mini", ("lumix_table01_models",), {})


@pytest.fixture
def results() -> Results:
    records = {table: fake_record(table, 3) for table in (figures.MODELS, figures.LAWS)}
    for line in records[figures.MODELS]["rows"]:
        line["cells"] = {"lumix": line["cells"]["top1"]}
    return Results("mini", tuple(records), records)


@pytest.mark.parametrize("name", ["gain_per_model", "lambda_laws", "training_curves"])
def test_figures_without_results_say_so(name: str) -> None:
    assert "not run" in texts(getattr(figures, name)(NOTHING))


@pytest.mark.parametrize("draw", [swept.decoupled_parameters, swept.decoupled_eta])
def test_curves_without_results_say_so(draw: Any) -> None:
    assert texts(draw(NOTHING)).count("not run") >= 3


@pytest.mark.parametrize("name", ["gain_per_model", "lambda_laws", "training_curves"])
def test_figures_name_their_data_and_are_byte_stable(name: str, results: Results, tmp_path: Path) -> None:
    check_names_its_data_and_is_stable(getattr(figures, name), results, tmp_path)


def test_gains_draw_our_interval_and_the_papers_value(results: Results) -> None:
    axes = figures.gain_per_model(results).axes[0]
    wanted = results.records[figures.MODELS]["rows"][1]["cells"]["lumix"]["difference"]
    drawn = [[float(x) for x in line.get_xdata()] for line in axes.lines]
    assert [wanted["low"], wanted["high"]] in drawn
    assert [wanted["mean"]] in drawn
    assert [wanted["paper"]] in drawn


@pytest.fixture
def curves() -> Results:
    """The rows of Mixup and CutMix of a curve table, with what the runs of the fixture end with."""
    record = fake_record("dm_figure02_eta", 3)
    columns = ("eta_0.1", "eta_1")
    cells = dict(zip(columns, (cell("cutmix", 3, None), cell("lumix", 3, None)), strict=True))
    record["rows"] = [
        {**row(name, cells), "labels": {"method": title}} for name, title in (("mixup", "Mixup"), ("cutmix", "CutMix"))
    ]
    record["value_columns"] = [{"id": column, "title": column} for column in columns]
    return Results("mini", (record["table"],), {record["table"]: record})


def test_curves_over_a_parameter_are_the_runs_of_their_cells(curves: Results) -> None:
    frame = swept.points(curves, *swept.FIGURE_A2)
    assert len(frame) == 2 * 2 * 3  # methods, values, seeds
    assert set(frame["parameter"]) == {"eta"}
    runs = curves.runs
    for line in frame.itertuples():
        run = runs[RUNS["cutmix" if line.value == 0.1 else "lumix"].key]
        assert line.top1_last == run["seeds"][str(line.seed)]["top1"]["last"]
        assert line.paper_best == 0.1
    figure = swept.decoupled_parameters(curves)
    eta, xi, _ = figure.axes
    values = frame[(frame["method"] == "Mixup") & (frame["value"] == 1)]["top1_last"]
    drawn = [y for line in eta.lines for y in line.get_ydata()]
    assert any(y == pytest.approx(values.mean()) for y in drawn)
    assert all(any(y == pytest.approx(end) for y in drawn) for end in swept.interval(list(values)))
    assert "not run" in texts(xi)
    assert "NOT ImageNet" in texts(figure)


@pytest.mark.parametrize("table", [*swept.FIGURE_A2, *swept.FIGURE_A3])
@pytest.mark.parametrize("scale", ["mini", "lab", "paper"])
def test_every_method_of_a_curve_has_a_colour(scale: str, table: str) -> None:
    assert {row.labels["method"] for row in get_table(table, get_scale(scale)).rows} <= set(swept.COLOURS)


@pytest.mark.parametrize("draw", [swept.decoupled_parameters, swept.decoupled_eta])
def test_curves_of_the_committed_results_are_whole(draw: Any) -> None:
    assert "not run" not in texts(draw(read_results(ROOT, "mini")))


def test_an_interval_is_students() -> None:
    low, high = swept.interval([1.0, 2.0, 3.0])
    assert (low, high) == pytest.approx((2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5))
    assert all(math.isnan(end) for end in swept.interval([1.0]))


def test_curve_is_the_mean_over_seeds(results: Results) -> None:
    run = next(iter(results.runs.values()))
    epochs, means, spreads = figures.curve(run, "top1")
    values = [seed["curve"][0]["top1"] for seed in run["seeds"].values()]
    assert list(epochs) == [1, 2, 3, 4]
    assert means[0] == pytest.approx(sum(values) / len(values))
    assert (spreads > 0).all()


def test_label_truth_is_the_visible_share_counted_by_hand() -> None:
    test = shapes(60, seed=3)
    network = label_error.small_network(test.num_classes).eval()
    pairs = label_error.mixed_pairs(network, test)
    assert 30 < len(pairs.truth) <= 60
    for i in range(5):
        # The canvas and the partner are found again by their pixels, then counted one by one.
        top, bottom, left, right = (int(side) for side in pairs.boxes[i])
        inside = torch.zeros(16, 16, dtype=torch.bool)
        inside[top:bottom, left:right] = True
        own, partner = (
            next(n for n in range(60) if bool((test.images[n] == pairs.images[i])[:, region].all()))
            for region in (~inside, inside)
        )
        assert test.masks is not None
        pasted = sum(int(test.masks[partner, y, x]) for y in range(top, bottom) for x in range(left, right))
        kept = int(test.masks[own].sum()) - sum(
            int(test.masks[own, y, x]) for y in range(top, bottom) for x in range(left, right)
        )
        assert float(pairs.truth[i]) == pytest.approx(pasted / (pasted + kept))
        assert float(pairs.weights["λ0"][i]) == pytest.approx((bottom - top) * (right - left) / 256)


def test_label_error_training_is_reproducible_and_leaves_the_global_generator_alone() -> None:
    data = shapes(100, seed=0)
    before = torch.get_rng_state()
    first, second = label_error.train(data), label_error.train(data)
    assert torch.equal(before, torch.get_rng_state())
    for mine, other in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(mine, other)


def test_label_error_figure_shows_all_four_numbers() -> None:
    shown = texts(label_error.label_error(train_images=100, test_images=120))
    for word in ("true = ", "λ0 = ", "λs = ", "λ = ", "NOT ImageNet", "mean error"):
        assert word in shown


def test_every_figure_has_a_notebook_equal_to_its_text_and_without_outputs() -> None:
    assert {path.stem for path in pair.texts()} == set(page.FIGURES)
    for text in pair.texts():
        committed = text.with_suffix(".ipynb").read_text(encoding="utf-8")
        assert committed == pair.notebook(text), f"run python paper_figures/pair.py after editing {text.name}"
        for made in json.loads(committed)["cells"]:
            assert not made.get("outputs")
            assert made.get("execution_count") is None
        assert f'"{text.stem}"' in text.read_text(encoding="utf-8")


def test_what_is_seen_of_objects_is_counted_by_hand() -> None:
    objects = torch.zeros(2, 2, 2, dtype=torch.bool)
    objects[0, 0] = objects[1, 1, 1] = True  # two pixels of the first, one of the second
    own = torch.tensor([[[1.0, 0.5], [0.0, 0.0]], [[0.0, 0.0], [1.0, 0.25]]])
    found = masks.seen(own, objects, torch.tensor([1, 0]))
    assert found.tolist() == pytest.approx([(1.5 + 1) / 3, (0.25 + 2) / 3])


def test_the_sheet_of_learned_masks_names_its_methods_and_data() -> None:
    shown = texts(masks.learned_masks(train_images=50, test_images=40))
    for word in ("AutoMix, contrast", "SAMix, contrast", "CutMix", "Puzzle-Mix", "NOT ImageNet"):
        assert word in shown


def test_mixed_accuracy_without_results_says_so() -> None:
    assert "not run" in texts(mixed.decoupled_mixed(NOTHING))
