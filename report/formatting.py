"""Configurations, claims and tables in words; numbers are those of experiments.formatting."""

from collections.abc import Mapping, Sequence
from typing import Any

from experiments import verdicts
from experiments.formatting import (
    DASH,
    MINUS,
    correction,
    difference,
    interval,
    measured,
    number,
    paper,
    paper_difference,
    signed,
)
from experiments.scale import get_scale
from lumix.registry import describe, name_of
from training.config import Run

# For templates and figures.
__all__ = ["DASH", "MINUS", "correction", "difference", "interval", "measured", "number", "paper", "paper_difference"]
__all__ += ["signed"]
VERDICTS = dict(zip(verdicts.VERDICTS, ("✓", "✗", "=", "?", DASH), strict=True))
DATA_NAMES = {
    "digits": "digits 8×8",
    "shapes": "shapes 16×16",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "tiny_imagenet": "Tiny-ImageNet",
    "imagenet": "ImageNet-1k",
    "cub200": "CUB-200-2011",
    "aircraft": "FGVC-Aircraft",
    "cars": "Stanford Cars",
}
# What a paper's cells were measured on, where that is not ImageNet-1k.
PAPER_DATA = {
    "Table 4": "Pascal Context",
    "Table 5": "VOC12, ImageNet",
    "Table 8": "ImageNet-A, -O",
    "Table A2": "CIFAR-100, Tiny-ImageNet",
    "Table A6": "CUB-200, Aircraft",
    "Table A7": "CIFAR-100, Tiny-ImageNet",
    "Table A8": "CIFAR-100",
    "Figure A3": "CIFAR-100, Tiny-ImageNet, CUB-200",
    "OpenMixup": "CIFAR-100 at 32 pixels for 200 epochs",
}
PAPERS = {"lumix": "LUMix", "dm": "Decoupled Mixup"}  # by the first word of a table's id
STATISTICS = {"last": "last epoch", "best": "best epoch", "median_last": "median of the last epochs"}
FAMILIES = {"deit": "DeiT", "swin": "Swin", "xcit": "XCiT", "convnext": "ConvNeXt", "resnet": "ResNet"}


def joined(names: list[str]) -> str:
    """Sorted, each once, with commas."""
    return ", ".join(sorted(set(names)))


def heading(record: Mapping[str, Any]) -> str:
    """Table 2: Components of LUMix; the second paper's table names it, and a table of ours says so."""
    paper, name = paper_of(record["table"]), record.get("paper_table")
    numbered = f"{paper}, {name}" if paper != PAPERS["lumix"] and name else name
    return f"{numbered or 'Our own table'}: {record['title']}"


def paper_of(table: str) -> str:
    """Whose table it is, by its id."""
    return PAPERS.get(table.split("_")[0], PAPERS["lumix"])


def short(value: float | None) -> str:
    """+0.8, as a paper prints a difference; a dash for nothing."""
    return DASH if value is None else f"{value:+g}".replace("-", MINUS)


def claims_in_short(claims: Sequence[Mapping[str, Any]]) -> str:
    """How many claims a table has, and how many got each verdict."""
    found = [claim["verdict"] for claim in claims]
    counts = [
        f"{found.count(verdict)} {verdict or 'without a verdict'}" for verdict in (*VERDICTS, "") if verdict in found
    ]
    return f"{len(claims)} claim{'s' * (len(claims) > 1)}: {', '.join(counts)}"


def setting(record: Mapping[str, Any], size: str = "small ") -> str:
    """Data and models of a record's runs: CIFAR-100, 15 % of the labels at 16 pixels, ResNet."""
    configs = [run["config"] for run in record["runs"].values()]
    what = joined([DATA_NAMES.get(config.data.name, config.data.name) for config in configs])
    if {config.data.name for config in configs} == {"imagenet"}:
        return what
    cut = {(config.data.share, config.data.image_size) for config in configs}
    if len(cut) == 1 and (share := max(cut)[0]) < 1:
        what += f", {100 * share:g} % of the labels at {max(cut)[1]} pixels"
    roles = [config.model.role.rstrip("0123456789").split("_")[0] for config in configs]
    return f"{what}, {size}{joined([FAMILIES.get(role, role) for role in roles])}"


def badge(scale: str, record: Mapping[str, Any] | None) -> str:
    """What has to stand above every table, so that no number is taken for the paper's: scale, data, models."""
    if not record or not record["runs"]:
        return f"{scale} scale: not run"
    what = setting(record, {"mini": "tiny ", "lab": "", "paper": ""}.get(scale, "small "))
    theirs = PAPER_DATA.get(record.get("paper_table") or "", "ImageNet")
    if get_scale(scale).replicates or what == DATA_NAMES["imagenet"] or (scale == "lab" and what.startswith(theirs)):
        return f"{scale} scale: {what}"
    theirs = "CIFAR-100 at 32 pixels for 800 epochs" if theirs == "CIFAR-100" else theirs
    return f"{scale} scale: {what}: NOT {theirs}"


def summary(run: Run) -> str:
    """A run in one line."""
    data = run.data
    part = f" ({data.train_size} images)" if data.train_size else f" ({data.share:.0%})" if data.share < 1 else ""
    part += f" ({data.labels} labels)" if data.labels else ""
    return "; ".join(
        [
            DATA_NAMES.get(data.name, data.name) + part,
            run.model.role,
            f"{run.epochs} epochs of batch {run.batch_size}",
            f"{run.optim.name} lr {run.optim.lr:g}",
            *([describe(run.task)] if name_of(run.task) != "mix" else []),
            *([str(run.mix)] if name_of(run.task) == "mix" or run.mix.choices else []),
            str(run.loss),
        ]
    )


def paper_heading(record: dict[str, Any]) -> str:
    """The heading of the paper's own cells: "paper" and the data they come from."""
    of = record["paper_table"] or ""
    return "OpenMixup’s benchmark" if of == "OpenMixup" else f"paper ({PAPER_DATA.get(of, 'ImageNet')})"
