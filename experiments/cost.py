"""What a scale's tables cost: unique runs, GPU-hours and price, or the CPU-seconds that were measured."""

from dataclasses import dataclass

from experiments.registry import get_table, owners, tables_of
from experiments.results import flat
from experiments.runs import Item, items_of, read_item
from experiments.scale import Scale
from training import run_directory


@dataclass(frozen=True)
class Cost:
    """What one table owns: runs that an earlier table owns cost nothing here."""

    table: str
    runs: int
    trainings: int  # runs times their seeds
    hours: float  # estimated, on the device of the scale
    finished: int
    seconds: float  # measured, of the finished ones


def owned_items(scale: Scale, table: str, seeds: int | None = None) -> list[Item]:
    """The trainings whose directories belong to this table."""
    owner = owners(scale)
    runs = [run for key, run in get_table(table, scale).runs.items() if owner[key] == table]
    return items_of(scale, runs, seeds)


def costs(scale: Scale, seeds: int | None = None) -> list[Cost]:
    """One record for each table, in registry order."""
    return [_cost(scale, table.id, owned_items(scale, table.id, seeds)) for table in tables_of(scale)]


def _cost(scale: Scale, table: str, items: list[Item]) -> Cost:
    measured = [seconds for item in items if (seconds := _seconds(item)) is not None]
    return Cost(
        table=table,
        runs=len({item.run.key for item in items}),
        trainings=len(items),
        hours=sum(scale.hours(item.run) for item in items),
        finished=len(measured),
        seconds=sum(measured),
    )


def _seconds(item: Item) -> float | None:
    try:
        result = read_item(item)
    except run_directory.RunError:
        return None
    return None if result is None else float(flat(result)["seconds"])
