"""Boxes from class attention against the true ones (Table 5), over a declared grid of settings.

A box is the tight one around the patches of a mask, (x1, y1, x2, y2), half-open, in pixels. Images are squeezed whole
to the model's size, and boxes with them: no crop may cut an object. Sets in memory bring boxes; ImageNet has XML files.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn
from torchvision.ops import box_iou

from evaluation.evaluation import Outcome
from evaluation.foreground import Masks, attention_grid, foreground
from evaluation.images import Card, Device, batches, resident_batches, squeeze_transform, test_images
from evaluation.models import public_model
from lumix.integrations.attention import check_class_attention
from training.data.files import ClassFolders, data_root
from training.data.sets import boxes_of, is_resident

# What the paper leaves open: the share of the attention that a mask holds; which head ("best" is the one that fits
# best, image by image, "mean" averages attention, a number is one head); all its patches or their largest component.
MASSES, REGIONS = (0.5, 0.6, 0.7, 0.8, 0.9), ("all", "largest")
START, MEAN_HEAD = "0.9/best/all", "0.9/mean/all"
EXAMPLES = 6  # images whose attention is kept for the figure
BOXES = "ILSVRC2012_bbox_val_v3"  # folder of XML files within imagenet/

Floats = NDArray[np.float64]
Boxes = NDArray[np.float64]
Batches = Iterator[tuple[Tensor, list[Boxes]]]  # normalised images, and the true boxes of each


def declared_grid(heads: int) -> list[str]:
    """Every setting for a model with `heads` heads, as mass/head/region."""
    names = ("mean", "best", *map(str, range(heads)))
    return [f"{mass:g}/{head}/{region}" for mass, head, region in itertools.product(MASSES, names, REGIONS)]


def largest_component(mask: Masks) -> Masks:
    """The 4-connected component of a mask [R, C] with most patches; of equally large ones the first by rows."""
    labels, _ = ndimage.label(mask)
    sizes = np.bincount(labels[mask])
    return np.asarray(labels == sizes.argmax())


def boxes_around(masks: Masks, patch: int) -> Boxes:
    """The tight box [N, 4] around the patches of masks [N, R, C], each with a patch at least."""
    sides = boxes_of(torch.from_numpy(masks.astype(np.uint8)))  # top, bottom, left, right
    return patch * sides[:, [2, 0, 3, 1]].double().numpy()


def best_fit(boxes: Boxes, truth: Boxes) -> Floats:
    """The largest intersection over union, [N] in [0, 1], of each of boxes [N, 4] with one of truth [K, 4]."""
    return box_iou(torch.from_numpy(boxes), torch.from_numpy(truth)).amax(1).numpy()


def box_fits(attention: Floats, truth: Sequence[Boxes], patch: int) -> Floats:
    """The best IoU in [0, 1] over the true boxes [K, 4] of each image, [masses, 2 + heads, regions, N] in the order of
    `declared_grid`, by attention [N, heads, R, C] over patches of `patch` pixels a side."""
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


def mean_fits(fits: Floats) -> dict[str, float]:
    """Mean over images in percent, by the name of the setting, of the fits that `box_fits` found."""
    return dict(zip(declared_grid(fits.shape[1] - 2), (100 * fits.mean(-1)).ravel().tolist(), strict=True))


def drive(model: nn.Module, card: Card, arguments: Mapping[str, Any], device: Device) -> Outcome:
    """Mean IoU of boxes in percent: "iou" of the chosen setting, "iou_mean_head" of the start point with the attention
    averaged over heads, "whole_image" of the box around everything; the array "grid_iou" [masses, 2 + heads, regions].

    Arguments are either "setting", a name of `declared_grid`, or "public_weights", a timm model with weights, and
    "reference", the paper's value for it: then the first setting that comes closest on it is reported. It is a fact.
    """
    setting = arguments.get("setting")
    if not setting:
        public = mean_fits(_fits(public_model(arguments["public_weights"]).to(device).eval(), card, device)[0])
        setting = min(public, key=lambda name: abs(public[name] - arguments["reference"]))
    fits, whole, examples = _fits(model, card, device)
    grid = mean_fits(fits)
    if setting not in grid:
        raise ValueError(f"setting {setting!r} is not in the declared grid; it begins with {START}")
    values = {"iou": grid[setting], "iou_mean_head": grid[MEAN_HEAD], "whole_image": 100 * float(whole.mean())}
    arrays = {"example_attention": examples, "grid_iou": 100 * fits.mean(-1)}
    return Outcome(values, len(whole), arrays, {"setting": setting})


def _fits(model: nn.Module, card: Card, device: Device) -> tuple[Floats, Floats, NDArray[np.float32]]:
    """IoU of each image under each setting and of the whole image's box, and the first images' attention."""
    check_class_attention(model)
    size = card["image_size"]
    everything = np.array([[0.0, 0.0, size, size]])
    parts: list[Floats] = []
    whole: list[float] = []
    examples: list[NDArray[np.float32]] = []
    for images, truth in _resident(card) if is_resident(card["data"]) else _imagenet(card):
        attention = attention_grid(model, images.to(device))
        parts.append(box_fits(attention, truth, size // attention.shape[2]))
        whole += [best_fit(everything, boxes).item() for boxes in truth]
        examples = examples or [attention[:EXAMPLES].astype(np.float32)]
    return np.concatenate(parts, axis=-1), np.array(whole), examples[0]


def _resident(card: Card) -> Batches:
    images = test_images(card)
    if images.boxes is None:
        raise ValueError(f"{card['data']} has no boxes: use shapes, tiny_imagenet or imagenet")
    for pixels, part in resident_batches(images, card):
        assert part.boxes is not None
        yield pixels, list(part.boxes.double()[:, None, [2, 0, 3, 1]].numpy())


class _Pictures(ClassFolders):
    """ImageNet's validation images with their boxes from a folder, both squeezed to one square."""

    boxes: Path

    def __getitem__(self, index: int) -> tuple[Tensor, Boxes]:
        path = Path(self.samples[index][0])
        picture = self.loader(str(path))
        assert self.transform is not None
        image, boxes = self.transform(picture), read_boxes(self.boxes / f"{path.stem}.xml")
        return image, boxes * (image.shape[-1] / np.array([*picture.size, *picture.size]))


def read_boxes(path: Path) -> Boxes:
    """The boxes [K, 4] in an XML file of ImageNet, in pixels of the original picture; ValueError where none is read."""
    try:
        found = [
            [float(box.findtext(side, "")) for side in ("xmin", "ymin", "xmax", "ymax")]
            for box in ElementTree.parse(path).iter("bndbox")
        ]
    except (OSError, ElementTree.ParseError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as boxes ({error}): replace it by a fresh copy") from error
    if not found:
        raise ValueError(f"{path} has no box: replace it by a fresh copy")
    return np.array(found)


def _imagenet(card: Card) -> Batches:
    root = data_root() / "imagenet"
    pictures = _Pictures(root / "val", squeeze_transform(card["image_size"], card["mean"], card["std"]))
    boxes = root / BOXES
    if not boxes.is_dir():
        raise ValueError(
            f"{boxes} is missing: unpack ILSVRC2012_bbox_val_v3.tgz there (val/*.xml or *.xml), or set LUMIX_DATA"
        )
    pictures.boxes = boxes / "val" if (boxes / "val").is_dir() else boxes
    for samples in batches(pictures, 256, list):
        images, truth = zip(*samples, strict=True)
        yield torch.stack(images), list(truth)
