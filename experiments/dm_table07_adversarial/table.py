"""Decoupled Mixup Table A7: clean accuracy and error under FGSM of radius 8/255, MCE and DM(CE)."""

from dataclasses import replace
from pathlib import Path

from evaluation.evaluation import Evaluation
from experiments import decoupled
from experiments.claims import Cell, Claim, Greater
from experiments.decoupled import DM_CE, MCE, cells, each
from experiments.scale import Scale
from experiments.table import Column, Row, Table

LOSSES = (MCE, DM_CE)
METHODS = ("mixup", "cutmix", "manifoldmix", "puzzlemix", "automix")
DATA = {"cifar100_half": "CIFAR-100", "tiny_imagenet": "Tiny-ImageNet"}  # by setting
FGSM = Evaluation("fgsm", {"radius": 8, "batch": 500})


def build(scale: Scale) -> Table:
    return Table(
        id="dm_table07_adversarial",
        title="Accuracy, and error under FGSM, ResNet-18",
        paper_table="Table A7",
        folder=Path(__file__).parent,
        label_columns=(Column("data", "Data"), Column("method", "Method")),
        value_columns=(
            *decoupled.columns(LOSSES),
            *(
                Column(f"error_{loss.id}", f"FGSM error, {loss.title}", FGSM, "error", True, compared=False)
                for loss in LOSSES
            ),
        ),
        rows=tuple(_row(scale, name, setting, data) for setting, data in DATA.items() for name in METHODS),
        claims=CLAIMS,
        statistic="median_last",
        setting=f"{scale.setting('cifar100_half').text} {scale.setting('tiny_imagenet').text}",
    )


def _row(scale: Scale, name: str, setting: str, data: str) -> Row:
    row = decoupled.row(scale, name, setting, "resnet18", LOSSES, suffix=setting, labels={"data": data})
    return replace(row, runs={**row.runs, **{f"error_{loss}": run for loss, run in row.runs.items()}})


def _every(loss: decoupled.LossColumn) -> tuple[Cell, ...]:
    return tuple(cell for setting in DATA for cell in cells(METHODS, loss, setting))


def _errors(loss: decoupled.LossColumn) -> tuple[Cell, ...]:
    return tuple((row, f"error_{column}") for row, column in _every(loss))


CLAIMS = (
    Claim(
        "dm-adversarial-accuracy",
        "DM(CE) improves the clean accuracy of every method",
        "Table A7",
        ("D-6",),
        each(_every(DM_CE), _every(MCE)),
    ),
    Claim(
        "dm-adversarial-average",
        "DM(CE) improves the clean accuracy on average (0.18 to 1.30 a cell)",
        "Table A7",
        (),
        Greater(_every(DM_CE), _every(MCE)),
    ),
    Claim(
        "dm-adversarial-error",
        "DM(CE) lowers the error under FGSM on average (the text: maintains it; PuzzleMix on Tiny-ImageNet: +0.22)",
        "appendix C.3, Table A7",
        ("D-6",),
        Greater(_errors(MCE), _errors(DM_CE)),
    ),
)
