"""The questions of scale small (docs/small-scale.md): arms that are trained in blocks, and what is read of them."""

from collections.abc import Sequence

from experiments.scale import Scale
from experiments.table import TOP1, Column, Method, Row, Table

ENDPOINTS = (  # id, title, evaluation, its number, whether less is better
    ("loss", "Test cross entropy", "calibration", "loss", True),
    ("ece", "Calibration error (ECE), %", "calibration", "ece", True),
    ("fgsm", "Error under FGSM 8/255 (Table A7), %", "fgsm", "error", True),
    ("shuffled", "Top-1, patches shuffled (Table 7)", "shuffling", "average", False),
    ("dropped", "Top-1, random patches dropped (Table 9)", "occlusion", "random_average", False),
)
Arm = tuple[str, str, Method, str]  # id, title, method, id of the arm that it is compared with, "" for none


def question(scale: Scale, number: int, title: str, arms: Sequence[Arm], blocks: int, endpoints: int = 5) -> Table:
    """The table of one question, with the first few endpoints beside the first.

    Its arms share no training with those of another question, whose machine may be another.
    """
    setting = scale.setting("cifar100")
    base = setting.base("resnet18").replace(protocol=f"photographs {number}")
    shown = ENDPOINTS[:endpoints]
    columns = (TOP1, *(Column(id, name, setting.evaluations[of], key, less) for id, name, of, key, less in shown))
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
