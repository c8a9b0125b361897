"""The figure of Table 4: test scenes, their true classes, and what each model makes of them."""

from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import style
from evaluated import arrays_of
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from evaluation.scenes import IGNORE, Scenes, load_scenes
from evaluation.segmentation import thinning
from report import formatting
from report.load import Results

SEGMENTATION = "lumix_table04_segmentation"
ROWS = {"deeplab": "DeepLabV3+", "segmenter": "Segmenter", "segmenter_lumix": "Segmenter,\nLUMix"}


def class_colours(count: int) -> ListedColormap:
    """A colour for each class; class 0, the background or the sky, is dark grey."""
    wheel = mpl.colormaps["tab20"](np.arange(max(0, count - 1)) % 20)
    return ListedColormap(np.vstack([[0.2, 0.2, 0.2, 1.0], wheel]))


def draw_classes(axes: Axes, labels: np.ndarray, colours: ListedColormap) -> None:
    """Classes as flat colours; what does not count is left white."""
    shown = np.ma.masked_equal(labels, IGNORE)
    axes.imshow(shown, cmap=colours, vmin=-0.5, vmax=colours.N - 0.5, interpolation="nearest")


def segmentations_of(record: dict[str, Any] | None) -> dict[str, np.ndarray]:
    """Row of the table -> the segmentations [N, H, W] of the first test scenes that its model of seed 0 made."""
    arrays = {row: arrays_of(record, row, "miou").get("0") for row in ROWS}
    return {row: kept["examples"] for row, kept in arrays.items() if kept}


def segmentations(results: Results) -> Figure:
    """Table 4: the first test scenes, the truth, and the segmentation of each model at one scale, seed 0."""
    record = results.records.get(SEGMENTATION)
    found = segmentations_of(record)
    scenes: Scenes | None = None
    reason = f"no results of {SEGMENTATION} at {results.scale} scale"
    if found and record:
        recipe = next(iter(record["evaluations"].values()))["arguments"]["recipe"]
        try:
            scenes = load_scenes(recipe["data"])[1]
        except ValueError as error:  # read from files that are not here
            reason = str(error).split(":")[0]
    if scenes is None:
        figure, axes = plt.subplots(figsize=(8, 2))
        style.say_not_run(axes, reason)
        return figure
    figure = _grid(scenes, found)
    figure.suptitle(f"First test scenes, seed 0, one scale. {formatting.badge(results.scale, record)}", fontsize=10)
    return figure


def _grid(scenes: Scenes, found: dict[str, np.ndarray]) -> Figure:
    count = min(len(kept) for kept in found.values())
    figure, grid = plt.subplots(2 + len(found), count, figsize=(1.5 * count + 0.8, 1.5 * (2 + len(found)) + 0.9))
    grid = grid.reshape(2 + len(found), count)
    colours, present = class_colours(scenes.num_classes), set()
    for index in range(count):
        image, truth = scenes[index]
        step = thinning(truth.shape)
        true = truth.numpy()[::step, ::step]
        drawn = [true, *(kept[index][: true.shape[0], : true.shape[1]] for kept in found.values())]
        grid[0, index].imshow(image.permute(1, 2, 0).numpy())
        for axes, labels in zip(grid[1:, index], drawn, strict=True):
            draw_classes(axes, labels, colours)
            present |= set(np.unique(labels).tolist()) - {IGNORE}
    for axes in grid.flat:
        axes.set_xticks([])
        axes.set_yticks([])
        axes.grid(visible=False)
    for axes, name in zip(grid[:, 0], ("scene", "truth", *(ROWS[row] for row in found)), strict=True):
        axes.set_ylabel(name, fontsize=9)
    names = scenes.class_names or [f"class {index}" for index in range(scenes.num_classes)]
    keys = [Patch(color=colours(c), label=names[c].replace("_", " ")) for c in sorted(present)]
    figure.legend(handles=keys, loc="outside lower center", ncols=6, frameon=False, fontsize=8)
    return figure
