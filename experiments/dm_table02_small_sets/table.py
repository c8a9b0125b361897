"""Decoupled Mixup Table A2: MCE and DM(CE) on CIFAR-100 (three networks) and Tiny-ImageNet (two)."""

from experiments.decoupled import place_table
from experiments.scale import Scale
from experiments.table import Table

CIFAR, TINY = "CIFAR-100", "Tiny-ImageNet"
PLACES = (
    ("cifar100", "resnet18", CIFAR, "ResNet-18"),
    ("cifar100", "resnext50", CIFAR, "ResNeXt-50"),
    ("cifar100", "wrn28_8", CIFAR, "WRN-28-8"),
    ("tiny_imagenet", "resnet18", TINY, "ResNet-18"),
    ("tiny_imagenet", "resnext50", TINY, "ResNeXt-50"),
)


def build(scale: Scale) -> Table:
    return place_table(scale, "CIFAR-100 and Tiny-ImageNet", "Table A2", PLACES, "dm-small", seeds=scale.more_seeds)
