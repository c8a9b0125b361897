"""The curves of Figures A2 and A3 of Decoupled Mixup: top-1 of a method over one parameter of its loss."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from experiments import decoupled
from experiments.decoupled import LossColumn
from experiments.scale import Scale
from experiments.table import Column, Row
from training.config import Run

CUTS = ("cutmix", "puzzlemix", "automix")
# Where the paper finds each method best (Figure A2, appendix C.5): parameter -> method -> value.
BEST = {
    "eta": {"mixup": 0.1, "cutmix": 0.1, "puzzlemix": 1.0, "automix": 1.0},
    "xi": {"cutmix": 0.8, "mixup": 1.0, "manifoldmix": 1.0, "automix": 0.8},
    "t": {"cutmix": 1.0, "mixup": 0.5, "manifoldmix": 0.5, "automix": 1.0},
}


@dataclass(frozen=True)
class Curve:
    """A parameter, its values, and what a run becomes at one of them."""

    id: str
    symbol: str
    values: tuple[float, ...]
    apply: Callable[[Run, str, float], Run]  # run, name of the method, value

    def column(self, value: float) -> str:
        """The id of the column of a value."""
        return f"{self.id}_{value:g}"

    @property
    def columns(self) -> tuple[Column, ...]:
        return tuple(Column(self.column(value), f"{self.symbol} = {value:g}", compared=False) for value in self.values)


def _rescaled(parameter: str) -> Callable[[Run, str, float], Run]:
    """The run with t or xi of the method's own kind of mix, the other at its default."""

    def rescaled(run: Run, name: str, value: float) -> Run:
        kind = "cut" if name in CUTS else "blend"
        return decoupled.rescaled(run, **{f"{kind}_{parameter}": value})

    return rescaled


ETA = Curve("eta", "η", (0.01, 0.1, 0.5, 1.0, 2.0), lambda run, _, value: decoupled.decoupled(run, value))
XI = Curve("xi", "ξ", (0.5, 0.6, 0.7, 0.8, 0.9, 1.0), _rescaled("xi"))
T = Curve("t", "t", (0.3, 0.5, 1.0, 2.0), _rescaled("t"))


def best(parameter: str, name: str, setting: str = "") -> float:
    """Where a method is best: as Figure A2 has it or, for ResNet-18 in a setting, as appendix B.3 sets eta."""
    return decoupled.eta_of(name, setting, "resnet18") if setting else BEST[parameter][name]


def row(
    scale: Scale,
    name: str,
    setting: str,
    role: str,
    curves: Iterable[Curve],
    suffix: str = "",
    labels: Mapping[str, str] | None = None,
) -> Row:
    """A method with DM's alpha at every value of some curves."""
    losses = (
        LossColumn(
            curve.column(value),
            "",
            lambda run, _, curve=curve, value=value: curve.apply(run, name, value),  # type: ignore[misc]
            own_alpha=True,
        )
        for curve in curves
        for value in curve.values
    )
    return decoupled.row(scale, name, setting, role, losses, suffix=suffix, labels=labels)
