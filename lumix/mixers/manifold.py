"""ManifoldMix (Verma et al. 2019): Mixup of what a randomly chosen layer of the network puts out.

batch = mixer(images, labels, generator)
with hidden_mixing(model, batch):
    logits = model(batch.images)
"""

from dataclasses import dataclass, replace

import torch

from lumix.batch import Kind
from lumix.checks import check_positive, shown
from lumix.draws import device_of, draw_integers
from lumix.mixers.base import PlannedMixer
from lumix.mixers.plan import Draws, MixPlan, draw_blends
from lumix.registry import register


@register("mixer", "manifoldmix", "ManifoldMix", pixels="blend", needs="the network")
@dataclass(frozen=True)
class ManifoldMix(PlannedMixer):
    """Blend the images, or the output of one module, with one weight from Beta(alpha, alpha); drawn for each batch.

    A batch that is to be mixed inside the network holds the caller's images as they are, and the module's name in
    `hidden`. Give it to the network whole, within `hidden_mixing`. Mode, pairing and prob as in `PlannedMixer`.

    Attributes:
        layers: names of modules, each as likely; "" is the input. By default the input and the first two stages of a
            ResNet of timm, as published (k = 0, 1, 2); any model's modules will do, as ("", "stages.0", "stages.1").
        alpha: above 0; 2 as published for CIFAR.
    """

    layers: tuple[str, ...] = ("", "layer1", "layer2")
    alpha: float = 2.0
    kinds = frozenset({Kind.BLEND})

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("alpha", self.alpha)
        if not isinstance(self.layers, tuple | list) or not all(isinstance(layer, str) for layer in self.layers):
            raise ValueError(f"layers must be a tuple of names of modules, not {shown(self.layers)}")
        if not self.layers:
            raise ValueError('layers is empty: name at least one module, or "" for the input')

    def draw_each(self, count: int, height: int, width: int, generator: torch.Generator) -> Draws:
        return draw_blends(self.alpha, count, generator)

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> MixPlan:
        choices = torch.full((1,), len(self.layers), device=device_of(generator))
        layer = self.layers[int(draw_integers(choices, generator))]
        return replace(super().draw(shape, generator), hidden=layer or None)
