"""What a mixer is, and the two bases: mixers whose plan does not depend on the images, and mixers of whole batches."""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from lumix.batch import Kind, MixedBatch
from lumix.checks import check_choice, check_flag, check_probability
from lumix.draws import MODES, PAIRINGS, draw_partners, draw_uniform, for_worker
from lumix.inputs import LAYOUTS, check_batch, check_shape, sides
from lumix.mixers.apply import apply_plan
from lumix.mixers.plan import Draws, MixPlan, deal, unmixed_plan

ANY = tuple(LAYOUTS)  # signals, images and videos
MIXER = ("draw", "apply")  # what an object needs to be a mixer
Given = Tensor | None  # what a caller may hand in, to be computed where it is None


class Mixer(Protocol):
    """Mixes batches: `draw` makes all random choices, `apply` carries them out, a call does both.

    Attributes:
        ndims: numbers of dimensions of the batches that it takes, see `lumix.inputs`.
    """

    ndims: tuple[int, ...] = (4,)

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Raise ValueError for images of a shape that the method cannot mix."""
        check_shape(shape, type(self).__name__, self.ndims)

    def check_batch(self, images: Tensor, labels: Tensor, drawn: int | None = None) -> Tensor:
        """The labels as int64 [B] of a batch that the method can mix; ValueError for any other."""
        if isinstance(images, Tensor):
            self.check_shape(images.shape)
        return check_batch(images, labels, drawn)

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> Any:
        """All that is random, a frozen dataclass on the generator's device, for images of `shape` (B, C, H, W)."""

    def apply(self, images: Tensor, labels: Tensor, draws: Any, model: Any = None) -> MixedBatch:
        """Mix images [B, C, H, W] and labels [B] by what `draw` returned for B images of this shape.

        The caller's tensors stay as they are. `model` is for methods that look at the images through a network. Labels
        are class indices of any integer dtype, also as [B, 1]; -100 says that a sample has none.

        Raises:
            ValueError: for an empty batch, images and labels that `check_batch` refuses, draws for another number of
                images, or what the method cannot work with.
        """

    def __call__(self, images: Tensor, labels: Tensor, generator: torch.Generator, model: Any = None) -> MixedBatch:
        """`apply` of `draw`. Also raises ValueError for flip pairing of an odd batch."""
        indices = self.check_batch(images, labels)
        return self.apply(images, indices, self.draw(images.shape, for_worker(generator)), model)


@dataclass(frozen=True)
class PlannedMixer(Mixer):
    """Base of the mixers whose draws are a `MixPlan`, for images of any dtype and layout.

    Attributes:
        mode: one draw for the "batch", for each "pair" of partners, or for each sample ("elem").
        pairing: "permutation" (any batch size) or timm's "flip" of the batch (even batches).
        prob: probability that a draw mixes at all.
        inplace: write into the caller's images, which saves the copy of a batch that nobody else needs.
        kinds: the kinds of mix that the mixer makes.
    """

    mode: str = field(default="batch", kw_only=True)
    pairing: str = field(default="permutation", kw_only=True)
    prob: float = field(default=1.0, kw_only=True)
    inplace: bool = field(default=False, kw_only=True)
    kinds: ClassVar[frozenset[Kind]]

    def __post_init__(self) -> None:
        check_choice("mode", self.mode, MODES)
        check_choice("pairing", self.pairing, PAIRINGS)
        check_probability("prob", self.prob)
        check_flag("inplace", self.inplace)

    def draw_each(self, count: int, height: int, width: int, generator: torch.Generator) -> Draws:
        """`count` independent draws for images of height x width, on the generator's device."""
        raise NotImplementedError

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> MixPlan:
        self.check_shape(shape)
        partner, group, count = draw_partners(shape[0], self.mode, self.pairing, generator)
        draws = self.draw_each(count, *sides(shape), generator)
        mixes = draw_uniform(count, generator) < self.prob
        return deal(draws, mixes, partner, group, self.kinds)

    def apply(self, images: Tensor, labels: Tensor, draws: MixPlan, model: Any = None) -> MixedBatch:
        labels = self.check_batch(images, labels, len(draws.partner))
        return apply_plan(images, labels, draws, self.inplace)


@dataclass(frozen=True)
class BatchDraws:
    """What is drawn for a whole batch; without `mixes` it is all, and else a method adds its own fields.

    Attributes:
        partner: [B] int64.
        mixes: whether the batch is mixed at all.
    """

    partner: Tensor
    mixes: bool = field(default=True, kw_only=True)


@dataclass(frozen=True)
class WholeBatchMixer(Mixer):
    """Base of the mixers that mix all of a batch in one way, or none of it.

    Attributes:
        pairing: "permutation" (any batch size) or timm's "flip" of the batch (even batches).
        prob: probability that a batch is mixed at all.
    """

    pairing: str = field(default="permutation", kw_only=True)
    prob: float = field(default=1.0, kw_only=True)

    def __post_init__(self) -> None:
        check_choice("pairing", self.pairing, PAIRINGS)
        check_probability("prob", self.prob)

    def draw_mixed(self, partner: Tensor, shape: tuple[int, ...], generator: torch.Generator) -> BatchDraws:
        """The draws for a batch that is mixed with these partners."""
        raise NotImplementedError

    def mix(self, images: Tensor, labels: Tensor, *args: Any, **given: Any) -> MixedBatch:
        """The batch mixed by draws whose partners are on the images' device; further arguments as of `apply`."""
        raise NotImplementedError

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> BatchDraws:
        self.check_shape(shape)
        partner, _, _ = draw_partners(shape[0], "batch", self.pairing, generator)
        if float(draw_uniform(1, generator)) >= self.prob:
            return BatchDraws(partner, mixes=False)
        return self.draw_mixed(partner, shape, generator)

    def apply(self, images: Tensor, labels: Tensor, draws: BatchDraws, model: Any = None, **given: Given) -> MixedBatch:
        """As `Mixer`. `given` is what the method would otherwise compute from the images, see the method."""
        labels = self.check_batch(images, labels, len(draws.partner))
        if not draws.mixes:
            return apply_plan(images, labels, unmixed_plan(len(images), images.device))
        draws = replace(draws, partner=draws.partner.to(images.device))
        return self.mix(images, labels, draws, model, **given)
