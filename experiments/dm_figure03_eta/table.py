"""Decoupled Mixup Figure A3: top-1 over eta of DM(CE), ResNet-18 on CIFAR-100, Tiny-ImageNet and CUB-200."""

from pathlib import Path

from experiments import curves
from experiments.claims import Claim
from experiments.decoupled import TITLES
from experiments.scale import Scale
from experiments.table import Column, Table

DATA = {"cifar100": "CIFAR-100", "tiny_imagenet": "Tiny-ImageNet", "cub200": "CUB-200"}  # by setting
METHODS = ("mixup", "cutmix", "puzzlemix", "automix")


def build(scale: Scale) -> Table:
    return Table(
        id="dm_figure03_eta",
        title="η of DM(CE) on three data sets, ResNet-18",
        paper_table="Figure A3",
        folder=Path(__file__).parent,
        label_columns=(Column("data", "Data"), Column("method", "Method")),
        value_columns=curves.ETA.columns,
        rows=tuple(
            curves.row(scale, name, setting, "resnet18", (curves.ETA,), setting, {"data": data})
            for setting, data in DATA.items()
            for name in METHODS
        ),
        claims=CLAIMS,
        baseline=None,
        statistic="median_last",
        setting=" ".join(scale.setting(setting).text for setting in DATA),
    )


CLAIMS = tuple(
    Claim(
        f"dm-eta-{setting}-{name}".replace("_", "-"),
        f"On {data} {TITLES[name]} is best at η = {curves.best('eta', name, setting):g}, which B.3 sets",
        "Figure A3, appendix C.5",
        ("D-7",),
        curves.ETA.peak(f"{name}_{setting}", curves.best("eta", name, setting)),
    )
    for setting, data in DATA.items()
    for name in METHODS
)
