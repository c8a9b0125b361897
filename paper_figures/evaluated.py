"""Figures of Tables 5 and 8: where attention lies, and how far confidence can be trusted.

Numbers come from results/<scale>/ alone; the pictures under the attention are the test images, loaded anew.
"""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from evaluation.foreground import enlarged, foreground
from evaluation.weak_localisation import MASSES, best_fit, boxes_around
from report import formatting
from report.load import Results
from training.data.sets import ImageSet, load

NATURAL, LOCALISATION = "lumix_table08_natural", "lumix_table05_localisation"
MODELS = {"deit_s": ("DeiT-S", style.CUTMIX, "-", "o"), "lumix": ("LUMix-DeiT-S", style.LUMIX, "--", "s")}
FEWEST = 20  # samples of a bin that is drawn: fewer say nothing of its accuracy
MASS = 0.9  # of the attention that a mask holds, as in the table

Arrays = dict[str, np.ndarray]


def outcomes_of(record: dict[str, Any] | None, row: str, column: str) -> dict[str, dict[str, Any]]:
    """Seed -> the evaluation behind one cell; nothing where it was not made."""
    cell = next((line["cells"][column] for line in record["rows"] if line["id"] == row), None) if record else None
    if record is None or not cell or cell["status"] != "done":
        return {}
    seeds = record["runs"][cell["run"]]["seeds"]
    found = {seed: run.get("evaluations", {}).get(cell["evaluation"]) for seed, run in seeds.items()}
    return {seed: outcome for seed, outcome in found.items() if outcome}


def arrays_of(record: dict[str, Any] | None, row: str, column: str) -> dict[str, Arrays]:
    """Seed -> the arrays that the evaluation behind one cell kept."""
    return {
        seed: {name: np.array(values) for name, values in outcome["arrays"].items()}
        for seed, outcome in outcomes_of(record, row, column).items()
        if outcome["arrays"]
    }


def draw_reliability(axes: Axes, seeds: dict[str, Arrays], look: tuple[str, str, str, str]) -> None:
    """Accuracy against confidence, the samples of all seeds together; an area per mark for its share of samples."""
    name, colour, line, marker = look
    counts = np.stack([arrays["reliability_count"] for arrays in seeds.values()])
    total = counts.sum(0)
    used = total >= FEWEST
    x, y = (
        np.sum([arrays[f"reliability_{what}"] * arrays["reliability_count"] for arrays in seeds.values()], axis=0)[used]
        / total[used]
        for what in ("confidence", "accuracy")
    )
    axes.plot(x, y, color=colour, linestyle=line, label=f"{name}, n = {len(seeds)} seeds")
    axes.scatter(x, y, s=400 * total[used] / total.sum(), color=colour, marker=marker, alpha=0.7)


def draw_response(axes: Axes, seeds: dict[str, Arrays], look: tuple[str, str, str, str]) -> None:
    """Accuracy of the most confident share of samples: mean and standard deviation over seeds."""
    name, colour, line, _ = look
    curves = np.stack([arrays["response_accuracy"] for arrays in seeds.values()])
    rate = 100 * np.arange(1, curves.shape[1] + 1) / curves.shape[1]
    mean, spread = curves.mean(0), curves.std(0, ddof=1) if len(curves) > 1 else np.zeros(curves.shape[1])
    axes.plot(rate, mean, color=colour, linestyle=line, label=f"{name}, n = {len(curves)} seeds")
    axes.fill_between(rate, mean - spread, mean + spread, color=colour, alpha=0.18, linewidth=0)


def calibration(results: Results) -> Figure:
    """Table 8: reliability diagram and response-rate-accuracy curve on natural adversarial images."""
    record = results.records.get(NATURAL)
    found = {row: arrays_of(record, row, "calibration_error") for row in MODELS}
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.8))
    if not any(found.values()):
        for axes in (left, right):
            style.say_not_run(axes, f"no results of {NATURAL} at {results.scale} scale")
        return figure
    for row, seeds in found.items():
        if seeds:
            draw_reliability(left, seeds, MODELS[row])
            draw_response(right, seeds, MODELS[row])
    left.plot([0, 100], [0, 100], color=style.PAPER, linewidth=1, label="calibrated")
    left.set(xlim=(0, 100), ylim=(0, 100), xlabel="confidence, %", ylabel="accuracy, %", title="Reliability")
    right.set(xlim=(0, 100), xlabel="response rate, % most confident", ylabel="accuracy, %", title="Response rate")
    for axes in (left, right):
        axes.legend()
    figure.suptitle(
        f"Natural adversarial images. {formatting.badge(results.scale, record)}\n"
        f"Bins of {FEWEST} images or more; bands: ± one standard deviation over seeds",
        fontsize=10,
    )
    return figure


