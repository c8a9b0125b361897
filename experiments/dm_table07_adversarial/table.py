"""Decoupled Mixup Table A7: clean accuracy and error under FGSM of radius 8/255, MCE and DM(CE)."""

from dataclasses import replace

from evaluation.evaluation import Evaluation
from experiments import decoupled
from experiments.decoupled import DM_CE, MCE
from experiments.scale import Scale
from experiments.table import Column, Row, Table

LOSSES = (MCE, DM_CE)
METHODS = ("mixup", "cutmix", "manifoldmix", "puzzlemix", "automix")
DATA = {"cifar100_half": "CIFAR-100", "tiny_imagenet": "Tiny-ImageNet"}  # by setting
FGSM = Evaluation("fgsm", {"radius": 8, "batch": 500})


def build(scale: Scale) -> Table:
    return Table(
        title="Accuracy, and error under FGSM, ResNet-18",
        paper_table="Table A7",
        label_columns=(Column("data", "Data"), Column("method", "Method")),
        value_columns=(
            *decoupled.columns(LOSSES),
            *(
                Column(f"error_{loss.id}", f"FGSM error, {loss.title}", FGSM, "error", True, compared=False)
                for loss in LOSSES
            ),
        ),
        rows=tuple(_row(scale, name, setting, data) for setting, data in DATA.items() for name in METHODS),
        statistic="median_last",
        seeds=scale.more_seeds,
        setting=f"{scale.setting('cifar100_half').text} {scale.setting('tiny_imagenet').text}",
    )


def _row(scale: Scale, name: str, setting: str, data: str) -> Row:
    row = decoupled.row(scale, name, setting, "resnet18", LOSSES, suffix=setting, labels={"data": data})
    return replace(row, runs={**row.runs, **{f"error_{loss}": run for loss, run in row.runs.items()}})
