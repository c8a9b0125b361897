"""Decoupled Mixup Table A6: MCE and DM(CE) on two fine-grained sets, from ImageNet weights."""

from experiments import decoupled
from experiments.decoupled import DM_CE, MCE
from experiments.scale import Scale
from experiments.table import Table

PLACES = (
    ("cub200", "resnet18", "CUB-200", "ResNet-18"),
    ("cub200", "resnext50", "CUB-200", "ResNeXt-50"),
    ("aircraft", "resnet18", "Aircraft", "ResNet-18"),
    ("aircraft", "resnext50", "Aircraft", "ResNeXt-50"),
)
LOSSES = (MCE, DM_CE)


def build(scale: Scale) -> Table:
    return Table(
        title="Fine-grained sets",
        paper_table="Table A6",
        label_columns=decoupled.place_labels(PLACES),
        value_columns=decoupled.columns(LOSSES),
        rows=decoupled.place_rows(scale, PLACES, LOSSES, "dm-fine"),
        statistic="median_last",
        seeds=scale.more_seeds,
        setting=scale.setting("cub200").text,
    )
