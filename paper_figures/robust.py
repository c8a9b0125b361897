"""Figures of Tables 7 and 9: accuracy on images with dropped or shuffled patches, and what such images look like.

Numbers come from results/<scale>/ alone; the pictures are the test images, loaded anew.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import style
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from torch import Tensor

from evaluation.arguments import GRIDS, LOSSES
from evaluation.occlusion import apply_drop, random_mask
from evaluation.shuffling import shuffle_grid
from report import formatting
from report.load import Results
from training.data.sets import ImageSet, load
from training.rng import stream_seed

OCCLUSION, SHUFFLING = "lumix_table09_occlusion", "lumix_table07_shuffling"
# value column -> name, colour, line and marker of ours, line of the paper's
MODELS = {
    "base": ("DeiT-S", style.CUTMIX, "-", "o", ":"),
    "lumix": ("LUMix-DeiT-S", style.LUMIX, "--", "s", "--"),
}
# variant -> title and what its information loss counts
PANELS = {
    "non_salient": ("Least attended patches, by mass", "attention mass dropped, %"),
    "salient": ("Most attended patches, by mass", "attention mass dropped, %"),
    "random": ("Random patches", "patches dropped, %"),
    "non_salient_by_count": ("Least attended patches, by count", "patches dropped, %"),
    "salient_by_count": ("Most attended patches, by count", "patches dropped, %"),
}
SHOWN, SHOWN_LOSSES = 5, (20, 50, 80)  # images and losses on the sheet


class Curve(NamedTuple):
    """Points of one model, those cells of a table that have a number: x, mean, spread (NaN for one seed), seeds."""

    x: np.ndarray
    mean: np.ndarray
    spread: np.ndarray
    seeds: list[int]


def cells_of(record: Mapping[str, Any] | None, places: Mapping[str, int], column: str) -> dict[int, dict[str, Any]]:
    """Place on the x axis -> the cell of that row; `places` maps ids of rows to it."""
    rows = record["rows"] if record else []
    return {places[row["id"]]: row["cells"][column] for row in rows if row["id"] in places}


def curve_of(cells: Mapping[int, dict[str, Any]]) -> Curve:
    """Mean and standard deviation over seeds of the cells that were measured."""
    done = {x: cell for x, cell in cells.items() if cell["status"] == "done"}
    spread = [np.nan if cell["std"] is None else cell["std"] for cell in done.values()]
    seeds = sorted({cell["n"] for cell in done.values()})
    return Curve(np.array(list(done)), np.array([cell["mean"] for cell in done.values()]), np.array(spread), seeds)


def draw_accuracy(axes: Axes, record: Mapping[str, Any] | None, places: Mapping[str, int], missing: str) -> None:
    """Accuracy of both models over the rows `places`, and grey the paper's numbers; `missing` where there are none."""
    found = {column: cells_of(record, places, column) for column in MODELS}
    if not any(len(curve_of(cells).x) for cells in found.values()):
        style.say_not_run(axes, missing)
        return
    for column, (name, colour, line, marker, paper_line) in MODELS.items():
        curve = curve_of(found[column])
        if len(curve.x):
            label = f"{name}, n = {' or '.join(map(str, curve.seeds))} seeds"
            axes.plot(curve.x, curve.mean, color=colour, linestyle=line, marker=marker, markersize=4, label=label)
            low, high = curve.mean - curve.spread, curve.mean + curve.spread
            axes.fill_between(curve.x, low, high, color=colour, alpha=0.18, linewidth=0)
        paper = {x: cell["paper"] for x, cell in found[column].items() if cell["paper"] is not None}
        if paper:
            looks: dict[str, Any] = {"color": style.PAPER, "linestyle": paper_line, "linewidth": 1.2}
            axes.plot(list(paper), list(paper.values()), label=f"paper (ImageNet), {name}", **looks)
    axes.legend(fontsize=7.5, handlelength=3.5)


def occlusion_curves(results: Results) -> Figure:
    """Tables 9 and 7: accuracy against information loss, a panel for each way to drop patches, and shuffling."""
    occlusion, shuffling = results.records.get(OCCLUSION), results.records.get(SHUFFLING)
    figure, grid = plt.subplots(2, 3, figsize=(13, 7.6), sharey=True)
    for axes, (variant, (title, what)) in zip(grid.flat, PANELS.items(), strict=False):
        places = {f"{variant}_{loss}": loss for loss in LOSSES}
        axes.set(title=title, xlabel=what)
        draw_accuracy(axes, occlusion, places, f"no results of {OCCLUSION} at {results.scale} scale")
    last = grid.flat[-1]
    last.set(title="Shuffled patches", xlabel="patches of the grid", ylim=(0, 100))
    last.set_xscale("log", base=2)
    last.set_xticks(list(GRIDS), [str(grid) for grid in GRIDS])
    last.xaxis.set_minor_locator(NullLocator())
    places = {f"grid_{patches}": patches for patches in GRIDS}
    draw_accuracy(last, shuffling, places, f"no results of {SHUFFLING} at {results.scale} scale")
    for axes in grid[:, 0]:
        axes.set_ylabel("top-1 accuracy, %")
    figure.suptitle(
        f"Dropped and shuffled patches. {formatting.badge(results.scale, occlusion or shuffling)}\n"
        f"Bands: ± one standard deviation over seeds{_judge(occlusion)}",
        fontsize=10,
    )
    return figure


def _judge(record: Mapping[str, Any] | None) -> str:
    """Whose attention ranks the patches, as the table notes it."""
    notes = {row["note"] for row in record["rows"] if row["note"]} if record else set()
    return "".join(f"; patches ranked by {note}" for note in sorted(notes))


