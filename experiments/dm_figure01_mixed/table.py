"""Decoupled Mixup Figure A1: top-1 and top-2 on mixed test images, and clean accuracy, after every epoch, ResNet-50."""

from dataclasses import replace
from pathlib import Path

from experiments import decoupled
from experiments.claims import Claim, EachGreater, Greater
from experiments.decoupled import DM_CE, MCE, LossColumn
from experiments.scale import Scale
from experiments.table import Column, Row, Table

METHODS = (("mixup", MCE), ("cutmix", MCE), ("automix", MCE), ("mixup", DM_CE))
COLUMNS = (
    Column("top1_mixed", "Mixed top-1", metric="top1_mixed", compared=False),
    Column("top2_mixed", "Mixed top-2", metric="top2_mixed", compared=False),
    Column("top1", "Clean top-1", compared=False),
)


def build(scale: Scale) -> Table:
    return Table(
        id="dm_figure01_mixed",
        title="Accuracy on mixed images at the end of training, ResNet-50",
        paper_table="Figure A1",
        folder=Path(__file__).parent,
        label_columns=(Column("method", "Method"), Column("loss", "Loss")),
        value_columns=COLUMNS,
        rows=tuple(_row(scale, name, loss) for name, loss in METHODS),
        claims=CLAIMS,
        setting=scale.setting("pytorch").text,
    )


def _row(scale: Scale, name: str, loss: LossColumn) -> Row:
    """One run, which counts mixed test images after every epoch, under all three columns."""
    row = decoupled.row(scale, name, "pytorch", "resnet50", (loss,), suffix=loss.id, labels={"loss": loss.title})
    run = row.runs[loss.id].replace(count_mixed=True, evaluate_every=1)
    return replace(row, runs={column.id: run for column in COLUMNS})


CLAIMS = (
    Claim(
        "dm-mixed-automix",
        "Images that AutoMix mixes are told best: mixed top-1 and top-2 above those of Mixup and of CutMix",
        "Figure A1, left",
        (),
        EachGreater(
            tuple(
                (("automix_mce", metric), (f"{name}_mce", metric))
                for metric in ("top1_mixed", "top2_mixed")
                for name in ("mixup", "cutmix")
            )
        ),
    ),
    Claim(
        "dm-mixed-top2",
        "DM(CE) raises the mixed top-2 accuracy of Mixup",
        "Figure A1, right",
        (),
        Greater((("mixup_dm_ce", "top2_mixed"),), (("mixup_mce", "top2_mixed"),)),
    ),
    Claim(
        "dm-mixed-clean",
        "DM(CE) raises the clean accuracy of Mixup",
        "Figure A1, right",
        (),
        Greater((("mixup_dm_ce", "top1"),), (("mixup_mce", "top1"),)),
    ),
)
