"""Decoupled Mixup in FixMatch, beside the methods that came before it: few labels, all images."""

from collections.abc import Callable

from experiments.decoupled import decoupled
from experiments.decoupled import mixed as mixed_by
from experiments.scale import Scale, Setting
from experiments.table import Column, Row, Table
from training.config import Run

SETTINGS = {"semi_cifar10": ("CIFAR-10", "wrn28_2"), "semi_cifar100": ("CIFAR-100", "wrn28_8")}  # title, role
LEARNT = {"mix": "Labelled images alone", "pseudo_label": "Pseudo-Label", "mixmatch": "MixMatch"}
MIXED = {"mixup": "Mixup", "cutmix": "CutMix"}
ALPHA, ETA = 1.0, 1.0  # as in the authors' code (D-20)
# Title, eta and the row that this one is compared with.
LOSSES = {"mce": ("MCE", 0.0, "fixmatch"), "dm_ce": ("DM(CE)", ETA, "{}_mce")}
Make = Callable[[Setting, Run, str], Run]  # setting, its base run, role


def build(scale: Scale) -> Table:
    places = [name for name in SETTINGS if name in scale.settings]
    columns = tuple(
        Column(f"{name}_{labels}", f"{SETTINGS[name][0]}, {labels} labels" if len(places) > 1 else f"{labels} labels")
        for name in places
        for labels in scale.setting(name).labels
    )
    return Table(
        title="Semi-supervised learning",
        paper_table=None,
        label_columns=(Column("method", "Method"), Column("loss", "Mixed loss")),
        value_columns=columns,
        rows=_rows(scale, places),
        statistic="best",
        setting=scale.text_of(places),
        seeds=scale.more_seeds,
    )


def _rows(scale: Scale, places: list[str]) -> tuple[Row, ...]:
    def row(id: str, title: str, make: Make, against: str, loss: str = "") -> Row:
        runs = {}
        for name in places:
            setting, role = scale.setting(name), SETTINGS[name][1]
            for labels in setting.labels:
                base = setting.base(role)
                base = base.replace(data=base.data.replace(labels=labels))
                runs[f"{name}_{labels}"] = make(setting, base, role)
        return Row(id, {"method": title, "loss": loss}, runs, ours=id == "mix", compared_with=against)

    def learnt(name: str) -> Make:
        return lambda setting, base, role: setting.learning(base, name)

    def mixed(name: str, eta: float) -> Make:
        def make(setting: Setting, base: Run, role: str) -> Run:
            run = mixed_by(base, name, ALPHA)
            return decoupled(run, eta) if eta else run

        return make

    return (
        *(row(name, title, learnt(name), "fixmatch") for name, title in LEARNT.items()),
        row("fixmatch", "FixMatch", lambda setting, base, role: base, "mix"),
        *(
            row(f"{name}_{id}", f"FixMatch + {title}", mixed(name, eta), against.format(name), words)
            for name, title in MIXED.items()
            for id, (words, eta, against) in LOSSES.items()
        ),
    )
