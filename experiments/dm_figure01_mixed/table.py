"""Decoupled Mixup Figure A1: top-1 and top-2 on mixed test images, and clean accuracy, after every epoch, ResNet-50."""

from dataclasses import replace

from experiments import decoupled
from experiments.decoupled import DM_CE, MCE, LossColumn
from experiments.scale import Scale
from experiments.table import CURVE_MEAN, Column, Row, Table
from training.config import Run

METHODS = (("mixup", MCE), ("cutmix", MCE), ("automix", MCE), ("mixup", DM_CE))
COLUMNS = (
    Column("top1_mixed", "Mixed top-1", metric="top1_mixed", compared=False),
    Column("top2_mixed", "Mixed top-2", metric="top2_mixed", compared=False),
    Column("top1", "Clean top-1", compared=False),
    Column("efficiency", "Clean top-1, mean of all epochs", metric=CURVE_MEAN, compared=False),
)


def build(scale: Scale) -> Table:
    return Table(
        title="Accuracy on mixed images at the end of training, ResNet-50",
        paper_table="Figure A1",
        label_columns=(Column("method", "Method"), Column("loss", "Loss")),
        value_columns=COLUMNS,
        rows=tuple(_row(scale, name, loss) for name, loss in METHODS),
        setting=scale.setting("pytorch").text,
    )


def counted(run: Run) -> Run:
    """The run with mixed test images counted after every epoch."""
    return run.replace(count_mixed=True, evaluate_every=1)


def _row(scale: Scale, name: str, loss: LossColumn) -> Row:
    """One run under all three columns."""
    row = decoupled.row(scale, name, "pytorch", "resnet50", (loss,), suffix=loss.id, labels={"loss": loss.title})
    return replace(row, runs={column.id: counted(row.runs[loss.id]) for column in COLUMNS})
