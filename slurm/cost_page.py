"""docs/cost.md: what every table costs on A100s, from the estimates of the scale, corrected by what was measured."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.cost import owned_items
from experiments.registry import tables_of
from experiments.results import read_runs
from experiments.runs import Item
from experiments.scale import Scale
from slurm.disk import checkpoint_bytes, readable, weight_bytes
from training.config import Run

NODES = (1, 4, 16)
GPUS_PER_NODE = 8
DEVICE = "A100"  # the device whose hours the estimates are


@dataclass(frozen=True)
class Measurement:
    """GPU-hours of one finished training on some GPU."""

    data: str
    role: str
    epochs: int
    device: str
    gpus: int
    images_per_second: float
    gpu_hours: float


def measurements(scale: Scale) -> list[Measurement]:
    """Every training on a GPU in the collected results of this scale."""
    return [
        Measurement(
            data=run["config"].data.name,
            role=run["config"].model.role,
            epochs=run["config"].epochs,
            device=str(result["hardware"]["device"]),
            gpus=(gpus := int(result.get("processes", 1))),
            images_per_second=float(result["images_per_second"]),
            gpu_hours=float(result["seconds"]) * gpus / 3600,
        )
        for run in read_runs(Path(), scale.name).values()
        for result in run["seeds"].values()
        if "hardware" in result and result["hardware"]["device"] != "cpu"
    ]


def corrected_hours(scale: Scale, run: Run, measured: Sequence[Measurement]) -> float:
    """GPU-hours of one training: the mean of those measured with the same recipe on the same GPU, else the estimate."""
    recipe = (run.data.name, run.model.role, run.epochs)
    same = [one.gpu_hours for one in measured if (one.data, one.role, one.epochs) == recipe and DEVICE in one.device]
    return statistics.fmean(same) if same else scale.gpu_hours(run)


def wall_hours(jobs: Iterable[tuple[float, int]], nodes: int) -> float:
    """Hours until all jobs are done on so many nodes, each of its hours and GPUs of one node, the longest first."""
    free = [[0.0] * GPUS_PER_NODE for _ in range(nodes)]  # when each GPU is free, the earliest first
    for hours, gpus in sorted(jobs, reverse=True):
        node = min(free, key=lambda times: times[gpus - 1])
        node[:gpus] = [node[gpus - 1] + hours] * gpus
        node.sort()
    return max(times[-1] for times in free)


def cost_page(scale: Scale, seeds: int | None = None) -> str:
    """The page as Markdown.

    Raises:
        ValueError: for a scale without GPUs.
    """
    if not scale.gpus:
        raise ValueError(f"scale {scale.name} needs no GPU, hence costs nothing: choose --scale paper or lab")
    measured = measurements(scale)
    per_table = {table.id: owned_items(scale, table.id, seeds) for table in tables_of(scale)}
    lines = [_line(scale, table, items, measured) for table, items in per_table.items()]
    every = [item for items in per_table.values() for item in items]
    total = _line(scale, "**all**", every, measured)
    nodes = " | ".join(f"on {number} node{'s' if number > 1 else ''}" for number in NODES)
    least = min(scale.gpus_of(item.run) for item in every)
    gpus = f"{f'{least} or ' if least < scale.gpus else ''}{scale.gpus} GPU{'s' if scale.gpus > 1 else ''}"
    return "\n".join(
        [
            "<!-- Generated: python -m slurm cost-page > docs/cost.md -->",
            "# What the tables cost",
            "",
            f"Scale `{scale.name}`: {scale.text} A run that several tables show is trained once and counted for the "
            f"first of them. One training takes {gpus}; wall time is on nodes of {GPUS_PER_NODE} GPUs, longest runs "
            "first, without waiting in the queue. A dash means that the table owns no run of its own.",
            "",
            f"| table | runs | trainings | {DEVICE}-hours | dollars | weights on disk | {nodes} |",
            "|---|--:|--:|--:|--:|--:|" + "--:|" * len(NODES),
            *lines,
            total,
            "",
            _basis(scale, every, measured),
            "",
            f"Price: {scale.dollars_per_gpu_hour:.2f} dollars per GPU-hour, a round figure and no quote. While a run "
            f"trains, its checkpoint takes up to {_largest(scale, every)} more, twice that for the moment in which one "
            "replaces another.",
            *_measured_table(measured),
            "",
        ]
    )


def _line(scale: Scale, name: str, items: Sequence[Item], measured: Sequence[Measurement]) -> str:
    hours = [corrected_hours(scale, item.run, measured) for item in items]
    if not items:
        return f"| {name} |" + " – |" * (5 + len(NODES))
    gpus = [scale.gpus_of(item.run) for item in items]
    jobs = [(one / number, number) for one, number in zip(hours, gpus, strict=True)]
    walls = [wall_hours(jobs, nodes) for nodes in NODES]
    sizes = [weight_bytes(scale, item.run) for item in items]
    known = [size for size in sizes if size is not None]
    cells = [
        str(len({item.run.key for item in items})),
        str(len(items)),
        f"{sum(hours):,.0f}",
        f"{sum(hours) * scale.dollars_per_gpu_hour:,.0f}",
        readable(sum(known)) if len(known) == len(sizes) else "not known",
        *(_time(wall) for wall in walls),
    ]
    return f"| {name} | " + " | ".join(cells) + " |"


def _time(hours: float) -> str:
    return f"{hours / 24:.1f} days" if hours >= 48 else f"{hours:.0f} h"


def _basis(scale: Scale, items: Sequence[Item], measured: Sequence[Measurement]) -> str:
    roles = dict.fromkeys(item.run.model.role for item in items)
    known = {one.role for one in measured if DEVICE in one.device}
    corrected = [role for role in roles if role in known]
    source = f"see `experiments/scales/{scale.name}.py`"
    if not corrected:
        return f"All hours are estimates ({source}), none is measured yet: budget up to twice as much."
    rest = len(roles) - len(corrected)
    return (
        f"Hours of {', '.join(corrected)} are measured; those of the other {rest} models are estimates ({source}): "
        "budget up to twice as much for them."
    )


def _largest(scale: Scale, items: Sequence[Item]) -> str:
    sizes = [size for item in items if (size := checkpoint_bytes(scale, item.run)) is not None]
    return readable(max(sizes)) if sizes else "an unknown amount"


def _measured_table(measured: Sequence[Measurement]) -> list[str]:
    """What was measured on any GPU, as mean and number of trainings."""
    groups: dict[tuple[str, str, int], list[Measurement]] = {}
    for one in measured:
        groups.setdefault((one.role, one.device, one.gpus), []).append(one)
    if not groups:
        return []
    lines = []
    for (role, device, gpus), ones in sorted(groups.items()):
        speed, hours = (
            statistics.fmean(getattr(one, name) for one in ones) for name in ("images_per_second", "gpu_hours")
        )
        lines.append(f"| {role} | {gpus} x {device} | {len(ones)} | {speed:,.0f} | {hours:.2f} |")
    return ["", "## Measured", "", "| model | hardware | n | images/s | GPU-hours |", "|---|---|--:|--:|--:|", *lines]
