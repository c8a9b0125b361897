"""The curves of Figures A2 and A3 of Decoupled Mixup: top-1 of a method over one parameter of its loss."""

from collections.abc import Mapping
from functools import partial

from experiments import decoupled
from experiments.decoupled import LossColumn
from experiments.scale import Scale
from experiments.table import Column, Row, Table
from training.config import Run

CUTS = ("cutmix", "puzzlemix", "automix")
SYMBOLS = {"eta": "η", "xi": "ξ", "t": "t"}
VALUES = {"eta": (0.01, 0.1, 0.5, 1.0, 2.0), "xi": (0.5, 0.6, 0.7, 0.8, 0.9, 1.0), "t": (0.3, 0.5, 1.0, 2.0)}
# Where the paper finds each method best (Figure A2, appendix C.5): parameter -> method -> value.
BEST = {
    "eta": {"mixup": 0.1, "cutmix": 0.1, "puzzlemix": 1.0, "automix": 1.0},
    "xi": {"cutmix": 0.8, "mixup": 1.0, "manifoldmix": 1.0, "automix": 0.8},
    "t": {"cutmix": 1.0, "mixup": 0.5, "manifoldmix": 0.5, "automix": 1.0},
}


def best(parameter: str, name: str, setting: str = "") -> float:
    """Where a method is best: as Figure A2 has it or, for ResNet-18 in a setting, as appendix B.3 sets eta."""
    return decoupled.eta_of(name, setting, "resnet18") if setting else BEST[parameter][name]


def columns(*parameters: str) -> tuple[Column, ...]:
    """A column for each value of some parameters."""
    points = [(parameter, value) for parameter in parameters for value in VALUES[parameter]]
    return tuple(Column(f"{of}_{value:g}", f"{SYMBOLS[of]} = {value:g}", compared=False) for of, value in points)


def _at(run: Run, _: float, name: str, parameter: str, value: float) -> Run:
    """DM(CE) with that eta, or DM(BCE) with that t or xi of the method's own kind of mix, the other at its default."""
    if parameter == "eta":
        return decoupled.decoupled(run, value)
    return decoupled.rescaled(run, **{f"{'cut' if name in CUTS else 'blend'}_{parameter}": value})


def row(
    scale: Scale,
    name: str,
    setting: str,
    role: str,
    *parameters: str,
    suffix: str = "",
    labels: Mapping[str, str] | None = None,
) -> Row:
    """A method with DM's alpha at every value of some parameters."""
    losses = [
        LossColumn(f"{of}_{value:g}", "", partial(_at, name=name, parameter=of, value=value), own_alpha=True)
        for of in parameters
        for value in VALUES[of]
    ]
    return decoupled.row(scale, name, setting, role, losses, suffix=suffix, labels=labels)


def table(scale: Scale, title: str, panel: str, setting: str, *parameters: str) -> Table:
    """A panel of Figure A2: the methods on ResNet-34."""
    return Table(
        title=title,
        paper_table=f"Figure A2, {panel}",
        label_columns=(Column("method", "Method"),),
        value_columns=columns(*parameters),
        rows=tuple(row(scale, name, setting, "resnet34", *parameters) for name in BEST[parameters[0]]),
        statistic="median_last",
        setting=scale.setting(setting).text,
    )
