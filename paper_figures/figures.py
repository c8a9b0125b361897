"""The figures that show results: they read results/<scale>/ through report.load, and nothing else."""

import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy import stats

from report import formatting, headline
from report.load import Results

MODELS, LAWS = "lumix_table01_models", "lumix_table10_laws"
Gain = tuple[str, dict[str, Any]]  # label, and the difference of a cell to its reference


def gains(record: dict[str, Any] | None, column: str | None = None) -> list[Gain]:
    """(label of the row, difference) for every cell that is compared with another, in the order of the table."""
    found = []
    for row in record["rows"] if record else []:
        label = next(iter(row["labels"].values()))
        for name, cell in row["cells"].items():
            if cell.get("difference") and column in (None, name):
                # Rows of ours may share the paper's label; their note tells them apart.
                note = textwrap.fill(row["note"].split(";")[0] + " (our row)", 26)
                detail = "\n" + note if row["ours"] else ""
                found.append((label + detail, cell["difference"]))
    return found


def draw_gains(axes: Axes, found: Sequence[Gain], scale: str, what: str) -> None:
    """A line per row: our difference with its 95 % interval, the paper's as a hollow diamond."""
    for y, (_, gap) in enumerate(found):
        if gap.get("mean") is not None:
            axes.plot(gap["mean"], y, "o", color=style.LUMIX, label=f"ours, {scale} scale, 95 % interval")
        if gap.get("low") is not None:
            axes.plot([gap["low"], gap["high"]], [y, y], color=style.LUMIX, linewidth=2, solid_capstyle="butt")
        if gap.get("paper") is not None:
            axes.plot(gap["paper"], y, "D", color=style.PAPER, fillstyle="none", label="paper, ImageNet")
    axes.axvline(0, color="black", linewidth=1)
    axes.set_yticks(range(len(found)), [f"{label}, n = {gap['n']}" for label, gap in found])
    axes.set_ylim(len(found) - 0.5, -0.5)
    axes.set_xlabel(what)
    axes.grid(axis="y", visible=False)
    entries = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    place: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.13), "ncols": 1, "frameon": False}
    axes.legend(list(entries.values()), list(entries.keys()), **place)


def gain_per_model(results: Results) -> Figure:
    """Table 1: what LUMix adds to each model, ours beside the paper's."""
    record = results.records.get(MODELS)
    found = gains(record, "lumix")
    figure, axes = plt.subplots(figsize=(8, 5.5))
    if any(gap.get("mean") is not None for _, gap in found):
        draw_gains(axes, found, results.scale, "LUMix minus CutMix, points of top-1")
        axes.set_title(f"Gain per model. {formatting.badge(results.scale, record)}", fontsize=10, wrap=True)
    else:
        figure.set_size_inches(8, 2)
        style.say_not_run(axes, f"no results of {MODELS} at {results.scale} scale")
    return figure


def draw_densities(axes: Axes) -> None:
    """The laws of λr in Table 10: densities of the Beta laws and of the normal ones, whose final λ is clamped."""
    x = np.linspace(-1, 2, 601)
    laws = {
        "Beta(0.8, 0.8)": stats.beta(0.8, 0.8),
        "Beta(2, 2)": stats.beta(2, 2),
        "Beta(3, 3)": stats.beta(3, 3),
        "N(0, 1)": stats.norm(0, 1),
        "N(0, 5), σ = 5": stats.norm(0, 5),
    }
    for (label, law), colour, line in zip(laws.items(), style.LAWS, style.LINES, strict=False):
        density = law.pdf(x)
        axes.plot(x, np.where(np.isfinite(density), density, np.nan), color=colour, linestyle=line, label=label)
    axes.axvline(0.5, color="black", linewidth=1.5, label="constant 1/2 (control)")
    axes.axvspan(0, 1, color=style.PAPER, alpha=0.08, linewidth=0)
    axes.set(xlim=(-1, 2), ylim=(0, 2.2), xlabel="λr (shaded: valid label weights)", ylabel="density")
    axes.set_title("Laws of λr")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=3, frameon=False, fontsize=8)


def lambda_laws(results: Results) -> Figure:
    """Table 10: the laws of λr, and the difference that each makes."""
    record = results.records.get(LAWS)
    found = gains(record)
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 5.4), width_ratios=(1, 1.15))
    draw_densities(left)
    if any(gap.get("mean") is not None for _, gap in found):
        draw_gains(right, found, results.scale, "LUMix with this law minus CutMix, points of top-1")
        right.set_title(formatting.badge(results.scale, record), fontsize=10)
    else:
        style.say_not_run(right, f"no results of {LAWS} at {results.scale} scale")
    return figure


def curve(run: dict[str, Any], name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Epochs, mean and standard deviation over seeds of one metric; epochs that lack it in a seed are left out."""
    by_epoch: dict[int, list[float]] = {}
    for seed in run["seeds"].values():
        for line in seed["curve"]:
            if line.get(name) is not None:
                by_epoch.setdefault(line["epoch"], []).append(line[name])
    epochs = sorted(epoch for epoch, values in by_epoch.items() if len(values) == len(run["seeds"]))
    means = np.array([np.mean(by_epoch[epoch]) for epoch in epochs])
    spreads = np.array([np.std(by_epoch[epoch], ddof=1) if len(by_epoch[epoch]) > 1 else 0.0 for epoch in epochs])
    return np.array(epochs), means, spreads


def training_curves(results: Results) -> Figure:
    """Accuracy and label perturbation during training: CutMix, LUMix and the constant control."""
    found = headline.find(results)
    methods = (
        ("CutMix", found.cutmix, style.CUTMIX, "-"),
        ("LUMix", found.lumix, style.LUMIX, "--"),
        ("LUMix with λr = 1/2", found.constant, style.CONSTANT, "-."),
    )
    panels = (("top1", "top-1 on clean test images, %"), ("perturbation", "mean |λ − λ0| of perturbed samples"))
    figure, both = plt.subplots(1, 2, figsize=(11, 4.4))
    for axes, (metric, what) in zip(both, panels, strict=True):
        for name, key, colour, line in methods:
            if key is None:
                continue
            run = results.runs[key]
            epochs, means, spreads = curve(run, metric)
            if len(epochs):
                label = f"{name}, n = {len(run['seeds'])}"
                axes.plot(epochs, means, color=colour, linestyle=line, marker=".", label=label)
                axes.fill_between(epochs, means - spreads, means + spreads, color=colour, alpha=0.18, linewidth=0)
        if axes.lines:
            axes.set(xlabel="epoch", ylabel=what)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.legend()
        else:
            style.say_not_run(axes, f"no headline runs at {results.scale} scale")
    if found.cutmix:
        used = {"runs": {found.cutmix: results.runs[found.cutmix]}}
        figure.suptitle(
            f"{formatting.badge(results.scale, used)}. Bands: ± one standard deviation over seeds", fontsize=10
        )
    return figure
