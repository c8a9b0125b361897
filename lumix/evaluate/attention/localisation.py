"""Where a classifier looks: masks and boxes from its class-token attention, and how well they fit the object (Table 5).

Definitions of evaluation.md 7 and 8. A mask is the smallest set of strongest patches that holds a share of the
attention (`foreground`); its box is the tight one around all kept patches. Boxes are (x1, y1, x2, y2), half-open, in
pixels. Pure functions of CPU arrays.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Masks = NDArray[np.bool_]
Boxes = NDArray[np.float64]

BACKGROUND, VOID = 0, 255
MASSES = (0.5, 0.6, 0.7, 0.8, 0.9)
REGIONS = ("all", "largest")


@dataclass(frozen=True)
class Setting:
    """One answer to what the paper leaves open about its boxes.

    Attributes:
        mass: share of the attention that the mask holds.
        head: "best" takes the head that fits best, image by image; "mean" averages attention; or a head's index.
        region: "all" kept patches, or their "largest" 4-connected component.
    """

    mass: float = 0.9
    head: str = "best"
    region: str = "all"

    @property
    def name(self) -> str:
        return f"{self.mass:g}/{self.head}/{self.region}"


def declared_grid(heads: int) -> list[Setting]:
    """Every setting of evaluation.md 8 for a model with `heads` heads; the start point is `Setting()`."""
    names = ("mean", "best", *map(str, range(heads)))
    return [Setting(*values) for values in itertools.product(MASSES, names, REGIONS)]


def closest(grid: Mapping[str, float], reference: float) -> str:
    """The name of the setting whose value is closest to `reference`; of equally close ones the first.

    Evaluated once on the public weights, before any model of ours is looked at.
    """
    if not grid:
        raise ValueError("the grid is empty: evaluate the declared settings first")
    return min(grid, key=lambda name: abs(grid[name] - reference))


def foreground(attention: ArrayLike, mass: float) -> Masks:
    """The smallest set of strongest patches that holds `mass` of the attention, bool as `attention`'s shape.

    Args:
        attention: [..., patches], not negative, each row with a positive sum (it is divided by it).
        mass: in [0, 1]. At 1 only patches without any attention are left out, at 0 all are.

    Raises:
        ValueError: for another mass, no patches, values that are negative or not finite, or a row of zeros.
    """
    values = np.asarray(attention, dtype=np.float64)
    if not 0 <= mass <= 1:
        raise ValueError(f"mass must be between 0 and 1, not {mass!r}")
    if not values.size or not np.isfinite(values).all() or (values < 0).any() or (values.sum(-1) <= 0).any():
        raise ValueError("attention must be finite, not negative, and positive somewhere in every row")
    order = np.argsort(values, axis=-1, kind="stable")
    ranked = np.take_along_axis(values, order, -1)
    # Sums to exactly 1 at the end, or rounding would cost the strongest patch at mass 0.
    share = ranked.cumsum(-1) / ranked.sum(-1, keepdims=True)
    share /= share[..., -1:]
    kept = np.empty(values.shape, dtype=np.bool_)
    np.put_along_axis(kept, order, share > 1 - mass, -1)
    return kept


def enlarged(masks: Masks, factor: int) -> Masks:
    """Each patch of [..., R, C] as a square of `factor` pixels."""
    return masks.repeat(factor, axis=-2).repeat(factor, axis=-1)


def jaccard(masks: Masks, target: ArrayLike, exclude_void: bool = False) -> float | None:
    """Intersection over union of the best head, averaged over the object classes in one image, in percent.

    Args:
        masks: [heads, H, W] bool, one mask per head.
        target: [H, W] class of each pixel, 0 background, 255 void.
        exclude_void: leave void pixels out. The published script means to and does not: they count in the union.

    Returns:
        None for an image without object, which the average over images leaves out.

    Raises:
        ValueError: for shapes that differ or masks that are empty arrays.
    """
    truth, found = np.asarray(target), np.asarray(masks, dtype=np.bool_)
    if found.ndim != 3 or not found.size or found.shape[1:] != truth.shape:
        raise ValueError(f"masks {list(found.shape)} must be [heads, H, W] over a target of [H, W] {list(truth.shape)}")
    if exclude_void:
        found = found & (truth != VOID)
    classes = [value for value in np.unique(truth).tolist() if value not in (BACKGROUND, VOID)]
    best = []
    for value in classes:
        region = truth == value
        inter, union = (found & region).sum((1, 2)), (found | region).sum((1, 2))
        best.append(float((inter / union).max()))  # the union holds at least the region, which is not empty
    return 100 * sum(best) / len(best) if best else None


def largest_component(masks: Masks) -> Masks:
    """Of each mask [..., R, C] the 4-connected component with most patches; of equally large ones the first by rows."""
    from scipy import ndimage

    flat = masks.reshape(-1, *masks.shape[-2:])
    within = np.zeros((3, 3, 3), dtype=np.int64)  # neighbours share an edge in one mask, never across masks
    within[1] = ndimage.generate_binary_structure(2, 1)
    labels, count = ndimage.label(flat, within)
    if not count:
        return np.zeros_like(masks)
    sizes = np.bincount(labels.ravel())[1:]
    first = np.unique(labels[labels > 0], return_index=True)[1]  # in reading order, hence mask by mask
    owner = np.nonzero(flat)[0][first]
    order = np.lexsort((first, -sizes, owner))
    winner = np.zeros(len(flat), dtype=np.int64)  # 0, the background's label, wins in an empty mask
    heads = order[np.unique(owner[order], return_index=True)[1]]
    winner[owner[heads]] = heads + 1
    return (flat & (labels == winner[:, None, None])).reshape(masks.shape)


def boxes_around(masks: Masks, patch: int) -> Boxes:
    """The tight box [..., 4] around the patches of masks [..., R, C]; (0, 0, 0, 0) where there is none."""
    sides = []
    for axis in (-2, -1):
        used = np.asarray(masks.any(axis))  # which columns, then which rows
        length = used.shape[-1]
        first, behind = used.argmax(-1), length - used[..., ::-1].argmax(-1)
        sides.append((first, np.where(used.any(-1), behind, first)))
    (left, right), (top, bottom) = sides
    return patch * np.stack((left, top, right, bottom), axis=-1).astype(np.float64)


def box_iou(first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
    """Intersection over union in [0, 1] of boxes [..., 4] and [..., 4], broadcast; 0 where a box has no area.

    Raises:
        ValueError: for another last dimension or NaN.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.shape[-1:] != (4,) or b.shape[-1:] != (4,) or np.isnan(a).any() or np.isnan(b).any():
        raise ValueError(f"boxes must be [..., 4] without NaN, not {list(a.shape)} and {list(b.shape)}")
    low, high = np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])
    inter = (high - low).clip(min=0).prod(-1)
    areas = [(box[..., 2:] - box[..., :2]).clip(min=0).prod(-1) for box in (a, b)]
    union = areas[0] + areas[1] - inter
    # A box turned inside out has area 0; so must be its overlap with anything.
    proper = (areas[0] > 0) & (areas[1] > 0)
    return np.asarray(np.where(proper, inter / np.where(union > 0, union, 1), 0.0))


