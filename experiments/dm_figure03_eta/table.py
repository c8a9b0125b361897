"""Decoupled Mixup Figure A3: top-1 over eta of DM(CE), ResNet-18 on CIFAR-100, Tiny-ImageNet and CUB-200."""

from experiments import curves
from experiments.scale import Scale
from experiments.table import Column, Table

DATA = {"cifar100": "CIFAR-100", "tiny_imagenet": "Tiny-ImageNet", "cub200": "CUB-200"}  # by setting
METHODS = ("mixup", "cutmix", "puzzlemix", "automix")


def build(scale: Scale) -> Table:
    return Table(
        title="η of DM(CE) on three data sets, ResNet-18",
        paper_table="Figure A3",
        label_columns=(Column("data", "Data"), Column("method", "Method")),
        value_columns=curves.columns("eta"),
        rows=tuple(
            curves.row(scale, name, setting, "resnet18", "eta", suffix=setting, labels={"data": data})
            for setting, data in DATA.items()
            for name in METHODS
        ),
        statistic="median_last",
        seeds=scale.more_seeds,
        setting=" ".join(scale.setting(setting).text for setting in DATA),
    )
