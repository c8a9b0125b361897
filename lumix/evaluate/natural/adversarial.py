"""Driver of Table 8: accuracy and calibration on natural adversarial images, detection of unknown ones."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Subset
from torchvision.transforms import Compose

from lumix.evaluate.evaluation import Outcome
from lumix.evaluate.images import logits_of, robustness_transform
from lumix.evaluate.natural import calibration, out_of_distribution
from lumix.evaluate.natural.stand_ins import logits_of_images, stand_ins
from lumix.evaluate.natural.subsets import class_folders, class_indices
from lumix.train.checkpoint import load_model
from lumix.train.files import data_root
from lumix.train.folder import ClassFolders
from lumix.train.run_directory import read_json

CURVE_POINTS = 40  # of the response rate, for the figure


def drive(
    model: nn.Module, card: Mapping[str, Any], arguments: Mapping[str, Any], device: torch.device | str
) -> Outcome:
    """Every number of Table 8 for one model.

    ImageNet models take no arguments; others those of `natural_sets.stand_ins` and "reference", a trained model.
    The outcome counts natural, clean and unknown images together; each count is among the values.
    """
    if card["data"] == "imagenet":
        natural, labels, classes = _imagenet_a(model, card, device)
        inside, outside, known = _imagenet_o(model, card, device)
    else:
        sets = stand_ins(card, arguments, _reference(card, arguments, device), device)
        classes, known = arguments["classes"], arguments["known_classes"]
        if not len(sets.labels):
            raise ValueError("the reference model gets no image of the pool wrong: enlarge the pool")
        natural, inside, outside = (
            logits_of_images(model, images, card, device) for images in (sets.natural, sets.inside, sets.outside)
        )
        labels = sets.labels
    return measure(natural, labels, classes, inside, outside, known)


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
            "natural_images": len(natural),
            "clean_images": len(inside),
            "unknown_images": len(outside),
        },
        n_samples=len(natural) + len(inside) + len(outside),
        arrays={f"reliability_{name}": values for name, values in diagram.items()}
        | {"response_accuracy": response[ranks]},
    )


def _reference(card: Mapping[str, Any], arguments: Mapping[str, Any], device: torch.device | str) -> nn.Module:
    """The model that filters the pools; of the same data as the one under test, and not that one."""
    directory = arguments["reference"]["directory"]
    own = read_json(directory / "model.json")
    if own["key"] == card["key"]:
        raise ValueError(f"{card['key']} cannot filter the images that it is tested on: choose another reference")
    if (own["data"], own["image_size"]) != (card["data"], card["image_size"]):
        raise ValueError(f"the reference {own['key']} must be trained on {card['data']} at {card['image_size']} pixels")
    return load_model(directory, device)


def _imagenet_a(
    model: nn.Module, card: Mapping[str, Any], device: torch.device | str
) -> tuple[Tensor, Tensor, list[int]]:
    folder = data_root() / "imagenet-a"
    classes = class_indices("imagenet-a", class_folders(folder), class_folders(data_root() / "imagenet" / "val"))
    return *logits_of(model, ClassFolders(folder, _transform(card)), device), classes


def _imagenet_o(
    model: nn.Module, card: Mapping[str, Any], device: torch.device | str
) -> tuple[Tensor, Tensor, list[int]]:
    """Logits of the validation images of ImageNet-O's 200 classes, of ImageNet-O itself, and the classes."""
    folder, clean = data_root() / "imagenet-o", data_root() / "imagenet" / "val"
    classes = class_indices("imagenet-o", class_folders(folder), class_folders(clean))
    validation = ClassFolders(clean, _transform(card))
    kept = np.flatnonzero(np.isin(validation.targets, classes)).tolist()
    inside, _ = logits_of(model, Subset(validation, kept), device)
    outside, _ = logits_of(model, ClassFolders(folder, _transform(card)), device)
    return inside, outside, classes


def _transform(card: Mapping[str, Any]) -> Compose:
    return robustness_transform(card["image_size"], card["mean"], card["std"])
