"""What mixers that look at the images share: a network in evaluation mode for a while, and ImageNet's normalisation."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@contextmanager
def evaluating(module: nn.Module | None) -> Iterator[None]:
    """All of a module in evaluation mode, and afterwards each part in its own again; nothing for None."""
    training = [] if module is None else [part for part in module.modules() if part.training]
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True
