"""Decoupled Mixup Table A6: MCE and DM(CE) on two fine-grained sets, from ImageNet weights."""

from pathlib import Path

from experiments import decoupled, gains
from experiments.decoupled import DM_CE, MCE
from experiments.gains import Place
from experiments.scale import Scale
from experiments.table import Table

PLACES = (
    Place("cub200_resnet18", "cub200", "resnet18", "CUB-200", "ResNet-18", "+0.45", ("D-7",)),
    Place("cub200_resnext50", "cub200", "resnext50", "CUB-200", "ResNeXt-50", "+0.42", ("D-7",)),
    Place("aircraft_resnet18", "aircraft", "resnet18", "Aircraft", "ResNet-18", "+0.94", ("D-7",)),
    Place("aircraft_resnext50", "aircraft", "resnext50", "Aircraft", "ResNeXt-50", "+0.36", ("D-7",)),
)
LOSSES = (MCE, DM_CE)


def build(scale: Scale) -> Table:
    return Table(
        id="dm_table06_fine_grained",
        title="Fine-grained sets",
        paper_table="Table A6",
        folder=Path(__file__).parent,
        label_columns=gains.label_columns(PLACES),
        value_columns=decoupled.columns(LOSSES),
        rows=gains.rows(scale, PLACES, LOSSES),
        claims=gains.claims("dm-fine", "Table A6", PLACES),
        statistic="median_last",
        setting=scale.setting("cub200").text,
    )
