"""The figures of Tables 7 and 9 draw the record's numbers, show the evaluation's own draws, and say "not run"."""

from pathlib import Path
from typing import Any

import pytest
import robust
import torch
from figure_checks import check_names_its_data_and_is_stable, texts
from torch import Tensor

from evaluation import occlusion, shuffling
from evaluation.arguments import LOSSES
from experiments.collect import collect
from experiments.lumix_table07_shuffling import table as shuffling_table
from experiments.lumix_table09_occlusion import table as occlusion_table
from experiments.scale import get_scale
from report.load import Results
from training.data.sets import load

pytestmark = pytest.mark.usefixtures("closed_figures")
FIGURES = ("occlusion_curves", "robustness_sheet")
TABLES = (robust.OCCLUSION, robust.SHUFFLING)


@pytest.fixture
def unrun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Results:
    """What `collect` writes of both tables before anything is trained."""
    monkeypatch.chdir(tmp_path)
    scale = get_scale("mini")
    found = (collect(scale, module.build(scale)) for module in (occlusion_table, shuffling_table))
    return Results("mini", TABLES, {record["table"]: record for record in found})


@pytest.fixture
def results(unrun: Results) -> Results:
    """Made-up numbers in every cell, 10 + place of the row, 2 more for LUMix; no number here is a result."""
    for record in unrun.records.values():
        for place, row in enumerate(record["rows"]):
            for column, cell in row["cells"].items():
                if cell["status"] == "not run":
                    mean = 10.0 + place + 2 * (column == "lumix")
                    cell.update(status="done", mean=mean, std=0.5, n=3)
    return unrun


def curves(axes: Any) -> dict[str, Any]:
    return {str(line.get_label()): line for line in axes.lines}


@pytest.mark.parametrize("name", FIGURES)
def test_without_results_they_say_so(name: str) -> None:
    assert "not run" in texts(getattr(robust, name)(Results("mini", TABLES, {})))


def test_every_panel_without_numbers_says_so(unrun: Results) -> None:
    figure = robust.occlusion_curves(unrun)
    assert texts(figure).count("not run") == len(figure.axes)
    assert not any(axes.lines for axes in figure.axes)  # nor is the paper's curve taken for ours


@pytest.mark.parametrize("name", FIGURES)
def test_data_are_named_and_bytes_are_stable(name: str, results: Results, tmp_path: Path) -> None:
    check_names_its_data_and_is_stable(getattr(robust, name), results, tmp_path)


def test_curves_are_the_cells_and_only_the_papers_are_called_so(results: Results) -> None:
    rows = {row["id"]: row["cells"] for row in results.records[robust.OCCLUSION]["rows"]}
    *panels, shuffled = robust.occlusion_curves(results).axes
    for axes, variant in zip(panels, robust.PANELS, strict=True):
        drawn = curves(axes)
        for column, (name, *_) in robust.MODELS.items():
            line = drawn[f"{name}, n = 3 seeds"]
            assert list(line.get_xdata()) == list(LOSSES)
            assert list(line.get_ydata()) == [rows[f"{variant}_{loss}"][column]["mean"] for loss in LOSSES]
            paper = drawn.get(f"paper (ImageNet), {name}")
            assert (paper is None) == (variant != "non_salient")
            if paper is not None:
                assert list(paper.get_ydata()) == [rows[f"{variant}_{loss}"][column]["paper"] for loss in LOSSES]
    ours, paper = (
        curves(shuffled)[f"{name}DeiT-S{n}"] for name, n in (("", ", n = 3 seeds"), ("paper (ImageNet), ", ""))
    )
    assert list(ours.get_xdata()) == [1, 4, 8, 16]  # the grids of mini scale
    assert list(paper.get_xdata()) == [1, 4, 8, 16, 32, 64]


def test_band_is_one_standard_deviation_and_absent_for_one_seed(results: Results) -> None:
    band = robust.occlusion_curves(results).axes[0].collections[0]
    assert band.get_paths()[0].get_extents().y0 == pytest.approx(9.5)
    for row in results.records[robust.OCCLUSION]["rows"]:
        row["cells"]["base"].update(std=None, n=1)
    left = robust.occlusion_curves(results).axes[0]
    assert "DeiT-S, n = 1 seeds" in curves(left)
    assert not any(len(path.vertices) for path in left.collections[0].get_paths())


def test_the_sheet_drops_the_patches_that_the_evaluation_drops(unrun: Results) -> None:
    arguments = robust.protocol_of(unrun.records[robust.OCCLUSION], "occlusion")
    images = load(get_scale("mini").base("deit", "deit_s").data)[1].images / 255
    drawn: dict[str, Tensor] = {}
    for name, keep in occlusion.masks(torch.rand(len(images), 16), 0, arguments):
        drawn.setdefault(name, keep)  # the first repetition
    for loss in robust.SHOWN_LOSSES:
        keep = robust.kept_patches(arguments, len(images), 4, loss)
        assert torch.equal(keep, drawn[f"random_{loss}"][: robust.SHOWN])


def test_the_sheet_shuffles_as_the_evaluation_does(unrun: Results) -> None:
    arguments = robust.protocol_of(unrun.records[robust.SHUFFLING], "shuffling") | {"grids": [8], "repetitions": 1}
    seen: list[Tensor] = []
    card = {"data": "digits", "image_size": 8, "mean": (0.0,), "std": (1.0,)}
    shuffling.drive(lambda images: seen.append(images) or torch.zeros(len(images), 10), card, arguments, "cpu")
    clean, shuffled = seen
    order = robust.patch_order(arguments, len(clean), 8)
    assert torch.equal(shuffling.shuffle_grid(clean[: robust.SHOWN], order, 2, 4), shuffled[: robust.SHOWN])


def test_the_sheet_crosses_out_what_is_dropped(unrun: Results) -> None:
    figure = robust.robustness_sheet(unrun)
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == [
        "clean",
        *(f"{loss} % dropped" for loss in robust.SHOWN_LOSSES),
        *(f"{n} shuffled" for n in (4, 8, 16)),
    ]
    for axes, loss in zip(figure.axes[1:4], robust.SHOWN_LOSSES, strict=True):
        crosses, pixels = axes.lines[0].get_xydata(), axes.images[0].get_array()
        assert len(crosses) == loss * 16 // 100
        for x, y in crosses:
            assert not pixels[int(y) - 1 : int(y) + 1, int(x) - 1 : int(x) + 1].any()
