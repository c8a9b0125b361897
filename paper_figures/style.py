"""How every figure looks and is saved, and what two figures or more share; nothing else chooses a colour or a font.

A notebook imports it first, which puts the project's root on the path: kernels start in this folder, and pip installs
lumix alone.
"""

import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from experiments import curves
from experiments.intervals import t_interval
from report import formatting
from report.load import Results, cells, read_results

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "report" / "figures"
# Okabe and Ito's palette: told apart with every common colour blindness, and in grey by line style and marker.
CUTMIX, LUMIX, CONSTANT, PREDICTED, PAPER = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#555555"
LAWS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
RIVALS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#8B4513", "#000000", "#999933")
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)))
MODELS = {"deit_s": ("DeiT-S", CUTMIX, "-", "o"), "lumix": ("LUMix-DeiT-S", LUMIX, "--", "s")}  # row -> its look
METHODS = dict(zip(("Mixup", "CutMix", "AutoMix", "PuzzleMix", "ManifoldMix"), RIVALS, strict=False))
SYMBOLS = {"eta": "η", "xi": "ξ", "t": "t"}
BELOW: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.13), "frameon": False}  # a panel's legend


def use() -> None:
    """Set the theme for this process."""
    looks = {
        "figure.dpi": 100,
        "figure.constrained_layout.use": True,
        "savefig.dpi": 150,
        "font.family": "DejaVu Sans",  # ships with matplotlib, so that every machine draws the same letters
        "axes.titlesize": 11,
        "axes.labelsize": 10,
        "xtick.labelsize": 9,
        "ytick.labelsize": 9,
        "legend.fontsize": 9,
        "figure.titlesize": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    sns.set_theme(context="notebook", style="whitegrid", rc=looks)


def save(figure: Figure, name: str) -> None:
    """PNG and PDF under `name`, free of dates, so that an unchanged figure is an unchanged file."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    figure.savefig(FOLDER / f"{name}.png", metadata={"Software": None})
    figure.savefig(FOLDER / f"{name}.pdf", metadata={"CreationDate": None, "Creator": None, "Producer": None})


def say_not_run(axes: Axes, reason: str) -> None:
    """Leave a panel empty but for the words "not run" and why."""
    axes.set_axis_off()
    words = f"not run\n{textwrap.fill(reason, 80)}"
    axes.text(0.5, 0.5, words, ha="center", va="center", color=PAPER, transform=axes.transAxes)


def not_run(reason: str) -> Figure:
    """A figure of a single panel, which is not run."""
    figure, axes = plt.subplots(figsize=(8, 2))
    say_not_run(axes, reason)
    return figure


def bare(axes: Axes) -> None:
    """A picture has neither ticks nor a grid."""
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)


def normal_interval(values: Any) -> tuple[float, float]:
    """95 % interval of the mean of thousands of values [N], a tensor."""
    reach = 1.96 * float(values.std()) / len(values) ** 0.5
    return float(values.mean()) - reach, float(values.mean()) + reach


def read(*tables: str, measured: bool = False, scale: str | None = None) -> tuple[Any, ...]:
    """The results of a scale, that of params.yaml unless named; then each table's record, None if there is none."""
    results = read_results(ROOT, scale, measured)
    return results, *(results.records.get(table) for table in tables)


def badge(results: Results, record: Mapping[str, Any] | None) -> str:
    """What has to stand in every figure: scale, data and models."""
    return formatting.badge(results.scale, record)


def load_test(load: Callable[..., Any], *arguments: Any) -> tuple[Any, str]:
    """The test part of what `load` returns or, where its files are not here, None and what is missing."""
    try:
        return load(*arguments)[1], ""
    except ValueError as error:
        return None, str(error).split(":")[0]


def outcomes(record: Mapping[str, Any] | None, row: str, column: str) -> dict[str, dict[str, Any]]:
    """Seed -> the evaluation behind one cell, with the arrays that it kept; nothing where it was not made."""
    cell = next((line["cells"][column] for line in record["rows"] if line["id"] == row), None) if record else None
    if record is None or not cell or cell["status"] != "done":
        return {}
    seeds = record["runs"][cell["run"]]["seeds"]
    made = {seed: run.get("evaluations", {}).get(cell["evaluation"]) for seed, run in seeds.items()}
    return {
        seed: outcome | {"arrays": {name: np.array(values) for name, values in outcome["arrays"].items()}}
        for seed, outcome in made.items()
        if outcome and outcome["arrays"]
    }


def draw_curve(axes: Axes, run: Mapping[str, Any], metric: str, label: str, **looks: Any) -> None:
    """A metric over the epochs of a run: mean over seeds, and a band of one standard deviation."""
    lines = [line for seed in run["seeds"].values() for line in seed["curve"] if line.get(metric) is not None]
    if lines:
        of_epoch = pd.DataFrame(lines).groupby("epoch")[metric]
        mean, spread = of_epoch.mean(), of_epoch.std()
        axes.plot(mean.index, mean, label=f"{label}, n = {len(run['seeds'])}", **looks)
        axes.fill_between(mean.index, mean - spread, mean + spread, color=looks["color"], alpha=0.18, linewidth=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def gains(record: Mapping[str, Any] | None, column: str | None = None) -> list[tuple[str, dict[str, Any]]]:
    """(label of the row, difference) of each cell that is compared with another; nothing before one was run."""
    found = []
    for row, place, cell in cells(record) if record else ():
        if cell.get("difference") and column in (None, place["id"]):
            label = next(iter(row["labels"].values()))
            if row["ours"]:  # it may share the label of a row of the paper; its note tells them apart
                label += "\n" + textwrap.fill(row["note"].split(";")[0] + " (our row)", 26)
            found.append((label, cell["difference"]))
    return found if any(gap.get("mean") is not None for _, gap in found) else []


def draw_gains(axes: Axes, found: list[tuple[str, dict[str, Any]]], what: str, paper: str = "paper") -> None:
    """A line for each of `gains`: our difference with its 95 % interval, the paper's as a hollow diamond."""
    if not found:
        say_not_run(axes, f"no results of {what}")
        return
    for y, (_, gap) in enumerate(found):
        if gap.get("mean") is not None:
            axes.plot(gap["mean"], y, "o", color=LUMIX, label=f"ours, {what}")
        if gap.get("low") is not None:
            axes.plot([gap["low"], gap["high"]], [y, y], color=LUMIX, linewidth=2, label="95 % interval")
        if gap.get("paper") is not None:
            axes.plot(gap["paper"], y, "D", color=PAPER, fillstyle="none", label=f"{paper}, on its own data")
    axes.axvline(0, color="black", linewidth=1)
    counts = [f"n = {gap['n']}" if gap["n"] else "not run" for _, gap in found]
    axes.set_yticks(range(len(found)), [f"{label}, {n}" for (label, _), n in zip(found, counts, strict=True)])
    axes.set_ylim(len(found) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    entries = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))  # each label once
    axes.legend(list(entries.values()), list(entries.keys()), ncols=1, **BELOW)


def swept(records: Iterable[Mapping[str, Any] | None], panels: Mapping[str, str] | None = None) -> pd.DataFrame:
    """A line for each seed of each cell that was run: its panel, the parameter's value, and its accuracies.

    The panel is that of the parameter in `panels`, else the data of the row.
    """
    found = []
    for record in filter(None, records):
        for row, column, cell in cells(record):
            run = record["runs"].get(cell["run"])
            name, _, setting = row["id"].partition("_")
            parameter, _, value = column["id"].rpartition("_")
            for seed, result in run["seeds"].items() if run else ():
                line = {"panel": panels[parameter] if panels else row["labels"]["data"]}
                line |= {"dataset": run["config"].data.name, "model": run["config"].model.role}
                line |= {"method": row["labels"]["method"], "parameter": parameter, "value": float(value)}
                line |= {"seed": int(seed), "top1_last": result["top1"]["last"]}
                line |= {"top1_median": result["top1"]["median_last"]}
                found.append(line | {"paper_best": curves.best(parameter, name, setting)})
    return pd.DataFrame(found, columns=["panel"] if not found else None)


def student_interval(values: Any) -> tuple[float, float]:
    """95 % interval of a mean over seeds by Student's t; NaN for fewer than five seeds."""
    found = t_interval(list(values))
    return (np.nan, np.nan) if found.low is None or found.high is None else (found.low, found.high)


def draw_swept(axes: Axes, frame: pd.DataFrame, panel: str, statistic: str) -> None:
    """The curve of each method in a panel with its interval, and a triangle where the paper finds the method best."""
    frame = frame[frame["panel"] == panel]
    if frame.empty:
        say_not_run(axes, f"no results of {panel}")
        return
    n = frame.groupby(["method", "value"])["seed"].nunique()
    seeds = "–".join(str(count) for count in sorted({n.min(), n.max()}))
    best = frame.groupby("method", sort=False)["paper_best"].first()
    values = sorted(frame["value"].unique())
    looks: dict[str, Any] = {"palette": METHODS, "errorbar": student_interval, "capsize": 0.06, "linewidth": 1.6}
    looks |= {
        "linestyles": list(LINES[: len(best)]),
        "markers": list("osD^"[: len(best)]),
        "err_kws": {"linewidth": 1.2},
    }
    sns.pointplot(frame, x="value", y=statistic, hue="method", order=values, dodge=0.3, ax=axes, **looks)
    axes.legend(title=f"n = {seeds} seeds", ncols=3, title_fontsize=9, **BELOW)
    for place, (method, value) in enumerate(best.items()):
        height = 1.02 + 0.04 * place  # methods that are best at one value stand above each other
        mark: dict[str, Any] = {"marker": "v", "linestyle": "", "color": METHODS[str(method)], "clip_on": False}
        axes.plot([values.index(value)], [height], transform=axes.get_xaxis_transform(), **mark)
    axes.set_xticks(range(len(values)), [f"{value:g}" for value in values])
    axes.set(xlabel=SYMBOLS[frame["parameter"].iloc[0]], ylabel="top-1, %")
    axes.set_title(panel, pad=34)
