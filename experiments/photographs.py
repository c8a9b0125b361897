"""The questions of scale small (docs/small-scale.md): arms that are trained in blocks, and what is read of them."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from experiments.scale import Scale
from experiments.table import TOP1, Column, Method, Row, Table

_LESS = partial(Column, lower_is_better=True, digits=2)
ENDPOINTS = (  # an evaluation, and the column of one of its numbers
    ("calibration", _LESS("loss", "Test cross entropy", metric="loss", digits=3)),
    ("calibration", _LESS("ece", "Calibration error (ECE), %", metric="ece")),
    ("fgsm", _LESS("fgsm", "Error under FGSM 8/255 (Table A7), %", metric="error")),
    ("shuffling", Column("shuffled", "Top-1, patches shuffled (Table 7)", metric="average", digits=2)),
    ("occlusion", Column("dropped", "Top-1, random patches dropped (Table 9)", metric="random_average", digits=2)),
)
Arm = tuple[str, str, Method, str]  # id, title, method, id of the arm that it is compared with, "" for none


def question(scale: Scale, number: int, title: str, arms: Sequence[Arm], blocks: int, endpoints: int = 5) -> Table:
    """The table of one question, with the first few endpoints beside the first.

    Its arms share no training with those of another question, whose machine may be another.
    """
    setting = scale.setting("cifar100")
    base = setting.base("resnet18").replace(protocol=f"photographs {number}")
    shown = (replace(column, evaluation=setting.evaluations[of]) for of, column in ENDPOINTS[:endpoints])
    columns = (replace(TOP1, digits=2), *shown)
    return Table(
        title=title,
        paper_table=None,
        label_columns=(Column("arm", "Arm"),),
        value_columns=columns,
        rows=tuple(
            Row(id, {"arm": label}, {column.id: run for column in columns}, ours=True, compared_with=against or id)
            for id, label, method, against in arms
            for run in (method(base),)
        ),
        statistic="median_last",
        setting=setting.text,
        seeds=blocks,
    )
