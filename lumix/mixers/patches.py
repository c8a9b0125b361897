"""LUMix's Table 12: Random Shuffling of a mixed image's patches, and Random lambda, a weight for each patch."""

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from lumix.batch import Kind, MixedBatch
from lumix.inputs import Checked, Count, Positive, check_part
from lumix.mixers.base import MIXER, Mixer, NoMix
from lumix.mixers.paste import blend, mixed_batch, permute_grid
from lumix.random import device_of, draw_beta, draw_partners, moved
from lumix.registry import register


def patch_grid(height: int, width: int, patch: int) -> tuple[int, int]:
    """Rows and columns of a grid of square patches; ValueError where patches of this side do not tile the image."""
    if patch < 1 or height % patch or width % patch:
        raise ValueError(f"patches of side {patch} do not tile an image of {height} x {width}: use a common divisor")
    return height // patch, width // patch


@dataclass(frozen=True)
class ShuffleDraws:
    """What the mixer drew, and the order of the patches, [B, patches] int64."""

    mixing: Any
    order: Tensor


@register("step", "shuffle", "Random shuffling")
@dataclass(frozen=True)
class RandomShuffle(Checked, Mixer):
    """Random Shuffling: permute the patches of what `mixer` returns, anew for each sample; labels stay as they are.

    With the network's own patch size this permutes its tokens before the position embedding. A permutation of 16 x 16
    pixels is the reading for 224 pixels (I-18). The batch's box and mask are dropped: they no longer fit the image.
    """

    mixer: Any = field(default_factory=NoMix)  # a Mixer; OmegaConf asks protocols for subclasses
    patch: Count = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        check_part("mixer", self.mixer, MIXER, "a mixer")

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> ShuffleDraws:
        self.check_shape(shape)
        rows, columns = patch_grid(shape[-2], shape[-1], self.patch)
        mixing, device = self.mixer.draw(shape, generator), device_of(generator)
        keys = torch.rand(shape[0], rows * columns, generator=generator, device=device, dtype=torch.float32)
        return ShuffleDraws(mixing, keys.argsort(dim=1))

    def apply(self, images: Tensor, labels: Tensor, draws: ShuffleDraws, model: Any = None) -> MixedBatch:
        labels = self.check_batch(images, labels, len(draws.order))
        batch = self.mixer.apply(images, labels, draws.mixing, model)
        grid = patch_grid(images.shape[-2], images.shape[-1], self.patch)
        shuffled = permute_grid(batch.images, moved(draws.order, images.device), *grid)
        return batch._replace(images=shuffled, box=None, mask=None)


@dataclass(frozen=True)
class RandomLambdaDraws:
    """Partners [B] int64, and the own weight [B, 1, rows, columns] float64 of each patch."""

    partner: Tensor
    own_weight: Tensor


@register("mixer", "random_lambda", "Random lambda", pixels="blend")
@dataclass(frozen=True)
class RandomLambda(Checked, Mixer):
    """Random lambda: one Beta(alpha, alpha) blend for each `patch` pixels square; labels have the mean (I-18)."""

    alpha: Positive = 0.8
    patch: Count = 16
    pairing: Literal["flip", "permutation"] = "permutation"

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> RandomLambdaDraws:
        self.check_shape(shape)
        rows, columns = patch_grid(shape[-2], shape[-1], self.patch)
        partner, _, _ = draw_partners(shape[0], "elem", self.pairing, generator)
        weight = draw_beta(self.alpha, shape[0] * rows * columns, generator)
        return RandomLambdaDraws(partner, weight.view(shape[0], 1, rows, columns))

    def apply(self, images: Tensor, labels: Tensor, draws: RandomLambdaDraws, model: Any = None) -> MixedBatch:
        labels = self.check_batch(images, labels, len(draws.partner))
        partner, grid = moved(draws.partner, images.device), moved(draws.own_weight, images.device)
        weights = grid.repeat_interleave(self.patch, dim=2).repeat_interleave(self.patch, dim=3)
        mixed = blend(images, images.index_select(0, partner), weights)
        return mixed_batch(mixed, labels, partner, grid.mean(dim=(1, 2, 3)), Kind.BLEND)
