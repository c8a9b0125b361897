"""Table 6 as a picture: what each mixing method gains, against what it costs, which is measured."""

from typing import Any

import matplotlib.pyplot as plt
import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from report import formatting
from report.load import Results

TABLE = "lumix_table06_rivals"
BACKBONES = {"deit_s": "DeiT-S", "resnet50": "ResNet-50"}
RULES = {"": "o", "lumix": "s", "attention": "^"}  # marker: labels by area, by LUMix, with attention


def kind(method: str) -> tuple[str, str]:
    """(how images are mixed, how labels are weighed) of a row such as "lumix_puzzlemix"."""
    if method in ("transmix", "lumix_attention"):
        return "cutmix", "attention"
    if method.startswith("lumix"):
        return method.removeprefix("lumix").removeprefix("_") or "cutmix", "lumix"
    return method, ""


def points(record: dict[str, Any], backbone: str) -> list[dict[str, Any]]:
    """One entry for each compared row of a backbone: method, label, ours and the paper's (cost, gain), intervals."""
    found = []
    for row in record["rows"]:
        gain = (row["cells"].get("top1") or {}).get("difference")
        speed = row["cells"].get("speed")
        if not row["id"].startswith(f"{backbone}_") or not gain or not speed:
            continue
        point: dict[str, Any] = {"method": row["id"].removeprefix(f"{backbone}_"), "label": row["labels"]["method"]}
        if gain.get("mean") is not None and speed["mean"]:
            costs = [100 / value for value in speed["values"].values()]
            point |= {"cost": 100 / speed["mean"], "costs": (min(costs), max(costs)), "gain": gain, "n": gain["n"]}
        if gain.get("paper") is not None and speed["paper"]:
            point["paper"] = (100 / speed["paper"], gain["paper"])
        found.append(point)
    return found


def draw(axes: Axes, found: list[dict[str, Any]], colours: dict[str, str]) -> None:
    """Filled marks with 95 % intervals are ours, hollow ones the paper's."""
    for point in found:
        mixing, rule = kind(point["method"])
        colour, marker = colours[mixing], RULES[rule]
        if "cost" in point:
            gain = point["gain"]
            if gain["low"] is not None:
                axes.plot([point["cost"]] * 2, [gain["low"], gain["high"]], color=colour, linewidth=1, alpha=0.6)
            axes.plot(point["costs"], [gain["mean"]] * 2, color=colour, linewidth=1, alpha=0.6)
            axes.plot(point["cost"], gain["mean"], marker, color=colour, markersize=8)
        if "paper" in point:
            axes.plot(*point["paper"], marker, color=colour, fillstyle="none", markersize=9, markeredgewidth=1.6)
    axes.axhline(0, color="black", linewidth=1)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xlabel("time of a training step, × the baseline’s")


def legend(figure: Figure, colours: dict[str, str], names: dict[str, str]) -> None:
    marks = [Line2D([], [], marker="o", linestyle="", color=colours[mixing], label=names[mixing]) for mixing in colours]
    shapes = {"o": "labels by area", "s": "labels by LUMix", "^": "labels with attention"}
    marks += [Line2D([], [], marker=m, linestyle="", color=style.PAPER, label=text) for m, text in shapes.items()]
    hollow: dict[str, Any] = {"marker": "o", "linestyle": "", "color": style.PAPER, "fillstyle": "none"}
    marks.append(Line2D([], [], **hollow, label="hollow: paper, ImageNet, V100"))
    figure.legend(handles=marks, loc="outside lower center", ncols=4, frameon=False)


def gain_against_cost(results: Results) -> Figure:
    """Table 6: points of top-1 over the baseline against the time of a step, for both backbones."""
    record = results.records.get(TABLE)
    panels = {backbone: points(record, backbone) if record else [] for backbone in BACKBONES}
    everything = [point for found in panels.values() for point in found]
    if not any("cost" in point for point in everything):
        figure, axes = plt.subplots(figsize=(8, 2))
        style.say_not_run(axes, f"no results of {TABLE} at {results.scale} scale")
        return figure
    figure, both = plt.subplots(1, 2, figsize=(11, 6.2), sharey=True)
    plain = {kind(point["method"])[0]: "" for point in everything}
    colours = dict(zip(plain, style.RIVALS, strict=False))
    names = {point["method"]: point["label"] for point in everything if point["method"] in colours}
    for axes, (backbone, found) in zip(both, panels.items(), strict=True):
        draw(axes, found, colours)
        counts = {point["n"] for point in found if "n" in point}
        n = f", n = {'–'.join(str(count) for count in sorted({min(counts), max(counts)}))}" if counts else ""
        axes.set_title(f"{BACKBONES[backbone]}{n}")
    shown = [point["gain"]["mean"] for point in everything if "gain" in point]
    shown += [point["paper"][1] for point in everything if "paper" in point]
    reach = max(4.0, 2 * max(abs(value) for value in shown))
    both[0].set_ylim(-reach, reach)  # intervals of few seeds may leave the picture
    both[0].set_ylabel("gain over the baseline, points of top-1")
    legend(figure, colours, names)
    figure.suptitle(
        f"{formatting.badge(results.scale, record)}. Lines: 95 % interval of the gain, range of the cost", fontsize=10
    )
    return figure
