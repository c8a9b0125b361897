"""Driver of Table 8: accuracy and calibration on natural adversarial images, detection of unknown ones."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import Subset

from evaluation.evaluation import Outcome
from evaluation.images import Card, Device, batches, robustness_transform
from evaluation.models import second_model
from evaluation.natural import calibration
from evaluation.natural.stand_ins import Floats, logits_of, logits_of_images, stand_ins
from training.data.files import ClassFolders, data_root

CURVE_POINTS = 40  # of the response rate, for the figure
# Sum of the places of the 200 classes of ImageNet-A and -O among ImageNet's 1000, which tells a complete copy.
CHECKS = {"imagenet-a": 102178, "imagenet-o": 134542}


def drive(model: nn.Module, card: Card, arguments: Mapping[str, Any], device: Device) -> Outcome:
    """Every number of Table 8 for one model.

    ImageNet models take no arguments; others those of `stand_ins` and "reference", a trained model of the same data
    that filters the pools and is not the one under test.
    The outcome counts natural, clean and unknown images together; each count is among the values.
    """
    if card["data"] == "imagenet":
        return _on_imagenet(model, card, device)
    if arguments["reference"]["key"] == card["key"]:
        raise ValueError(f"{card['key']} cannot filter the images that it is tested on: choose another reference")
    sets = stand_ins(card, arguments, second_model(arguments["reference"], card, device), device)
    natural, inside, outside = (
        logits_of_images(model, images, card, device) for images in (sets.natural, sets.inside, sets.outside)
    )
    return measure(natural, sets.labels.numpy(), arguments["classes"], inside, outside, arguments["known_classes"])


def measure(
    natural: Floats,
    labels: NDArray[np.int64],
    classes: Sequence[int],
    inside: Floats,
    outside: Floats,
    known: Sequence[int],
) -> Outcome:
    """The metrics of logits: natural [N, C] with labels [N] among `classes`; clean [M, C] and unknown [K, C] images."""
    confidence, correct = calibration.predictions(natural, labels, classes)
    response = calibration.response_accuracy(confidence, correct)
    ranks = np.ceil(np.arange(1, CURVE_POINTS + 1) * len(response) / CURVE_POINTS).astype(np.int64) - 1
    doubts = (-calibration.class_probabilities(logits, known).max(axis=1) for logits in (inside, outside))
    counts = {"natural_images": len(natural), "clean_images": len(inside), "unknown_images": len(outside)}
    values = {
        "top1": 100 * float(correct.mean()),
        "calibration_error": calibration.rms_calibration_error(confidence, correct),
        "calibration_error_all_bins": calibration.rms_calibration_error(confidence, correct, all_bins=True),
        "aurra": float(response.mean()),
    }
    diagram = {f"reliability_{name}": values for name, values in calibration.reliability(confidence, correct).items()}
    arrays = diagram | {"response_accuracy": response[ranks]}
    return Outcome(values | calibration.detection(*doubts) | counts, sum(counts.values()), arrays)


def _on_imagenet(model: nn.Module, card: Card, device: Device) -> Outcome:
    """On ImageNet-A, and on ImageNet-O against the validation images of the latter's 200 classes."""
    transform = robustness_transform(card["image_size"], card["mean"], card["std"])
    folders = ("imagenet-a", "imagenet-o", "imagenet/val")
    natural, unknown, clean = (ClassFolders(data_root() / name, transform) for name in folders)
    classes = class_indices("imagenet-a", natural.classes, clean.classes)
    known = class_indices("imagenet-o", unknown.classes, clean.classes)
    kept: Subset[Any] = Subset(clean, np.flatnonzero(np.isin(clean.targets, known)).tolist())
    of_natural, inside, outside = (
        logits_of(model, (images for images, _ in batches(pictures, 256)), device)
        for pictures in (natural, kept, unknown)
    )
    return measure(of_natural, np.array(natural.targets), classes, inside, outside, known)


def class_indices(name: str, kept: Sequence[str], known: Sequence[str]) -> list[int]:
    """Places of the class folders of ImageNet-A or -O among ImageNet's; ValueError for a copy that is not complete."""
    place = {wnid: index for index, wnid in enumerate(known)}
    indices = [place[wnid] for wnid in kept if wnid in place]
    if (len(known), len(kept), sum(indices)) != (1000, 200, CHECKS[name]):
        raise ValueError(
            f"{name} has {len(kept)} class folders with index sum {sum(indices)} among {len(known)} of imagenet/val, "
            f"not 200 with {CHECKS[name]} among 1000: replace it by a complete copy"
        )
    return indices
