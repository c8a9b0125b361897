"""The semi-supervised recipes of lab and paper scale take a step: their own tasks, losses and optimizers on less."""

from pathlib import Path

import pytest
from photographs import cars

from experiments.registry import get_table
from experiments.scale import get_scale
from training.config import Execution, Run
from training.loop import fit

SCALES = ("lab", "paper")
FIXMATCH = [(scale, row.id) for scale in SCALES for row in get_table("dm_semi_supervised", get_scale(scale)).rows]
TUNING = [
    (scale, row.id)
    for scale in SCALES
    for row in get_table("dm_self_tuning", get_scale(scale)).rows
    if row.id.startswith("resnet18")
]


def row_of(table: str, scale: str, id: str) -> dict[str, Run]:
    return dict(next(row.runs for row in get_table(table, get_scale(scale)).rows if row.id == id))


def one_step(run: Run, directory: Path) -> None:
    """An update of four labelled images, and what follows at the end of an epoch."""
    run = run.replace(epochs=1, epoch_steps=1, batch_size=4, median_last=1, precision="float32")
    result = fit(run, 0, directory, Execution(workers=0))
    assert (result["steps"], result["epochs"]) == (1, 1)


@pytest.mark.parametrize(("scale", "row"), FIXMATCH)
def test_fixmatch_and_its_rivals_on_digits(scale: str, row: str, tmp_path: Path) -> None:
    runs = row_of("dm_semi_supervised", scale, row)
    run = runs[min(runs)]
    digits = run.data.replace(name="digits", image_size=8, labels=20, flip=False, crop_padding=1)
    arguments = {**run.model.arguments, "layers": [1] * len(run.model.arguments["layers"])}
    one_step(run.replace(data=digits, model=run.model.replace(arguments=arguments)), tmp_path / "r")


@pytest.mark.parametrize(("scale", "row"), TUNING)
def test_self_tuning_on_files(scale: str, row: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cars(tmp_path)
    monkeypatch.setenv("LUMIX_DATA", str(tmp_path))
    run = row_of("dm_self_tuning", scale, row)["cars_15"]
    assert run.model.weights == "imagenet"
    files = run.data.replace(image_size=64, labels=3)
    one_step(run.replace(data=files, model=run.model.replace(weights="")), tmp_path / "r")
