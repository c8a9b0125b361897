"""Decoupled Mixup Table A6: MCE and DM(CE) on two fine-grained sets, from ImageNet weights."""

from dataclasses import replace

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


def build(scale: Scale) -> Table:
    table = decoupled.place_table(scale, "Fine-grained sets", "Table A6", PLACES, (MCE, DM_CE), "dm-fine")
    return replace(table, seeds=scale.more_seeds)
