"""Decoupled Mixup Table A3: three ResNets under the plain ImageNet recipe, MCE and DM(CE)."""

from dataclasses import replace

from experiments import decoupled
from experiments.decoupled import DM_ALPHA, DM_CE, MCE
from experiments.dm_figure01_mixed.table import counted
from experiments.scale import Scale
from experiments.table import Row, Table

PLACES = (
    ("pytorch", "resnet18", "", "ResNet-18"),
    ("pytorch", "resnet34", "", "ResNet-34"),
    ("pytorch", "resnet50", "", "ResNet-50"),
)
LOSSES = (MCE, DM_CE, DM_ALPHA)


def build(scale: Scale) -> Table:
    return Table(
        title="Three ResNets, 100 epochs of the plain recipe",
        paper_table="Table A3",
        label_columns=decoupled.place_labels(PLACES),
        value_columns=decoupled.columns(LOSSES),
        rows=tuple(map(_with_figure, decoupled.place_rows(scale, PLACES, LOSSES, "dm-imagenet"))),
        statistic="median_last",
        setting=scale.setting("pytorch").text,
    )


def _with_figure(row: Row) -> Row:
    """AutoMix under MCE, whose alpha is DM's own, is the training of Figure A1."""
    if row.id != "automix_resnet50":
        return row
    return replace(row, runs={id: run if id == DM_CE.id else counted(run) for id, run in row.runs.items()})
