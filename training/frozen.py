"""Frozen networks through which a mixer looks at images: pretrained on ImageNet, or a tiny one trained here.

Each function builds one for images of a data set normalised by `mean` and `std`. Without `pretrained` its weights are
random, which is enough to measure time.
"""

from functools import lru_cache

import timm
import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from training.config import Data, Model
from training.data import is_resident, load
from training.model import with_published_weights
from training.pretraining import EPOCHS, train_plainly

EMBEDDED = Model("frozen", "resnet18", {"cifar_stem": True, "channels": [8, 16, 16, 16], "layers": [1, 1, 1, 1]})


class Features(nn.Module):
    """The feature map [B, channels, rows, columns] after one stage of a timm network, from a run's own images.

    Args:
        network: with timm's `forward_intermediates`.
        stage: index of the stage, as in `network.feature_info`.
        given, wanted: (mean, std) by which the run normalises its images, and by which the network wants them.
    """

    def __init__(
        self, network: nn.Module, stage: int, given: tuple[Tensor, Tensor], wanted: tuple[Tensor, Tensor]
    ) -> None:
        super().__init__()
        self.network, self.stage = network, stage
        self.register_buffer("scale", (given[1] / wanted[1]).view(1, -1, 1, 1))
        self.register_buffer("shift", ((given[0] - wanted[0]) / wanted[1]).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        images = images * self.get_buffer("scale") + self.get_buffer("shift")
        found = self.network.forward_intermediates(images, indices=[self.stage], intermediates_only=True)  # type: ignore[operator]
        return Tensor(found[0])


Values = tuple[float, ...]


def embedded(data: Data, mean: Values, std: Values, pretrained: bool) -> nn.Module:
    """A tiny ResNet that was trained on the run's own training images.

    Raises:
        ValueError: for a data set that is not held in memory.
    """
    if not is_resident(data.name):
        raise ValueError(
            f"the network 'embedded' is for sets held in memory, not for {data.name}: name a pretrained one"
        )
    given = torch.tensor(mean), torch.tensor(std)
    plain = data.replace(flip=False, crop_padding=0)
    return Features(_train(plain, EPOCHS if pretrained else 0), 2, given, given)


def pretrained(model: str, mean: Values, std: Values, pretrained: bool) -> nn.Module:
    """A network of timm, by its name with the tag of its weights; RunError where these cannot be had."""
    network = with_published_weights(model) if pretrained else timm.create_model(model)
    given = torch.tensor(mean), torch.tensor(std)
    wanted = torch.tensor(IMAGENET_DEFAULT_MEAN), torch.tensor(IMAGENET_DEFAULT_STD)
    return Features(network, len(network.feature_info) - 1, given, wanted)  # type: ignore[arg-type]


@lru_cache(maxsize=2)
def _train(data: Data, epochs: int) -> nn.Module:
    """A tiny ResNet trained on the training images of a run, unmixed; it stands in for one pretrained on ImageNet.

    As there, the images are those that the run itself trains on. Everything is fixed: all runs look through the same.
    """
    return train_plainly(EMBEDDED, load(data)[0], epochs)
