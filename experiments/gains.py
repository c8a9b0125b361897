"""The form that Tables A2, A3 and A6 of Decoupled Mixup share: four methods on every network of every data set."""

from collections.abc import Iterable, Sequence

from experiments import decoupled
from experiments.decoupled import LossColumn
from experiments.scale import Scale
from experiments.table import Column, Row

METHODS = ("saliencymix", "puzzlemix", *decoupled.LEARNING)
Place = tuple[str, str, str, str]  # setting and role of the base run, titles of data and model; of one data set "" data


def label_columns(places: Sequence[Place]) -> tuple[Column, ...]:
    """Data, where they differ, model and method."""
    data = (Column("data", "Data"),) if places[0][2] else ()
    return (*data, Column("model", "Model"), Column("method", "Method"))


def rows(scale: Scale, places: Iterable[Place], losses: Sequence[LossColumn]) -> tuple[Row, ...]:
    """Every method at every place."""
    return tuple(
        decoupled.row(
            scale,
            name,
            setting,
            role,
            losses,
            suffix=f"{setting}_{role}" if data else role,
            labels={"data": data, "model": model} if data else {"model": model},
        )
        for setting, role, data, model in places
        for name in METHODS
    )
