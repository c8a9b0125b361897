"""Decoupled Mixup Table A2: MCE and DM(CE) on CIFAR-100 (three networks) and Tiny-ImageNet (two)."""

from pathlib import Path

from experiments import decoupled, gains
from experiments.claims import Claim, Greater
from experiments.decoupled import DM_CE, MCE
from experiments.gains import Place
from experiments.scale import Scale
from experiments.table import Table

CIFAR, TINY = "CIFAR-100", "Tiny-ImageNet"
PLACES = (
    Place("cifar100_resnet18", "cifar100", "resnet18", CIFAR, "ResNet-18", "+0.19"),
    Place("cifar100_resnext50", "cifar100", "resnext50", CIFAR, "ResNeXt-50", "+0.40", ("D-16",)),
    Place("cifar100_wrn28_8", "cifar100", "wrn28_8", CIFAR, "WRN-28-8", "+0.15", ("D-4", "D-13")),
    Place("tiny_imagenet_resnet18", "tiny_imagenet", "resnet18", TINY, "ResNet-18", "+0.95", ("D-7",)),
    Place("tiny_imagenet_resnext50", "tiny_imagenet", "resnext50", TINY, "ResNeXt-50", "+0.56", ("D-7",)),
)
LOSSES = (MCE, DM_CE)
PUZZLEMIX = Claim(
    "dm-small-puzzlemix",
    "DM(CE) improves PuzzleMix on CIFAR-100 (the text: by 0.23 to 0.36; the cells: by 0.12 to 0.23)",
    "appendix C.1, Table A2",
    ("D-3",),
    Greater(gains.every(PLACES[:3], DM_CE, ("puzzlemix",)), gains.every(PLACES[:3], MCE, ("puzzlemix",))),
)


def build(scale: Scale) -> Table:
    return Table(
        id="dm_table02_small_sets",
        title="CIFAR-100 and Tiny-ImageNet",
        paper_table="Table A2",
        folder=Path(__file__).parent,
        label_columns=gains.label_columns(PLACES),
        value_columns=decoupled.columns(LOSSES),
        rows=gains.rows(scale, PLACES, LOSSES),
        claims=(*gains.claims("dm-small", "Table A2", PLACES), PUZZLEMIX),
        statistic="median_last",
        setting=f"{scale.setting('cifar100').text} {scale.setting('tiny_imagenet').text}",
    )
