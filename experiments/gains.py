"""The form that Tables A2, A3 and A6 of Decoupled Mixup share: methods by place, and a claim on each place's gain."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from experiments import decoupled
from experiments.claims import Cell, Claim, Greater
from experiments.decoupled import DM_CE, MCE, LossColumn, cells, each
from experiments.scale import Scale
from experiments.table import Column, Row

METHODS = ("saliencymix", "puzzlemix", *decoupled.LEARNING)


@dataclass(frozen=True)
class Place:
    """A network on a data set: where a table compares MCE and DM(CE).

    Attributes:
        suffix: of its rows' ids.
        setting, role: of its base run.
        data, model: their titles; a table of one data set shows no `data`.
        gain: the paper's average over four methods.
        register: entries on this gain.
    """

    suffix: str
    setting: str
    role: str
    data: str
    model: str
    gain: str
    register: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        return f"{self.data} with {self.model}" if self.data else self.model


def label_columns(places: Sequence[Place]) -> tuple[Column, ...]:
    """Data, where they differ, model and method."""
    data = (Column("data", "Data"),) if places[0].data else ()
    return (*data, Column("model", "Model"), Column("method", "Method"))


def rows(scale: Scale, places: Iterable[Place], losses: Sequence[LossColumn]) -> tuple[Row, ...]:
    """Every method at every place."""
    return tuple(
        decoupled.row(
            scale,
            name,
            place.setting,
            place.role,
            losses,
            suffix=place.suffix,
            labels={"data": place.data, "model": place.model} if place.data else {"model": place.model},
        )
        for place in places
        for name in METHODS
    )


def every(places: Iterable[Place], loss: LossColumn, methods: Sequence[str] = METHODS) -> tuple[Cell, ...]:
    """The cells of the methods at all places under a loss."""
    return tuple(cell for place in places for cell in cells(methods, loss, place.suffix))


def claims(prefix: str, table: str, places: Sequence[Place]) -> tuple[Claim, ...]:
    """DM(CE) improves each method at each place, and on average at each of them."""
    return (
        Claim(
            f"{prefix}-each",
            "DM(CE) improves every method on every network",
            table,
            (),
            each(every(places, DM_CE), every(places, MCE)),
        ),
        *(
            Claim(
                f"{prefix}-{place.suffix}".replace("_", "-"),
                f"On {place.title} DM(CE) gains on average (the paper: {place.gain})",
                table,
                place.register,
                Greater(every((place,), DM_CE), every((place,), MCE)),
            )
            for place in places
        ),
    )