def box_fits(attention: NDArray[np.float64], truth: Sequence[ArrayLike], patch: int) -> NDArray[np.float64]:
    """The best IoU in [0, 1] over the true boxes, under every setting in the order of `declared_grid`.

    Args:
        attention: [N, heads, R, C] of the class token.
        truth: for each image its boxes [K, 4], K at least 1.
        patch: pixels along the side of a patch.

    Returns:
        [masses, 2 + heads, regions, N].

    Raises:
        ValueError: for an image without box, or attention that `foreground` refuses.
    """
    images, heads = attention.shape[:2]
    true = _padded(truth)
    with_mean = np.concatenate((attention, attention.mean(1, keepdims=True)), axis=1)
    found = np.empty((len(MASSES), 2 + heads, len(REGIONS), images))
    for i, mass in enumerate(MASSES):
        kept = foreground(with_mean.reshape(images, heads + 1, -1), mass).reshape(with_mean.shape)
        for j, region in enumerate(REGIONS):
            boxes = boxes_around(kept if region == "all" else largest_component(kept), patch)
            fit = box_iou(boxes[:, :, None], true[:, None]).max(axis=2).T  # [heads and mean, N]
            found[i, :, j] = np.vstack((fit[heads], fit[:heads].max(0), fit[:heads]))
    return found


def mean_fits(fits: NDArray[np.float64]) -> dict[str, float]:
    """Mean over images in percent, by the name of the setting, of the fits that `box_fits` found."""
    names = [setting.name for setting in declared_grid(fits.shape[1] - 2)]
    return dict(zip(names, (100 * fits.mean(-1)).ravel().tolist(), strict=True))


def _padded(truth: Sequence[ArrayLike]) -> Boxes:
    """True boxes [N, K, 4] for the largest K, filled up with boxes without area, which fit nothing."""
    arrays = [np.asarray(boxes, dtype=np.float64) for boxes in truth]
    if any(boxes.ndim != 2 or not len(boxes) for boxes in arrays):
        raise ValueError("an image has no true box: leave it out")
    padded = np.zeros((len(arrays), max(map(len, arrays)), 4))
    for row, boxes in zip(padded, arrays, strict=True):
        row[: len(boxes)] = boxes
    return padded