def draw_attention(axes: Axes, images: ImageSet, index: int, attention: np.ndarray, colour: str) -> None:
    """One test image with the best head's mask, its box and the true box, which is dashed."""
    assert images.boxes is not None
    picture = images.images[index].permute(1, 2, 0).numpy()
    top, bottom, left, right = (int(side) for side in images.boxes[index])
    heads, rows, columns = attention.shape
    patch = picture.shape[0] // rows
    masks = foreground(attention.reshape(heads, -1), MASS).reshape(heads, rows, columns)
    boxes = boxes_around(masks, patch)
    fit = best_fit(boxes, np.array([[left, top, right, bottom]], dtype=np.float64))
    best = int(fit.argmax())
    shade = np.where(enlarged(masks[best], patch)[..., None], 1.0, 0.35)
    axes.imshow((picture * shade).astype(np.uint8), extent=(0, picture.shape[1], picture.shape[0], 0))
    x1, y1, x2, y2 = boxes[best]
    looks: dict[str, Any] = {"fill": False, "linewidth": 2}
    axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, edgecolor=colour, **looks))
    axes.add_patch(Rectangle((left, top), right - left, bottom - top, edgecolor="white", linestyle="--", **looks))
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.set_xlabel(f"head {best}, IoU {100 * float(fit[best]):.0f} %", fontsize=8)


def attention_maps(results: Results) -> Figure:
    """Table 5: masks and boxes from attention over the first test images, seed 0 of each model."""
    record = results.records.get(LOCALISATION)
    found = {row: arrays_of(record, row, "localisation").get("0") for row in MODELS}
    shown = {row: arrays["example_attention"] for row, arrays in found.items() if arrays}
    reason = "" if shown else f"no results of {LOCALISATION} at {results.scale} scale"
    images: ImageSet | None = None
    if shown and record:
        try:
            images = load(next(iter(record["runs"].values()))["config"].data)[1]
        except ValueError as error:  # read from files that are not here
            reason = str(error).split(":")[0]
    if images is None:
        figure, axes = plt.subplots(figsize=(8, 2))
        style.say_not_run(axes, reason)
        return figure
    count = min(len(attention) for attention in shown.values())
    figure, grid = plt.subplots(len(shown), count, figsize=(1.8 * count, 2.1 * len(shown) + 0.5), squeeze=False)
    for (row, attention), line in zip(shown.items(), grid, strict=True):
        name, colour, _, _ = MODELS[row]
        for index, axes in enumerate(line):
            draw_attention(axes, images, index, attention[index], colour)
            if images.class_names:
                axes.set_title(images.class_names[int(images.labels[index])].replace("_", " "), fontsize=9)
        line[0].set_ylabel(name)
    figure.suptitle(
        f"Attention of the class token, best head, {100 * MASS:.0f} % of its mass lit; dashed: the true box. "
        f"{formatting.badge(results.scale, record)}",
        fontsize=10,
    )
    return figure


def draw_grid(axes: Axes, grids: np.ndarray, look: tuple[str, str, str, str]) -> None:
    """Mean IoU against the attention that a mask holds: best head, averaged heads, and thinly each head.

    Args:
        grids: percent [seeds, masses, 2 + heads] of one region, in the order of `weak_localisation.declared_grid`.
    """
    name, colour, _, marker = look
    for head in (*range(2, grids.shape[2]), 1, 0):
        points = grids[:, :, head]
        if head >= 2:
            axes.plot(MASSES, points.mean(0), color=colour, linewidth=0.8, linestyle=":", alpha=0.7)
            continue
        spread = points.std(0, ddof=1) if len(points) > 1 else None
        label = f"{name}, {('mean of heads', 'best head')[head]}, n = {len(points)}"
        line = {"linestyle": ("--", "-")[head], "marker": marker, "capsize": 3}
        axes.errorbar(MASSES, points.mean(0), yerr=spread, color=colour, label=label, **line)


def localisation_grid(results: Results) -> Figure:
    """Table 5: the boxes of every declared setting, so that the choice of one hides nothing."""
    record = results.records.get(LOCALISATION)
    found = {row: list(outcomes_of(record, row, "localisation").values()) for row in MODELS}
    figure, both = plt.subplots(1, 2, figsize=(11, 5), sharey=True)
    if not any(found.values()):
        for axes in both:
            style.say_not_run(axes, f"no results of {LOCALISATION} at {results.scale} scale")
        return figure
    for place, (axes, title) in enumerate(zip(both, ("all kept patches", "largest component"), strict=True)):
        for row, outcomes in found.items():
            if outcomes:
                grids = np.array([outcome["arrays"]["grid_iou"] for outcome in outcomes])
                draw_grid(axes, grids[..., place], MODELS[row])
                axes.axhline(outcomes[0]["values"]["whole_image"], color=style.PAPER, linewidth=1)
        axes.set(xlabel="share of the attention that the mask holds", title=f"Box around {title}")
        axes.set_xticks(MASSES)
    both[0].set_ylabel("mean IoU with the true box, %")
    both[0].legend(fontsize=8, handlelength=4, loc="lower right")
    figure.suptitle(
        f"Boxes from attention. {formatting.badge(results.scale, record)}\n"
        "Horizontal: the box around the whole image; dotted: single heads; bars: ± one standard deviation over seeds",
        fontsize=10,
    )
    return figure
