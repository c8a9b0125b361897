"""Decoupled Mixup Table A3: three ResNets under the plain ImageNet recipe, MCE and DM(CE)."""

from dataclasses import replace

from experiments.decoupled import DM_ALPHA, DM_CE, MCE, place_table
from experiments.dm_figure01_mixed.table import counted
from experiments.scale import Scale
from experiments.table import Row, Table

PLACES = (
    ("pytorch", "resnet18", "", "ResNet-18"),
    ("pytorch", "resnet34", "", "ResNet-34"),
    ("pytorch", "resnet50", "", "ResNet-50"),
)


def build(scale: Scale) -> Table:
    title = "Three ResNets, 100 epochs of the plain recipe"
    table = place_table(scale, title, "Table A3", PLACES, "dm-imagenet", (MCE, DM_CE, DM_ALPHA))
    return replace(table, rows=tuple(map(_with_figure, table.rows)))


def _with_figure(row: Row) -> Row:
    """AutoMix under MCE, whose alpha is DM's own, is the training of Figure A1."""
    if row.id != "automix_resnet50":
        return row
    return replace(row, runs={id: run if id == DM_CE.id else counted(run) for id, run in row.runs.items()})
