"""The figure of Table 4 draws what the record keeps beside the truth, and says "not run" where there is nothing."""

from typing import Any

import numpy as np
import pytest
import segmented
from figure_checks import texts

from evaluation.scenes import load_scenes
from experiments.scales import mini
from report.load import Results

pytestmark = pytest.mark.usefixtures("closed_figures")


def record(data: str = "shapes") -> dict[str, Any]:
    """What `collect` writes, as far as the figure looks at it: two rows, of which one was run."""
    scenes = load_scenes("shapes")[1]
    arrays = {"examples": [scenes[i][1].tolist() for i in range(3)]}
    cell = {"status": "done", "run": "a-run", "evaluation": "segmentation-1"}
    rows = [
        {"id": "segmenter", "cells": {"miou": cell}},
        {"id": "segmenter_lumix", "cells": {"miou": {"status": "not run", "run": "another", "evaluation": "s"}}},
    ]
    seeds = {"0": {"evaluations": {"segmentation-1": {"arrays": arrays}}, "n_samples": 9}}
    return {
        "rows": rows,
        "setting": "shapes",
        "evaluations": {"segmentation-1": {"arguments": {"recipe": {"data": data}}}},
        "runs": {"a-run": {"config": mini.shapes_run("deit_s"), "seeds": seeds}},
    }


def draw(found: dict[str, Any] | None) -> Any:
    records = {} if found is None else {segmented.SEGMENTATION: found}
    return segmented.segmentations(Results("mini", (segmented.SEGMENTATION,), records))


@pytest.mark.parametrize("found", [None, record("pascal_context")])
def test_without_results_or_images_the_figure_says_so(found: Any, monkeypatch: Any, tmp_path: Any) -> None:
    monkeypatch.setenv("LUMIX_DATA", str(tmp_path))
    assert "not run" in texts(draw(found))


def test_the_segmentation_is_drawn_below_the_truth() -> None:
    figure = draw(record())
    pictures = [axes.images[0].get_array() for axes in figure.axes]
    assert len(pictures) == 3 * 3  # scenes, truth and the one row that was run
    for i in range(3):
        assert np.array_equal(pictures[3 + i], pictures[6 + i])  # the record of this test holds the truth itself
    shown = texts(figure)
    for word in ("scene", "truth", "Segmenter", "background", "NOT ImageNet"):
        assert word in shown


def test_every_class_has_a_colour_of_its_own() -> None:
    colours = segmented.class_colours(11)
    assert len({tuple(colours(i)) for i in range(11)}) == 11
