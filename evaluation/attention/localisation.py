"""Where a classifier looks: masks and boxes from its class-token attention, and how well they fit the object (Table 5).

Definitions of evaluation.md 7 and 8. A mask is the smallest set of strongest patches that holds a share of the
attention (`foreground`); its box is the tight one around all kept patches. Boxes are (x1, y1, x2, y2), half-open, in
pixels.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torchvision.ops import box_iou

from training.attention import class_attention
from training.data.sets import boxes_of

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


def token_side(tokens: int) -> int:
    """Side of a square grid of tokens; ValueError where there is none."""
    side = round(tokens**0.5)
    if side * side != tokens:
        raise ValueError(f"{tokens} patches are no square grid")
    return side


@torch.inference_mode()
def attention_grid(model: nn.Module, images: Tensor) -> NDArray[np.float64]:
    """Attention of the class token in the last block, [B, heads, R, C], patches where they are in the image."""
    attention = class_attention(model, images)
    side = token_side(attention.shape[-1])
    return attention.double().cpu().unflatten(-1, (side, side)).numpy()


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


def jaccard(masks: Masks, target: NDArray[np.uint8], exclude_void: bool = False) -> float | None:
    """Intersection over union of the best head, averaged over the object classes in one image, in percent.

    Args:
        masks: [heads, H, W] bool, one mask per head.
        target: [H, W] class of each pixel, 0 background, 255 void.
        exclude_void: leave void pixels out. The published script means to and does not: they count in the union.

    Returns:
        None for an image without object, which the average over images leaves out.
    """
    found = masks & (target != VOID) if exclude_void else masks
    best = []
    for value in np.setdiff1d(target, (BACKGROUND, VOID)):
        region = target == value
        inter, union = (found & region).sum((1, 2)), (found | region).sum((1, 2))
        best.append(float((inter / union).max()))  # the union holds at least the region, which is not empty
    return 100 * sum(best) / len(best) if best else None


def largest_component(mask: Masks) -> Masks:
    """The 4-connected component of a mask [R, C] with most patches; of equally large ones the first by rows."""
    from scipy import ndimage

    labels, _ = ndimage.label(mask)
    sizes = np.bincount(labels[mask])
    return np.asarray(labels == sizes.argmax())


def boxes_around(masks: Masks, patch: int) -> Boxes:
    """The tight box [N, 4] around the patches of masks [N, R, C], each with a patch at least."""
    top, bottom, left, right = boxes_of(torch.from_numpy(masks.astype(np.uint8))).unbind(1)
    return patch * torch.stack((left, top, right, bottom), 1).double().numpy()


def best_fit(boxes: Boxes, truth: Boxes) -> NDArray[np.float64]:
    """The largest intersection over union, [N] in [0, 1], of each of boxes [N, 4] with one of truth [K, 4]."""
    return box_iou(torch.from_numpy(boxes), torch.from_numpy(truth)).amax(1).numpy()


def box_fits(attention: NDArray[np.float64], truth: Sequence[Boxes], patch: int) -> NDArray[np.float64]:
    """The best IoU in [0, 1] over the true boxes, under every setting in the order of `declared_grid`.

    Args:
        attention: [N, heads, R, C] of the class token.
        truth: for each image its boxes [K, 4], K at least 1.
        patch: pixels along the side of a patch.

    Returns:
        [masses, 2 + heads, regions, N].
    """
    images, heads = attention.shape[:2]
    with_mean = np.concatenate((attention, attention.mean(1, keepdims=True)), axis=1)
    found = np.empty((len(MASSES), 2 + heads, len(REGIONS), images))
    for i, mass in enumerate(MASSES):
        kept = foreground(with_mean.reshape(images, heads + 1, -1), mass).reshape(with_mean.shape)
        for (j, region), n in itertools.product(enumerate(REGIONS), range(images)):
            masks = kept[n] if region == "all" else np.stack([largest_component(mask) for mask in kept[n]])
            fit = best_fit(boxes_around(masks, patch), truth[n])
            found[i, :, j, n] = fit[heads], fit[:heads].max(), *fit[:heads]
    return found


def mean_fits(fits: NDArray[np.float64]) -> dict[str, float]:
    """Mean over images in percent, by the name of the setting, of the fits that `box_fits` found."""
    names = [setting.name for setting in declared_grid(fits.shape[1] - 2)]
    return dict(zip(names, (100 * fits.mean(-1)).ravel().tolist(), strict=True))
