"""Driver of Table 5, boxes: how well boxes drawn from class attention fit the true ones, over the declared grid.

The images are squeezed whole to the model's size, and boxes with them: no crop may cut an object. Small sets bring
their boxes along (exact ones for shapes, annotated ones for Tiny-ImageNet); ImageNet's come from its XML files.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from evaluation.attention.localisation import Boxes, Setting, attention_grid, best_fit, box_fits, mean_fits
from evaluation.evaluation import Outcome
from evaluation.images import Card, Device, batches, resident_batches, squeeze_transform, test_images
from evaluation.models import public_model
from training.attention import check_class_attention
from training.data.files import ClassFolders, data_root
from training.data.sets import is_resident

EXAMPLES = 6  # images whose attention is kept for the figure
BOXES = "ILSVRC2012_bbox_val_v3"  # folder of XML files within imagenet/

Batches = Iterator[tuple[Tensor, list[Boxes]]]  # normalised images, and the true boxes of each
Floats = NDArray[np.float64]


def drive(model: nn.Module, card: Card, arguments: Mapping[str, Any], device: Device) -> Outcome:
    """Mean IoU of boxes in percent: "iou" of the chosen setting, "iou_mean_head" of the start point with the attention
    averaged over heads, and "whole_image" of the box around everything.

    The array "grid_iou" [masses, 2 + heads, regions] has every declared setting, in the order of
    `localisation.declared_grid`; the fact "setting" names the chosen one.

    Arguments are either "setting", a name such as 0.9/best/all, or the freezing rule: "public_weights", a timm model
    with weights, and "reference", the paper's value for it; the setting that comes closest on it is the one reported.
    """
    setting = arguments.get("setting") or _frozen(arguments, card, device)
    fits, whole, examples = _fits(model, card, device)
    grid = mean_fits(fits)
    if setting not in grid:
        raise ValueError(f"setting {setting!r} is not in the declared grid; it begins with {Setting().name}")
    values = {"iou": grid[setting], "iou_mean_head": grid[Setting(head="mean").name]}
    values["whole_image"] = 100 * float(whole.mean())
    arrays = {"example_attention": examples, "grid_iou": 100 * fits.mean(-1)}
    return Outcome(values, len(whole), arrays, {"setting": setting})


def _frozen(arguments: Mapping[str, Any], card: Card, device: Device) -> str:
    """The declared setting that comes closest to the paper on the public weights; of equally close ones the first."""
    grid = mean_fits(_fits(public_model(arguments["public_weights"]).to(device).eval(), card, device)[0])
    return min(grid, key=lambda name: abs(grid[name] - arguments["reference"]))


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
        top, bottom, left, right = part.boxes.double().unbind(1)
        yield pixels, list(torch.stack((left, top, right, bottom), 1).unsqueeze(1).numpy())


class _Pictures(ClassFolders):
    """ImageNet's validation images with their boxes, both squeezed to `size` x `size`."""

    def __init__(self, root: Path, boxes: Path, card: Card) -> None:
        super().__init__(root, squeeze_transform(card["image_size"], card["mean"], card["std"]))
        if not boxes.is_dir():
            raise ValueError(
                f"{boxes} is missing: unpack ILSVRC2012_bbox_val_v3.tgz there (val/*.xml or *.xml), or set LUMIX_DATA"
            )
        self.boxes = boxes / "val" if (boxes / "val").is_dir() else boxes
        self.size = card["image_size"]

    def __getitem__(self, index: int) -> tuple[Tensor, Boxes]:
        path = Path(self.samples[index][0])
        picture = self.loader(str(path))
        width, height = picture.size
        boxes = read_boxes(self.boxes / f"{path.stem}.xml")
        assert self.transform is not None
        return self.transform(picture), boxes * (self.size / np.array([width, height, width, height]))


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
    for samples in batches(_Pictures(root / "val", root / BOXES, card), 256, list):
        pictures, boxes = zip(*samples, strict=True)
        yield torch.stack(pictures), list(boxes)
