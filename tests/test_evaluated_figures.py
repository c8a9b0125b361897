"""The figures of Tables 5 and 8 draw what the results hold, name their data, and say "not run" without results."""

from pathlib import Path
from typing import Any

import evaluated
import numpy as np
import pytest
from figure_checks import check_names_its_data_and_is_stable, texts
from report_fixture import fake_seed

from evaluation.foreground import foreground
from evaluation.weak_localisation import best_fit, boxes_around, declared_grid
from experiments.scales import mini
from report.load import Results
from training.data.sets import shapes

pytestmark = pytest.mark.usefixtures("closed_figures")
CONFIG = mini.shapes_run("deit_s")
FIGURES = ("calibration", "attention_maps", "localisation_grid")


def outcome(seed: int, arrays: dict[str, list[Any]]) -> dict[str, Any]:
    """A value for every declared setting of three heads, two points higher in seed 1."""
    grid = np.array([50 * float(name.split("/")[0]) + 2 * seed for name in declared_grid(3)]).reshape(5, 5, 2)
    kept = {name: of_seeds[seed] for name, of_seeds in arrays.items()} | {"grid_iou": grid.tolist()}
    return {"values": {"whole_image": 34.0}, "arrays": kept}


def record(table: str, column: str, arrays: dict[str, list[Any]], seeds: int = 2) -> dict[str, Any]:
    """A record of two models; no number here is a result."""
    runs = {
        row: {
            "config": CONFIG,
            "owner": table,
            "seeds": {
                str(seed): fake_seed("cutmix", seed) | {"evaluations": {"made-up": outcome(seed, arrays)}}
                for seed in range(seeds)
            },
        }
        for row in evaluated.MODELS
    }
    rows = [
        {"id": row, "cells": {column: {"status": "done", "run": row, "evaluation": "made-up"}}}
        for row in evaluated.MODELS
    ]
    return {"table": table, "rows": rows, "runs": runs}


@pytest.fixture
def results() -> Results:
    rng = np.random.default_rng(0)
    natural = {
        "reliability_count": [[0, 10, 100], [0, 9, 300]],
        "reliability_confidence": [[0.0, 40.0, 80.0], [0.0, 50.0, 84.0]],
        "reliability_accuracy": [[0.0, 10.0, 60.0], [0.0, 20.0, 64.0]],
        "response_accuracy": [[90.0, 80.0, 60.0, 50.0], [80.0, 70.0, 60.0, 54.0]],
    }
    attention = {"example_attention": rng.random((2, 3, 3, 4, 4)).tolist()}
    records = {
        evaluated.NATURAL: record(evaluated.NATURAL, "calibration_error", natural),
        evaluated.LOCALISATION: record(evaluated.LOCALISATION, "localisation", attention),
    }
    return Results("mini", tuple(records), records)


@pytest.mark.parametrize("name", FIGURES)
def test_without_results_it_says_so(name: str) -> None:
    assert "not run" in texts(getattr(evaluated, name)(Results("mini", (), {})))


@pytest.mark.parametrize("name", FIGURES)
def test_data_are_named_and_bytes_are_stable(name: str, results: Results, tmp_path: Path) -> None:
    check_names_its_data_and_is_stable(getattr(evaluated, name), results, tmp_path)


def test_reliability_pools_the_seeds_and_leaves_small_bins_out(results: Results) -> None:
    left, right = evaluated.calibration(results).axes
    line = left.lines[0]  # of the 19 images in the second bin too few are there
    assert line.get_xdata().tolist() == [pytest.approx((80 * 100 + 84 * 300) / 400)]
    assert line.get_ydata().tolist() == [pytest.approx((60 * 100 + 64 * 300) / 400)]
    assert right.lines[0].get_xdata().tolist() == [25, 50, 75, 100]
    assert right.lines[0].get_ydata().tolist() == [85, 75, 60, 52]


def test_attention_map_shows_the_head_whose_box_fits_best(results: Results) -> None:
    figure = evaluated.attention_maps(results)
    assert len(figure.axes) == 6
    attention = evaluated.arrays_of(results.records[evaluated.LOCALISATION], "deit_s", "localisation")["0"]
    test = shapes(1000, seed=1)
    assert test.boxes is not None
    for index in range(3):
        top, bottom, left, right = test.boxes[index].tolist()
        heads = attention["example_attention"][index]
        boxes = boxes_around(foreground(heads.reshape(3, -1), 0.9).reshape(3, 4, 4), 4)
        fit = best_fit(boxes, np.array([[left, top, right, bottom]], float))
        axes = figure.axes[index]
        assert axes.get_xlabel() == f"head {fit.argmax()}, IoU {100 * fit.max():.0f} %"
        assert axes.get_title() == test.class_names[int(test.labels[index])].replace("_", " ")
        drawn, true = (patch.get_bbox().extents.tolist() for patch in axes.patches)
        assert drawn == boxes[fit.argmax()].tolist()
        assert true == [left, top, right, bottom]


def test_grid_shows_the_mean_over_seeds_of_every_setting(results: Results) -> None:
    figure = evaluated.localisation_grid(results)
    for axes in figure.axes:
        curves = [line for line in axes.lines if len(line.get_xdata()) == 5 and line.get_linestyle() != "None"]
        assert len(curves) == 2 * 5  # of two models: three heads, the best and the mean
        for line in curves:
            assert list(line.get_ydata()) == pytest.approx([26, 31, 36, 41, 46])
