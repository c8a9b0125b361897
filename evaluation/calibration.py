"""Calibration on clean test images (ours): expected calibration error, cross entropy and accuracy."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from evaluation.evaluation import Outcome
from evaluation.images import Card, Device, test_images
from evaluation.natural_adversarial import expected_calibration_error, logits_of_images, predictions


def drive(model: nn.Module, card: Card, arguments: Mapping[str, Any], device: Device) -> Outcome:
    """Of the whole test set in memory "ece" (Guo et al. 2017) and "top1" in percent, and "loss", the cross entropy."""
    images = test_images(card)
    logits = logits_of_images(model, images.images, card, device)
    confidence, correct = predictions(logits, images.labels.numpy(), range(logits.shape[1]))
    ece = expected_calibration_error(confidence, correct)
    loss = float(functional.cross_entropy(torch.from_numpy(logits), images.labels))
    return Outcome({"ece": ece, "loss": loss, "top1": 100 * float(correct.mean())}, len(images))
