"""Decoupled Mixup Table A6: MCE and DM(CE) on two fine-grained sets, from ImageNet weights."""

from experiments.decoupled import place_table
from experiments.scale import Scale
from experiments.table import Table

PLACES = (
    ("cub200", "resnet18", "CUB-200", "ResNet-18"),
    ("cub200", "resnext50", "CUB-200", "ResNeXt-50"),
    ("aircraft", "resnet18", "Aircraft", "ResNet-18"),
    ("aircraft", "resnext50", "Aircraft", "ResNeXt-50"),
)


def build(scale: Scale) -> Table:
    return place_table(scale, "Fine-grained sets", "Table A6", PLACES, "dm-fine", seeds=scale.more_seeds)
