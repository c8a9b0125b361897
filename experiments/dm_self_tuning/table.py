"""Decoupled Mixup in Self-Tuning: transfer to fine-grained sets with a share of the labels."""

from collections.abc import Callable

from experiments.decoupled import decoupled
from experiments.decoupled import mixed as mixed_by
from experiments.scale import Scale
from experiments.table import Column, Row, Table
from training.config import Run
from training.parts import Mixed

SETS = {"cub200": "CUB-200", "cars": "Cars", "aircraft": "Aircraft"}
ROLES = {"resnet18": "ResNet-18", "resnet50": "ResNet-50"}
SHARES = (15, 30, 50)  # percent of the training images that keep their label, one for each of a setting's `labels`
MIXED = {"mixup": "Mixup", "cutmix": "CutMix"}
ALPHA, ETA = 1.0, 0.1  # alpha as in the authors' code, eta of static methods (D-21)
# Title, eta and the row that this one is compared with.
LOSSES = {"mce": ("MCE", 0.0, "self_tuning"), "dm_ce": ("DM(CE)", ETA, "{}_mce")}
Make = Callable[[Run], Run]


def build(scale: Scale) -> Table:
    sets = [name for name in SETS if f"tuned_{name}" in scale.settings]
    columns = tuple(
        Column(f"{name}_{share}", f"{SETS[name]}, {share} %", setting.evaluations.get("ten_crop"))
        for name in sets
        for setting in [scale.setting(f"tuned_{name}")]
        for share, _ in zip(SHARES, setting.labels, strict=False)
    )
    first = scale.setting(f"tuned_{sets[0]}")
    roles = [role for role in ROLES if role not in first.unavailable]
    return Table(
        title="Transfer with few labels",
        paper_table=None,
        label_columns=(Column("network", "Network"), Column("method", "Method"), Column("loss", "Mixed loss")),
        value_columns=columns,
        rows=tuple(row for role in roles for row in _rows(scale, sets, role)),
        statistic="last",
        setting=first.text,
        seeds=scale.more_seeds,
    )


def _rows(scale: Scale, sets: list[str], role: str) -> tuple[Row, ...]:
    def row(id: str, title: str, against: str, make: Make, loss: str = "") -> Row:
        runs = {}
        for place in sets:
            setting = scale.setting(f"tuned_{place}")
            for share, labels in zip(SHARES, setting.labels, strict=False):
                run = setting.base(role)
                runs[f"{place}_{share}"] = make(run.replace(data=run.data.replace(labels=labels)))
        words = {"network": ROLES[role], "method": title, "loss": loss}
        return Row(f"{role}_{id}", words, runs, ours=id == "labelled", compared_with=f"{role}_{against}")

    def mixed(name: str, eta: float) -> Make:
        def make(run: Run) -> Run:
            run = mixed_by(run, name, ALPHA)
            return decoupled(run, eta) if eta else run

        return make

    return (
        row("labelled", "Labelled images alone", "self_tuning", lambda run: run.replace(task=Mixed())),
        row("self_tuning", "Self-Tuning", "labelled", lambda run: run),
        *(
            row(f"{name}_{id}", f"Self-Tuning + {title}", against.format(name), mixed(name, eta), words)
            for name, title in MIXED.items()
            for id, (words, eta, against) in LOSSES.items()
        ),
    )
