"""FGSM (Decoupled Mixup, Table A7): error after one white-box step along the sign of the gradient."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from evaluation.evaluation import Outcome
from evaluation.images import Card, Device, accuracies, normaliser


def fgsm(model: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, radius: float) -> Tensor:
    """Images [B, C, H, W] one step of `radius` (maximum norm) up the cross entropy of labels [B], back in [0, 1], by
    the logits [B, C] of a model that normalises images itself."""
    if not bool(((images >= 0) & (images <= 1)).all()):
        raise ValueError("images must lie in [0, 1], before normalisation")
    if radius < 0:
        raise ValueError(f"radius must be at least 0, not {radius!r}")
    with torch.enable_grad():
        pixels = images.detach().requires_grad_()
        # The sum, unlike the mean, gives each image the gradient of its own loss, whatever the batch.
        loss = functional.cross_entropy(model(pixels).float(), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, pixels)
    return (images + radius * gradient.sign()).clamp(0, 1)


def drive(model: nn.Module, card: Card, arguments: Mapping[str, Any], device: Device) -> Outcome:
    """Values "error", 100 less the top-1 accuracy on attacked images of the whole test set, and "top1" on clean ones;
    arguments "radius" on the scale [0, 255], the paper's 8, and "batch" in images."""
    normalise = normaliser(card, device)

    def attacks(place: int, images: Tensor, labels: Tensor) -> Iterator[tuple[str, Tensor]]:
        yield "attacked", fgsm(lambda pixels: model(normalise(pixels)), images, labels, arguments["radius"] / 255)
        yield "clean", images

    top1, samples = accuracies(model, card, device, arguments["batch"], attacks)
    return Outcome({"error": 100 - top1["attacked"], "top1": top1["clean"]}, samples)
