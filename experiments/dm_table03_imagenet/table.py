"""Decoupled Mixup Table A3: three ResNets under the plain ImageNet recipe, MCE and DM(CE)."""

from experiments import decoupled
from experiments.decoupled import DM_ALPHA, DM_CE, MCE
from experiments.scale import Scale
from experiments.table import Table

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
        rows=decoupled.place_rows(scale, PLACES, LOSSES, "dm-imagenet"),
        setting=scale.setting("pytorch").text,
    )
