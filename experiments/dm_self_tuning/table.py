"""Decoupled Mixup in Self-Tuning: transfer to fine-grained sets with a share of the labels."""

from experiments.decoupled import LabelsRow, labels_rows, with_labels
from experiments.scale import Scale
from experiments.table import Column, Row, Table
from training.parts import Mixed

SETS = {"cub200": "CUB-200", "cars": "Cars", "aircraft": "Aircraft"}
ROLES = {"resnet18": "ResNet-18", "resnet50": "ResNet-50"}
SHARES = (15, 30, 50)  # percent of the training images that keep their label, one for each of a setting's `labels`
ALPHA, ETA = 1.0, 0.1  # alpha as in the authors' code, eta of static methods (D-21)
ROWS: tuple[LabelsRow, ...] = (
    ("labelled", "Labelled images alone", "self_tuning", lambda _, run: run.replace(task=Mixed())),
    ("self_tuning", "Self-Tuning", "labelled", lambda _, run: run),
)


def build(scale: Scale) -> Table:
    settings = {name: scale.setting(f"tuned_{name}") for name in SETS if f"tuned_{name}" in scale.settings}
    places = {
        f"{name}_{share}": (setting, labels, f"{SETS[name]}, {share} %")
        for name, setting in settings.items()
        for share, labels in zip(SHARES, setting.labels, strict=False)
    }
    first = next(iter(settings.values()))

    def rows(role: str) -> tuple[Row, ...]:
        cells = {id: with_labels(setting, role, labels) for id, (setting, labels, _) in places.items()}
        return labels_rows(cells, ROWS, ALPHA, ETA, f"{role}_", network=ROLES[role])

    return Table(
        title="Transfer with few labels",
        paper_table=None,
        label_columns=(Column("network", "Network"), Column("method", "Method"), Column("loss", "Mixed loss")),
        value_columns=tuple(
            Column(id, title, setting.evaluations.get("ten_crop")) for id, (setting, _, title) in places.items()
        ),
        rows=tuple(row for role in ROLES if role not in first.unavailable for row in rows(role)),
        statistic="last",
        setting=first.text,
        seeds=scale.more_seeds,
    )
