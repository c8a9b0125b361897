"""Image sets of Table 8: ImageNet-A and -O from files, and stand-ins for small data made by the same recipe.

ImageNet-A are pictures of 200 known classes that a fixed reference model gets wrong; ImageNet-O are pictures of unknown
classes that it takes for known ones with confidence. A stand-in filters another pool by a reference model of the same
scale: fresh scenes of shapes and shapes never trained on (mini), CIFAR-100's test set and Tiny-ImageNet (lab).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from evaluation.images import Card, Device, normalised, test_images
from evaluation.natural.calibration import class_probabilities
from training.data.files import data_root
from training.data.sets import SHAPES_SIZE, ImageSet, shapes, tiny_imagenet

Floats = NDArray[np.float32]

NATURAL_SEED, UNKNOWN_SEED = 2, 3  # of fresh scenes; 0 and 1 are the training and the test set

# Classes of Tiny-ImageNet that show a class of CIFAR-100 (a goldfish is an aquarium fish), by our own reading of names.
SHARED_WITH_CIFAR100 = frozenset(
    """
    n01443537 n01698640 n01742172 n01774384 n01774750 n01944390 n01983481 n01984695 n02129165 n02132136 n02165456
    n02206856 n02233338 n02279972 n02281406 n02403003 n02437312 n02481823 n02504458 n02793495 n02823428 n02917067
    n03042490 n03085013 n03179701 n03201208 n03393912 n03637318 n03649909 n03902125 n03937543 n03983396 n04008634
    n04099969 n04146614 n04275548 n04311004 n04328186 n04366367 n04417672 n04465501 n04487081 n04532670 n07579787
    n07720875 n07734744 n07747607 n07920052 n09193705 n09332890 n09428293
    """.split()  # noqa: SIM905 - a list of one name a line would fill the page
)


class NaturalSets(NamedTuple):
    """Images uint8 [N, C, H, W]; labels count among the kept classes."""

    natural: Tensor  # of the kept `classes`, all of them wrong by the reference model
    labels: Tensor
    inside: Tensor  # clean test images of `known_classes`
    outside: Tensor  # of unknown classes, those that the reference model is surest about


def stand_ins(card: Card, arguments: Mapping[str, Any], reference: nn.Module, device: Device) -> NaturalSets:
    """The sets for a model of small images.

    Args:
        card: of the model under test.
        arguments: "classes" and "known_classes", the kept classes of the natural and of the clean images; "pool", the
            number of fresh scenes of shapes (other data have but their test set); "unknown_pool", the unknown images
            that are looked at; "share", the unknown images that are kept for each clean one.
        reference: a trained model of the same data.

    Raises:
        ValueError: for data without a recipe, or a pool too small.
    """
    pool, inside, unknown = _pools(card, arguments)
    of_classes = _only(pool, arguments["classes"])
    logits = logits_of_images(reference, of_classes.images, card, device)[:, arguments["classes"]]
    wrong = torch.from_numpy(logits.argmax(1)) != of_classes.labels
    inside = _only(inside, arguments["known_classes"])
    wanted = round(len(inside) * arguments["share"])
    if len(unknown) < wanted:
        raise ValueError(f"{wanted} images of unknown classes are wanted and the pool has {len(unknown)}: enlarge it")
    sure = class_probabilities(logits_of_images(reference, unknown, card, device), arguments["known_classes"]).max(1)
    surest = np.argsort(-sure, kind="stable")[:wanted]
    return NaturalSets(of_classes.images[wrong], of_classes.labels[wrong], inside.images, unknown[surest])


def _pools(card: Card, arguments: Mapping[str, Any]) -> tuple[ImageSet, ImageSet, Tensor]:
    """Images to filter by the reference, clean test images, and images of unknown classes."""
    name, test = card["data"], test_images(card)
    if name == "shapes":
        factor = card["image_size"] // SHAPES_SIZE
        fresh = shapes(arguments["pool"], seed=NATURAL_SEED).enlarged(factor)
        unknown = shapes(arguments["unknown_pool"], seed=UNKNOWN_SEED, family="unseen shapes").enlarged(factor)
        return fresh, test, unknown.images
    if name == "cifar100":
        return test, test, _unknown_to_cifar100(arguments["unknown_pool"], card["image_size"])
    raise ValueError(f"there is no natural-adversarial stand-in for {name}: use shapes, cifar100 or imagenet")


def _unknown_to_cifar100(count: int, size: int) -> Tensor:
    """The first `count` training images of Tiny-ImageNet whose class CIFAR-100 has not, averaged down to 32 pixels."""
    train = tiny_imagenet(data_root())[0]
    own = torch.tensor([wnid not in SHARED_WITH_CIFAR100 for wnid in train.class_names])
    images = train.images[own[train.labels].nonzero().squeeze(1)[:count]]
    small = torch.nn.functional.avg_pool2d(images.float(), 2).round().to(torch.uint8)
    return small.repeat_interleave(size // 32, 2).repeat_interleave(size // 32, 3)


def _only(images: ImageSet, classes: Sequence[int]) -> ImageSet:
    """The images of some classes, their labels counted among these."""
    place = torch.full((images.num_classes,), -1, dtype=torch.int64)
    place[list(classes)] = torch.arange(len(classes))
    labels = place[images.labels]
    kept = (labels >= 0).nonzero().squeeze(1)
    return ImageSet(images.images[kept], labels[kept], len(classes), images.mean, images.std)


def logits_of_images(model: nn.Module, images: Tensor, card: Card, device: Device) -> Floats:
    """Logits [N, C] of uint8 images, normalised as the card says."""
    return logits_of(model, (normalised(part.to(device), card) for part in images.split(1000)), device)


@torch.inference_mode()
def logits_of(model: nn.Module, batches: Iterable[Tensor], device: Device) -> Floats:
    """Logits [N, C] of batches of normalised images."""
    return torch.cat([model(images.to(device)).float().cpu() for images in batches]).numpy()
