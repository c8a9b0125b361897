"""Decoupled Mixup in FixMatch, beside the methods that came before it: few labels, all images."""

from experiments.decoupled import LabelsRow, labels_rows, with_labels
from experiments.scale import Scale
from experiments.table import Column, Table

SETTINGS = {"semi_cifar10": ("CIFAR-10", "wrn28_2"), "semi_cifar100": ("CIFAR-100", "wrn28_8")}  # title, role
LEARNT = {"mix": "Labelled images alone", "pseudo_label": "Pseudo-Label", "mixmatch": "MixMatch"}
ALPHA, ETA = 1.0, 1.0  # as in the authors' code (D-20)


ROWS: tuple[LabelsRow, ...] = (
    *(
        (name, title, "fixmatch", lambda setting, run, name=name: setting.learning(run, name))
        for name, title in LEARNT.items()
    ),
    ("fixmatch", "FixMatch", "mix", lambda _, run: run),
)


def build(scale: Scale) -> Table:
    places = [name for name in SETTINGS if name in scale.settings]
    columns, cells = [], {}
    for name in places:
        (title, role), setting = SETTINGS[name], scale.setting(name)
        for labels in setting.labels:
            columns.append(Column(f"{name}_{labels}", f"{title}, " * (len(places) > 1) + f"{labels} labels"))
            cells[f"{name}_{labels}"] = with_labels(setting, role, labels)
    return Table(
        title="Semi-supervised learning",
        paper_table=None,
        label_columns=(Column("method", "Method"), Column("loss", "Mixed loss")),
        value_columns=tuple(columns),
        rows=labels_rows(cells, ROWS, ALPHA, ETA),
        statistic="best",
        setting=scale.text_of(places),
        seeds=scale.more_seeds,
    )
