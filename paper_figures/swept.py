"""Figures A2 and A3 of Decoupled Mixup: top-1 over the parameters of its losses, and the same as a long table."""

import math
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments import curves
from experiments.intervals import t_interval
from report import formatting
from report.load import Results, cells

FIGURE_A2, FIGURE_A3 = ("dm_figure02_eta", "dm_figure02_rescaling"), ("dm_figure03_eta",)
SYMBOLS = {"eta": "η", "xi": "ξ", "t": "t"}
PARAMETERS = {  # parameter -> panel of Figure A2
    "eta": "η of DM(CE)",
    "xi": "ξ of DM(BCE), t = 1 for CutMix, else 0.5",
    "t": "t of DM(BCE), ξ = 0.8 for CutMix, else 1",
}
SETS = ("CIFAR-100", "Tiny-ImageNet", "CUB-200")  # the panels of Figure A3, by the data of the paper
COLOURS = dict(zip(("Mixup", "CutMix", "AutoMix", "PuzzleMix", "ManifoldMix"), style.RIVALS, strict=False))


def points(results: Results, *tables: str) -> pd.DataFrame:
    """A line for each seed of each cell that was run: where it belongs, the parameter's value, and its accuracies."""
    found = []
    for record in (results.records[table] for table in tables if table in results.records):
        for row, column, cell in cells(record):
            run = record["runs"].get(cell["run"])
            name, _, setting = row["id"].partition("_")
            parameter, _, value = column["id"].rpartition("_")
            for seed, result in run["seeds"].items() if run else ():
                found.append(
                    {
                        "panel": row["labels"].get("data", PARAMETERS[parameter]),
                        "dataset": run["config"].data.name,
                        "model": run["config"].model.role,
                        "method": row["labels"]["method"],
                        "parameter": parameter,
                        "value": float(value),
                        "seed": int(seed),
                        "top1_last": result["top1"]["last"],
                        "top1_median": result["top1"]["median_last"],
                        "paper_best": curves.best(parameter, name, setting),
                    }
                )
    return pd.DataFrame(found, columns=["panel"] if not found else None)


def interval(values: Any) -> tuple[float, float]:
    """The 95 % interval of a mean over seeds by Student's t; none for one seed."""
    found = t_interval(list(values))
    return (math.nan, math.nan) if found.low is None or found.high is None else (found.low, found.high)


def draw(axes: Axes, frame: pd.DataFrame, statistic: str) -> None:
    """The curve of each method with its interval, and a triangle where the paper finds the method best."""
    n = frame.groupby(["method", "value"])["seed"].nunique()
    seeds = "–".join(str(count) for count in sorted({n.min(), n.max()}))
    best = frame.groupby("method", sort=False)["paper_best"].first()
    values = sorted(frame["value"].unique())
    looks: dict[str, Any] = {"palette": COLOURS, "errorbar": interval, "capsize": 0.06, "err_kws": {"linewidth": 1.2}}
    looks |= {"linestyles": list(style.LINES[: len(best)]), "markers": list("osD^"[: len(best)]), "linewidth": 1.6}
    sns.pointplot(frame, x="value", y=statistic, hue="method", order=values, dodge=0.3, ax=axes, **looks)
    below: dict[str, Any] = {
        "loc": "upper center",
        "bbox_to_anchor": (0.5, -0.13),
        "frameon": False,
        "title_fontsize": 9,
    }
    axes.legend(title=f"n = {seeds} seeds", ncols=3, **below)
    for place, (method, value) in enumerate(best.items()):
        height = 1.02 + 0.04 * place  # methods that are best at one value stand above each other
        mark: dict[str, Any] = {"marker": "v", "linestyle": "", "color": COLOURS[str(method)], "clip_on": False}
        axes.plot([values.index(value)], [height], transform=axes.get_xaxis_transform(), **mark)
    axes.set_xticks(range(len(values)), [f"{value:g}" for value in values])
    axes.set(xlabel=SYMBOLS[frame["parameter"].iloc[0]], ylabel="top-1, %")


def _panels(results: Results, tables: tuple[str, ...], titles: Sequence[str]) -> Figure:
    """A panel for each title; "not run" where it has no results."""
    frame = points(results, *tables)
    records = [results.records[table] for table in tables if table in results.records]
    statistic = "top1_last" if records and records[0]["statistic"] == "last" else "top1_median"
    figure, row = plt.subplots(1, len(titles), figsize=(13, 5))
    for axes, title in zip(row, titles, strict=True):
        part = frame[frame["panel"] == title]
        if part.empty:
            style.say_not_run(axes, f"no results of {title} at {results.scale} scale")
            continue
        draw(axes, part, statistic)
        axes.set_title(title, pad=34)
    figure.suptitle(
        f"{formatting.badge(results.scale, records[0] if records else None)}\n"
        "Bars: 95 % interval of the mean over seeds; triangles: best in the paper, on its own data",
        fontsize=10,
    )
    return figure


def decoupled_parameters(results: Results) -> Figure:
    """Figure A2: η of DM(CE), ξ and t of DM(BCE)."""
    return _panels(results, FIGURE_A2, tuple(PARAMETERS.values()))


def decoupled_eta(results: Results) -> Figure:
    """Figure A3: η of DM(CE) on three data sets."""
    return _panels(results, FIGURE_A3, SETS)
