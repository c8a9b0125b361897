"""Decoupled Mixup Table A3: three ResNets under the plain ImageNet recipe, MCE and DM(CE)."""

from pathlib import Path

from experiments import decoupled, gains
from experiments.claims import Claim, Greater
from experiments.decoupled import DM_ALPHA, DM_CE, MCE
from experiments.gains import Place
from experiments.scale import Scale
from experiments.table import Table

PLACES = (
    Place("resnet18", "pytorch", "resnet18", "", "ResNet-18", "+0.20"),
    Place("resnet34", "pytorch", "resnet34", "", "ResNet-34", "+0.25"),
    Place("resnet50", "pytorch", "resnet50", "", "ResNet-50", "+0.23", ("D-4",)),
)
LOSSES = (MCE, DM_CE, DM_ALPHA)
ALPHA = Claim(
    "dm-imagenet-alpha",
    "The gain of DM(CE) is the loss's: it remains over MCE with DM's alpha (ours)",
    "appendix B.3",
    ("D-10",),
    Greater(gains.every(PLACES, DM_CE), gains.every(PLACES, DM_ALPHA)),
)


def build(scale: Scale) -> Table:
    return Table(
        id="dm_table03_imagenet",
        title="Three ResNets, 100 epochs of the plain recipe",
        paper_table="Table A3",
        folder=Path(__file__).parent,
        label_columns=gains.label_columns(PLACES),
        value_columns=decoupled.columns(LOSSES),
        rows=gains.rows(scale, PLACES, LOSSES),
        claims=(*gains.claims("dm-imagenet", "Table A3", PLACES), ALPHA),
        setting=scale.setting("pytorch").text,
    )
