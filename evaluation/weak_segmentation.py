"""Jaccard index of the best head's attention mask with each object (Table 5).

Pascal VOC 2012's validation images at 512 pixels for ImageNet models; shapes, whose masks are exact, at their own size.
"""

import copy
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torchvision.datasets import VOCSegmentation
from torchvision.transforms import Compose

from evaluation.evaluation import Outcome
from evaluation.foreground import Masks, attention_grid, foreground
from evaluation.images import Card, Device, batches, class_masks, resident_batches, squeeze_transform, test_images
from lumix.integrations.attention import check_class_attention
from training.data.files import data_root
from training.data.sets import is_resident

VOC_SIZE = 512
BACKGROUND, VOID = 0, 255


def jaccard(masks: Masks, target: NDArray[np.uint8], exclude_void: bool = False) -> float | None:
    """Intersection over union of the best head, averaged over the object classes in one image, in percent; or None.

    Masks are [heads, H, W] bool, the target [H, W] is the class of each pixel, 0 background, 255 void. The published
    script means to leave void pixels out (`exclude_void`) and does not: they count in the union."""
    found = masks & (target != VOID) if exclude_void else masks
    best = []
    for value in np.setdiff1d(target, (BACKGROUND, VOID)):
        region = target == value
        inter, union = (found & region).sum((1, 2)), (found | region).sum((1, 2))
        best.append(float((inter / union).max()))  # the union holds at least the region, which is not empty
    return 100 * sum(best) / len(best) if best else None


def drive(model: nn.Module, card: Card, arguments: Mapping[str, Any], device: Device) -> Outcome:
    """Mean Jaccard index over images, with void pixels in the union as published, and without them; argument "mass",
    the share of the attention that a mask holds (published: 0.9)."""
    check_class_attention(model)
    found: dict[bool, list[float | None]] = {False: [], True: []}
    if not is_resident(card["data"]):
        model = copy.deepcopy(model)  # patch positions are interpolated bicubically, the class token's is kept
        model.set_input_size(img_size=(VOC_SIZE, VOC_SIZE))  # type: ignore[operator]
    for images, targets in _resident(card) if is_resident(card["data"]) else batches(_voc(card), 16):
        attention = attention_grid(model, images.to(device))
        kept = foreground(attention.reshape(*attention.shape[:2], -1), arguments["mass"]).reshape(attention.shape)
        factor = images.shape[-1] // attention.shape[-1]
        masks = kept.repeat(factor, axis=-2).repeat(factor, axis=-1)
        for exclude, values in found.items():
            values += [jaccard(mask, target, exclude) for mask, target in zip(masks, targets.numpy(), strict=True)]
    published, without_void = ([value for value in values if value is not None] for values in found.values())
    means = {"jaccard": float(np.mean(published)), "jaccard_exclude_void": float(np.mean(without_void))}
    return Outcome(means | {"skipped": len(found[False]) - len(published)}, len(published))


def _resident(card: Card) -> Iterator[tuple[Tensor, Tensor]]:
    """Normalised images and targets uint8 [B, H, W]."""
    images = test_images(card)
    if images.masks is None:
        raise ValueError(f"{card['data']} has no masks: use shapes, or an ImageNet model for Pascal VOC")
    for pixels, part in resident_batches(images, card):
        yield pixels, class_masks(part)


def _voc(card: Card) -> VOCSegmentation:
    """Pascal VOC 2012 val as (normalised image, classes uint8 [512, 512]); bilinear and nearest."""
    squeeze = partial(_squeezed, squeeze_transform(VOC_SIZE, card["mean"], card["std"]))
    try:
        return VOCSegmentation(str(data_root()), year="2012", image_set="val", transforms=squeeze)
    except (RuntimeError, OSError) as error:
        raise ValueError(
            f"Pascal VOC 2012 is not in {data_root() / 'VOCdevkit' / 'VOC2012'} ({error}): unpack "
            f"VOCtrainval_11-May-2012.tar there, or set LUMIX_DATA"
        ) from error


def _squeezed(transform: Compose, image: Image.Image, target: Image.Image) -> tuple[Tensor, Tensor]:
    classes = np.array(target.resize((VOC_SIZE, VOC_SIZE), Image.Resampling.NEAREST), dtype=np.uint8)
    return transform(image), torch.from_numpy(classes)
