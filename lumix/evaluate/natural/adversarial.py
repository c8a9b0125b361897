"""Driver of Table 8: accuracy and calibration on natural adversarial images, detection of unknown ones."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset

from lumix.evaluate.evaluation import Outcome
from lumix.evaluate.images import batches, robustness_transform
from lumix.evaluate.models import second_model
from lumix.evaluate.natural import calibration, out_of_distribution
from lumix.evaluate.natural.stand_ins import logits_of, logits_of_images, stand_ins
from lumix.evaluate.natural.subsets import class_folders, class_indices
from lumix.train.files import data_root
from lumix.train.folder import ClassFolders

CURVE_POINTS = 40  # of the response rate, for the figure


def drive(
    model: nn.Module, card: Mapping[str, Any], arguments: Mapping[str, Any], device: torch.device | str
) -> Outcome:
    """Every number of Table 8 for one model.

    ImageNet models take no arguments; others those of `stand_ins` and "reference", a trained model of the same data
    that filters the pools and is not the one under test.
    The outcome counts natural, clean and unknown images together; each count is among the values.
    """
    if card["data"] == "imagenet":
        natural, labels, classes = _imagenet_a(model, card, device)
        inside, outside, known = _imagenet_o(model, card, device)
        return measure(natural, labels, classes, inside, outside, known)
    if arguments["reference"]["key"] == card["key"]:
        raise ValueError(f"{card['key']} cannot filter the images that it is tested on: choose another reference")
    return on_stand_ins(model, card, arguments, second_model(arguments["reference"], card, device), device)


def on_stand_ins(
    model: nn.Module,
    card: Mapping[str, Any],
    arguments: Mapping[str, Any],
    reference: nn.Module,
    device: torch.device | str,
) -> Outcome:
    """The same on images that `reference` filters."""
    sets = stand_ins(card, arguments, reference, device)
    if not len(sets.labels):
        raise ValueError("the reference model gets no image of the pool wrong: enlarge the pool")
    natural, inside, outside = (
        logits_of_images(model, images, card, device) for images in (sets.natural, sets.inside, sets.outside)
    )
    return measure(natural, sets.labels, arguments["classes"], inside, outside, arguments["known_classes"])


def measure(
    natural: Tensor, labels: Tensor, classes: Sequence[int], inside: Tensor, outside: Tensor, known: Sequence[int]
) -> Outcome:
    """The metrics of logits: natural [N, C] with labels [N] among `classes`; clean [M, C] and unknown [K, C] images."""
    confidence, correct = calibration.predictions(natural.numpy(), labels.numpy(), classes)
    scores = [out_of_distribution.anomaly_score(logits.numpy(), known) for logits in (inside, outside)]
    error = calibration.rms_calibration_error
    response = calibration.response_accuracy(confidence, correct)
    ranks = np.ceil(np.arange(1, CURVE_POINTS + 1) * len(response) / CURVE_POINTS).astype(np.int64) - 1
    diagram = calibration.reliability(confidence, correct)
    return Outcome(
        values={
            "top1": calibration.accuracy(correct),
            "calibration_error": error(confidence, correct),
            "calibration_error_all_bins": error(confidence, correct, "all_bins"),
            "aurra": calibration.aurra(confidence, correct),
            "aupr": out_of_distribution.aupr(*scores),
            "auroc": out_of_distribution.auroc(*scores),
            "fpr95": out_of_distribution.fpr95(*scores),
            "fpr_at_recall_95": out_of_distribution.fpr_at_recall_95(*scores),
            "natural_images": len(natural),
            "clean_images": len(inside),
            "unknown_images": len(outside),
        },
        n_samples=len(natural) + len(inside) + len(outside),
        arrays={f"reliability_{name}": values for name, values in diagram.items()}
        | {"response_accuracy": response[ranks]},
    )


def _imagenet_a(
    model: nn.Module, card: Mapping[str, Any], device: torch.device | str
) -> tuple[Tensor, Tensor, list[int]]:
    """Logits of the images of ImageNet-A, their labels among its classes, and the classes."""
    folder = data_root() / "imagenet-a"
    classes = class_indices("imagenet-a", class_folders(folder), class_folders(data_root() / "imagenet" / "val"))
    pictures = _pictures(folder, card)
    return _logits(model, pictures, device), torch.tensor(pictures.targets), classes


def _imagenet_o(
    model: nn.Module, card: Mapping[str, Any], device: torch.device | str
) -> tuple[Tensor, Tensor, list[int]]:
    """Logits of the validation images of ImageNet-O's 200 classes, of ImageNet-O itself, and the classes."""
    folder, clean = data_root() / "imagenet-o", data_root() / "imagenet" / "val"
    classes = class_indices("imagenet-o", class_folders(folder), class_folders(clean))
    validation = _pictures(clean, card)
    kept = np.flatnonzero(np.isin(validation.targets, classes)).tolist()
    return _logits(model, Subset(validation, kept), device), _logits(model, _pictures(folder, card), device), classes


def _pictures(folder: Path, card: Mapping[str, Any]) -> ClassFolders:
    return ClassFolders(folder, robustness_transform(card["image_size"], card["mean"], card["std"]))


def _logits(model: nn.Module, dataset: Dataset[Any], device: torch.device | str) -> Tensor:
    return logits_of(model, (images for images, _ in batches(dataset, 256)), device)