# ------------------------------------------------------------------------------------------------- the sheet of images


def protocol_of(record: Mapping[str, Any], protocol: str) -> dict[str, Any]:
    """The arguments of the evaluation that made a table."""
    return dict(next(made["arguments"] for made in record["evaluations"].values() if made["protocol"] == protocol))


def first_draw(arguments: Mapping[str, Any], samples: int, level: int, stream: str) -> tuple[int, torch.Generator]:
    """How many sets of patches the evaluation draws for its first batch, and the generator of its first repetition."""
    sets = 1 if arguments["draw"] == "per_batch" else min(arguments["batch"], samples)
    return sets, torch.Generator().manual_seed(stream_seed(arguments["seed"], 0, 0, level, stream))


def kept_patches(arguments: Mapping[str, Any], samples: int, side: int, loss: int) -> Tensor:
    """Which patches of the first images stay at a random loss: bool [SHOWN, side, side], as in the evaluation."""
    sets, generator = first_draw(arguments, samples, loss, "occlusion")
    return random_mask(side, loss, sets, generator)[:SHOWN].expand(min(SHOWN, samples), -1, -1)


def patch_order(arguments: Mapping[str, Any], samples: int, patches: int) -> Tensor:
    """The permutations of the first images on a grid: [SHOWN, patches], as in the evaluation."""
    sets, generator = first_draw(arguments, samples, patches, "shuffling")
    return torch.rand(sets, patches, generator=generator).argsort(dim=1)[:SHOWN].expand(min(SHOWN, samples), -1)


def draw_picture(axes: Axes, picture: Tensor, rows: int, columns: int, gone: Tensor | None = None) -> None:
    """An image [C, H, W] in [0, 1] with the lines of its patches and a cross in each that is gone [rows, columns]."""
    height, width = picture.shape[-2:]
    shown = picture.permute(1, 2, 0).numpy()
    looks: dict[str, Any] = {"extent": (0, width, height, 0), "interpolation": "nearest", "vmin": 0, "vmax": 1}
    axes.imshow(shown[..., 0] if shown.shape[2] == 1 else shown, cmap="gray", **looks)
    lines: dict[str, Any] = {"colors": style.LAWS[5], "linewidth": 0.6}
    axes.hlines(np.arange(1, rows) * height / rows, 0, width, **lines)
    axes.vlines(np.arange(1, columns) * width / columns, 0, height, **lines)
    if gone is not None:
        y, x = (np.asarray(place) for place in np.nonzero(gone.numpy()))
        axes.plot((x + 0.5) * width / columns, (y + 0.5) * height / rows, "x", color=style.LUMIX, markersize=4)
    axes.set(xticks=[], yticks=[], xlim=(0, width), ylim=(height, 0))
    axes.grid(visible=False)


def robustness_sheet(results: Results) -> Figure:
    """Tables 9 and 7: the first test images, with random patches dropped, and shuffled, with the evaluation's seeds."""
    absent = [table for table in (OCCLUSION, SHUFFLING) if table not in results.records]
    reason = f"no results of {' and '.join(absent)} at {results.scale} scale"
    images: ImageSet | None = None
    if not absent:
        record = results.records[OCCLUSION]
        config = next(iter(record["runs"].values()))["config"]
        try:
            images = load(config.data)[1]
        except ValueError as error:  # read from files that are not here
            reason = str(error).split(":")[0]
    if images is None:
        figure, axes = plt.subplots(figsize=(8, 2))
        style.say_not_run(axes, reason)
        return figure
    side = images.images.shape[-1] // config.model.arguments["patch_size"]
    dropping = protocol_of(record, "occlusion")
    figure = _sheet(images, side, dropping, protocol_of(results.records[SHUFFLING], "shuffling"))
    seed = f"seed {dropping['seed']} of the evaluation, its first draw"
    figure.suptitle(
        f"First test images, {seed}; ×: set to zero. {formatting.badge(results.scale, record)}",
        fontsize=10,
    )
    return figure


def _sheet(images: ImageSet, side: int, dropping: Mapping[str, Any], shuffling: Mapping[str, Any]) -> Figure:
    """A line per image: clean, random patches dropped at each of `SHOWN_LOSSES`, shuffled on each grid."""
    pictures, samples = images.images[:SHOWN].float() / 255, len(images)
    made: list[tuple[str, Tensor, tuple[int, int], Tensor | None]] = [("clean", pictures, (1, 1), None)]
    for loss in SHOWN_LOSSES:
        keep = kept_patches(dropping, samples, side, loss)
        made.append((f"{loss} % dropped", apply_drop(pictures, keep), (side, side), ~keep))
    for patches in (grid for grid in shuffling["grids"] if grid > 1):
        shuffled = shuffle_grid(pictures, patch_order(shuffling, samples, patches), *GRIDS[patches])
        made.append((f"{patches} shuffled", shuffled, GRIDS[patches], None))
    size = (1.3 * len(made), 1.3 * len(pictures) + 0.6)
    figure, axes = plt.subplots(len(pictures), len(made), figsize=size, squeeze=False)
    for column, (title, batch, (rows, columns), gone) in enumerate(made):
        axes[0, column].set_title(title, fontsize=9)
        for line, picture in enumerate(batch):
            draw_picture(axes[line, column], picture, rows, columns, None if gone is None else gone[line])
    for line, label in enumerate(images.labels[:SHOWN].tolist()):
        name = images.class_names[label] if images.class_names else f"class {label}"
        axes[line, 0].set_ylabel(name.replace("_", " "), fontsize=9)
    return figure
