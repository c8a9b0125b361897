"""What the robustness protocols share: test images in [0, 1] by batch, normalisation, counts of correct answers.

Corruptions act on pixels in [0, 1], before normalisation (P-rob of Naseer et al.).
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Subset

from evaluation.images import Card, Device, batches, robustness_transform, test_images
from training.data.files import file_set
from training.data.sets import is_resident
from training.rng import stream_seed

DRAWS = ("per_batch", "per_image")


def pixel_batches(
    card: Card, device: Device, batch_size: int, shuffle_seed: int | None = None
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """The batches of the test set: place of the batch, images [B, C, S, S] in [0, 1], labels [B] int64.

    The images come in the order of the set, or shuffled once by a seed. Sets in memory come as they are, those
    read from files through P-rob.
    """
    resident = test_images(card) if is_resident(card["data"]) else None
    dataset: Any = resident
    if resident is None:
        unnormalised = robustness_transform(card["image_size"], (0.0,) * 3, (1.0,) * 3)
        dataset = file_set(card["data"], "val", unnormalised)
    if not len(dataset):
        raise ValueError(f"the test set of {card['data']} holds no images: put them under the data root")
    order = torch.arange(len(dataset))
    if shuffle_seed is not None:
        order = torch.randperm(len(order), generator=torch.Generator().manual_seed(stream_seed(shuffle_seed, "order")))
    if resident is not None:
        parts = (resident[chosen].to(device) for chosen in order.split(batch_size))
        loaded: Iterator[tuple[Tensor, Tensor]] = ((part.images.float() / 255, part.labels) for part in parts)
    else:
        loaded = batches(Subset(dataset, order.tolist()), batch_size)
    for place, (images, labels) in enumerate(loaded):
        yield place, images.to(device), labels.to(device)


def normaliser(card: Card, device: Device) -> Callable[[Tensor], Tensor]:
    """Images [B, C, H, W] in [0, 1] -> as the model was trained on; differentiable."""
    mean, std = (torch.tensor(card[name], device=device).view(1, -1, 1, 1) for name in ("mean", "std"))
    return lambda images: (images - mean) / std


def correct(logits: Tensor, labels: Tensor) -> Tensor:
    """[B] bool, whether the largest of logits [B, C], of equal ones the first, is that of the label [B]."""
    if not bool(logits.isfinite().all()):
        raise ValueError("the model's scores are not all finite numbers: its weights are damaged")
    return logits.argmax(dim=1) == labels


def percent(count: Tensor | int, samples: int) -> float:
    if samples < 1 or not 0 <= int(count) <= samples:
        raise ValueError(f"{int(count)} of {samples} is no share: there must be samples, and no more hits than samples")
    return 100 * int(count) / samples


@torch.inference_mode()
def count_correct(model: nn.Module, images: Tensor, labels: Tensor) -> int:
    """Correct answers for normalised images."""
    return int(correct(model(images), labels).sum())
