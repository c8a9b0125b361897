"""Figure A1 of Decoupled Mixup: accuracy on mixed and on clean test images over the epochs."""

from typing import Any

import matplotlib.pyplot as plt
import style
from figures import curve
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from report import formatting
from report.load import Results

TABLE = "dm_figure01_mixed"
NAMES = {"top1": "clean top-1", "top1_mixed": "mixed top-1", "top2_mixed": "mixed top-2"}
LINES = {"top1": "-", "top1_mixed": "--", "top2_mixed": ":"}
PANELS = {  # title -> rows with their names and colours, and what is drawn of them
    "Mixing methods under mixed cross entropy": (
        {
            "mixup_mce": ("Mixup", style.RIVALS[0]),
            "cutmix_mce": ("CutMix", style.RIVALS[1]),
            "automix_mce": ("AutoMix", style.RIVALS[2]),
        },
        ("top1_mixed", "top2_mixed"),
    ),
    "Mixup under both losses": (
        {"mixup_mce": ("MCE", style.RIVALS[0]), "mixup_dm_ce": ("DM(CE)", style.RIVALS[3])},
        ("top1", "top2_mixed"),
    ),
}


def draw(axes: Axes, record: dict[str, Any], rows: dict[str, tuple[str, str]], metrics: tuple[str, ...]) -> None:
    """A line for each row and metric: mean over seeds with a band of one standard deviation."""
    runs = {row["id"]: record["runs"].get(row["cells"]["top1"]["run"]) for row in record["rows"]}
    for row, (name, colour) in rows.items():
        if not runs.get(row):
            continue
        for metric in metrics:
            epochs, means, spreads = curve(runs[row], metric)
            label = f"{name}, {NAMES[metric]}, n = {len(runs[row]['seeds'])}"
            axes.plot(epochs, means, color=colour, linestyle=LINES[metric], label=label)
            axes.fill_between(epochs, means - spreads, means + spreads, color=colour, alpha=0.18, linewidth=0)
    axes.set(xlabel="epoch", ylabel="test accuracy, %", ylim=(0, 100))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=len(rows), frameon=False)


def decoupled_mixed(results: Results) -> Figure:
    """Figure A1: mixed accuracy of three methods, and Mixup with and without the decoupled term."""
    record = results.records.get(TABLE)
    if not record or not any(run["seeds"] for run in record["runs"].values()):
        figure, axes = plt.subplots(figsize=(8, 2))
        style.say_not_run(axes, f"no results of {TABLE} at {results.scale} scale")
        return figure
    figure, both = plt.subplots(1, 2, figsize=(11, 4.8), sharey=True)
    for axes, (title, (rows, metrics)) in zip(both, PANELS.items(), strict=True):
        draw(axes, record, rows, metrics)
        axes.set_title(title)
    figure.suptitle(
        f"{formatting.badge(results.scale, record)}. Bands: ± one standard deviation over seeds", fontsize=10
    )
    return figure
