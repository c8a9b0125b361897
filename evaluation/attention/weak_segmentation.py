"""Driver of Table 5, masks: Jaccard index of the best head's attention mask with each object (evaluation.md 7).

Pascal VOC 2012's validation images at 512 pixels for ImageNet models; shapes, whose masks are exact, at their own size.
"""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchvision.datasets import VOCSegmentation

from evaluation.attention.localisation import attention_grid, enlarged, foreground, jaccard
from evaluation.evaluation import Outcome
from evaluation.images import Card, Device, batches, class_masks, resident_batches, squeeze_transform, test_images
from training.attention import check_class_attention
from training.data.files import data_root
from training.data.sets import is_resident

VOC_SIZE = 512


def drive(model: nn.Module, card: Card, arguments: Mapping[str, Any], device: Device) -> Outcome:
    """Mean Jaccard index over images, with void pixels in the union as published, and without them.

    Arguments: "mass", the share of the attention that a mask holds (published: 0.9).
    """
    check_class_attention(model)
    resident = is_resident(card["data"])
    reader = model if resident else _at_voc_size(model)
    found: dict[bool, list[float | None]] = {False: [], True: []}
    for images, targets in _resident(card) if resident else batches(_Voc(card), 16):
        attention = attention_grid(reader, images.to(device))
        kept = foreground(attention.reshape(*attention.shape[:2], -1), arguments["mass"]).reshape(attention.shape)
        masks = enlarged(kept, images.shape[-1] // attention.shape[-1])
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


class _Voc(Dataset[tuple[Tensor, Tensor]]):
    """Pascal VOC 2012 val as (normalised image, classes uint8 [512, 512]); bilinear and nearest."""

    def __init__(self, card: Card) -> None:
        root = data_root()
        try:
            self.pictures = VOCSegmentation(str(root), year="2012", image_set="val", download=False)
        except (RuntimeError, OSError) as error:
            raise ValueError(
                f"Pascal VOC 2012 is not in {root / 'VOCdevkit' / 'VOC2012'} ({error}): unpack "
                f"VOCtrainval_11-May-2012.tar there, or set LUMIX_DATA"
            ) from error
        self.transform = squeeze_transform(VOC_SIZE, card["mean"], card["std"])

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, target = self.pictures[index]
        classes = np.array(target.resize((VOC_SIZE, VOC_SIZE), Image.Resampling.NEAREST), dtype=np.uint8)
        return self.transform(image), torch.from_numpy(classes)


def _at_voc_size(model: nn.Module) -> nn.Module:
    """A copy for 512 pixels: patch positions interpolated bicubically, the class token's kept."""
    larger = copy.deepcopy(model)
    larger.set_input_size(img_size=(VOC_SIZE, VOC_SIZE))  # type: ignore[operator]
    return larger
