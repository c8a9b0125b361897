"""What a scale's tables cost: unique runs, GPU-hours and price, or the CPU-seconds that were measured."""

from experiments.registry import owners, tables_of
from experiments.results import flat
from experiments.runs import Item, items_of
from experiments.scale import Scale
from experiments.terminal import grid
from training import run_directory

HEADER = ("table", "runs", "trainings", "{unit}-hours (estimate)", "dollars", "finished", "seconds (measured)")


def costs(scale: Scale, seeds: int | None = None) -> dict[str, tuple[int, int, float, int, float]]:
    """Table -> unique runs, their trainings, estimated hours, how many are finished, and the seconds these took.

    A run counts for the first table that shows it: later ones have it for nothing.
    """
    found, owner = {}, owners(scale)
    for table in tables_of(scale):
        runs = [run for key, run in table.runs.items() if owner[key] == table.id]
        items = items_of(scale, runs, seeds)
        measured = [seconds for item in items if (seconds := _seconds(item)) is not None]
        hours = sum(scale.hours(item.run) for item in items)
        found[table.id] = len(runs), len(items), hours, len(measured), sum(measured)
    return found


def _seconds(item: Item) -> float | None:
    try:
        result = item.read()
    except run_directory.RunError:
        return None
    return None if result is None else float(flat(result).get("seconds", 0.0))


def cost_table(scale: Scale, seeds: int | None = None) -> str:
    """All that as text."""
    found = costs(scale, seeds)
    total = [sum(numbers) for numbers in zip(*found.values(), strict=True)]
    lines = [
        (
            name,
            f"{runs}",
            f"{trainings}",
            f"{hours:.1f}" if hours >= 10 else f"{hours:.2f}",
            f"{hours * scale.dollars_per_gpu_hour:.0f}" if scale.gpus else "-",
            f"{finished} of {trainings}",
            f"{seconds:.0f}",
        )
        for name, (runs, trainings, hours, finished, seconds) in [*found.items(), ("all", total)]
    ]
    price = "no GPU is needed, hence no price"
    if scale.gpus:
        price = f"{scale.dollars_per_gpu_hour:.2f} dollars per GPU-hour, a round figure"
        price += f": see experiments/scales/{scale.name}.py"
    header = [title.format(unit="GPU" if scale.gpus else "CPU") for title in HEADER]
    return f"scale {scale.name}: {scale.text}\n\n{grid(header, lines)}\n\n{price}"
