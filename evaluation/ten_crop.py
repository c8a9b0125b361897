"""Ten-crop evaluation: the four corners and the centre of an image, each as it is and mirrored, judged together."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.transforms.functional import ten_crop

from evaluation.evaluation import Outcome
from evaluation.images import Card, Device, batches, correct, squeeze_transform
from lumix.functional import at_least_float32
from training.data.files import file_set
from training.data.sets import is_resident


@torch.no_grad()
def ten_crop_logits(model: Callable[[Tensor], Tensor], images: Tensor, size: int) -> Tensor:
    """The sum [B, C] of a classifier's logits over torchvision's ten crops of `size` x `size` of images [B, 3, H, W],
    one after the other, float32 or wider."""
    logits = (model(crop) for crop in ten_crop(images, [size, size]))
    return torch.stack([at_least_float32(each) for each in logits]).sum(dim=0)


def drive(model: nn.Module, card: Card, arguments: Mapping[str, Any], device: Device) -> Outcome:
    """Top-1 over ten crops of the size that the model was trained on, of a test set that is read from files.

    Arguments: "resize", side in pixels to which an image is brought first, its aspect given up as Self-Tuning has it.
    """
    if is_resident(card["data"]):
        raise ValueError(f"ten crops are of images read from files, and {card['data']} is held in memory")
    files = file_set(card["data"], "val", squeeze_transform(arguments["resize"], card["mean"], card["std"]))
    hits = 0
    for images, labels in batches(files, 32):
        logits = ten_crop_logits(model, images.to(device), card["image_size"])
        hits += int(correct(logits, labels.to(device)).sum())
    return Outcome({"top1": 100 * hits / len(files)}, len(files))
