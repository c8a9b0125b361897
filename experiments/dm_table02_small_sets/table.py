"""Decoupled Mixup Table A2: MCE and DM(CE) on CIFAR-100 (three networks) and Tiny-ImageNet (two)."""

from experiments import decoupled
from experiments.decoupled import DM_CE, MCE
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
LOSSES = (MCE, DM_CE)


def build(scale: Scale) -> Table:
    return Table(
        title="CIFAR-100 and Tiny-ImageNet",
        paper_table="Table A2",
        label_columns=decoupled.place_labels(PLACES),
        value_columns=decoupled.columns(LOSSES),
        rows=decoupled.place_rows(scale, PLACES, LOSSES, "dm-small"),
        statistic="median_last",
        seeds=scale.more_seeds,
        setting=f"{scale.setting('cifar100').text} {scale.setting('tiny_imagenet').text}",
    )
