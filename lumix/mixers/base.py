"""What a mixer is: the protocol, its two bases, NoMix, and help with the networks that some mixers look through."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn

from lumix.batch import Kind, MixedBatch
from lumix.inputs import LAYOUTS, Checked, Share, check_batch, check_shape, shown, sides
from lumix.mixers.paste import Draws, MixPlan, apply_plan, assign, unmixed_plan
from lumix.random import device_of, draw_partners, draw_uniform, for_worker, moved

ANY = tuple(LAYOUTS)  # signals, images and videos
MIXER = ("draw", "apply")  # what an object needs to be a mixer
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Mixer(Protocol):
    """Mixes batches of `ndims` dimensions: `draw` makes all random choices, `apply` carries them out, a call both."""

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
        """

    def __call__(self, images: Tensor, labels: Tensor, generator: torch.Generator, model: Any = None) -> MixedBatch:
        indices = self.check_batch(images, labels)
        return self.apply(images, indices, self.draw(images.shape, for_worker(generator)), model)


@dataclass(frozen=True)
class NoMix(Mixer):
    """Return a copy of the images, all of kind NONE. Nothing is drawn from the generator."""

    ndims = ANY

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> MixPlan:
        self.check_shape(shape)
        return unmixed_plan(shape[0], device_of(generator))

    def apply(self, images: Tensor, labels: Tensor, draws: MixPlan, model: Any = None) -> MixedBatch:
        return apply_plan(images, self.check_batch(images, labels, len(draws.partner)), draws)


@dataclass(frozen=True)
class PlannedMixer(Checked, Mixer):
    """Base of the mixers whose draws are a `MixPlan`, for images of any dtype and layout.

    Attributes:
        mode: one draw for the "batch", for each "pair" of partners, or for each sample ("elem").
        pairing: "permutation" (any batch size) or timm's "flip" of the batch (even batches).
        prob: probability that a draw mixes at all.
        inplace: write into the caller's images, which saves the copy of a batch that nobody else needs.
    """

    mode: Literal["batch", "pair", "elem"] = field(default="batch", kw_only=True)
    pairing: Literal["flip", "permutation"] = field(default="permutation", kw_only=True)
    prob: Share = field(default=1.0, kw_only=True)
    inplace: bool = field(default=False, kw_only=True)
    kinds: ClassVar[frozenset[Kind]]

    def draw_each(self, count: int, height: int, width: int, generator: torch.Generator) -> Draws:
        """`count` independent draws for images of height x width, on the generator's device."""
        raise NotImplementedError

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> MixPlan:
        self.check_shape(shape)
        partner, group, count = draw_partners(shape[0], self.mode, self.pairing, generator)
        draws = self.draw_each(count, *sides(shape), generator)
        mixes = draw_uniform(count, generator) < self.prob
        return assign(draws, mixes, partner, group, self.kinds)

    def apply(self, images: Tensor, labels: Tensor, draws: MixPlan, model: Any = None) -> MixedBatch:
        labels = self.check_batch(images, labels, len(draws.partner))
        return apply_plan(images, labels, draws, self.inplace)


@dataclass(frozen=True)
class BatchDraws:
    """What is drawn for a whole batch: partner [B] int64, whether it is mixed at all, and if so a method's fields."""

    partner: Tensor
    mixes: bool = field(default=True, kw_only=True)


@dataclass(frozen=True)
class WholeBatchMixer(Checked, Mixer):
    """Base of the mixers that mix all of a batch in one way, or none of it; fields are as of `PlannedMixer`."""

    pairing: Literal["flip", "permutation"] = field(default="permutation", kw_only=True)
    prob: Share = field(default=1.0, kw_only=True)

    def draw_mixed(self, partner: Tensor, shape: tuple[int, ...], generator: torch.Generator) -> BatchDraws:
        """The draws for a batch that is mixed with these partners; here none but those."""
        return BatchDraws(partner)

    def mix(self, images: Tensor, labels: Tensor, *args: Any, **given: Any) -> MixedBatch:
        """The batch mixed by draws whose partners are on the images' device; arguments as of `apply`."""
        raise NotImplementedError

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> BatchDraws:
        self.check_shape(shape)
        partner, _, _ = draw_partners(shape[0], "batch", self.pairing, generator)
        if float(draw_uniform(1, generator)) >= self.prob:
            return BatchDraws(partner, mixes=False)
        return self.draw_mixed(partner, shape, generator)

    def apply(
        self, images: Tensor, labels: Tensor, draws: BatchDraws, model: Any = None, **given: Tensor | None
    ) -> MixedBatch:
        """As `Mixer`; `given` is what `mix` would otherwise compute from the images."""
        labels = self.check_batch(images, labels, len(draws.partner))
        if not draws.mixes:
            return apply_plan(images, labels, unmixed_plan(len(images), images.device))
        return self.mix(images, labels, replace(draws, partner=moved(draws.partner, images.device)), model, **given)


# Under these names torch.compile, DistributedDataParallel, DataParallel, FSDP, Lightning Fabric and the moving averages
# of torch and timm hold the network that they wrap.
WRAPPED = ("_orig_mod", "module", "_fsdp_wrapped_module", "_forward_module", "_original_module")
LIBRARIES = ("torch", "timm", "lightning", "lightning_fabric", "deepspeed")


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


def in_precision_of(module: nn.Module | None, images: Tensor) -> Tensor:
    """Images in the dtype of a network's parameters, as of one that was made bfloat16."""
    parameters = () if module is None else module.parameters()
    return images.to(next((part.dtype for part in parameters if part.is_floating_point()), images.dtype))


def unwrapped(model: nn.Module) -> nn.Module:
    """The network inside wrappers of libraries, one in the other; another one may change images, and stays."""
    *wrappers, network = _layers(model)
    return next((layer for layer in wrappers if type(layer).__module__.partition(".")[0] not in LIBRARIES), network)


def _layers(model: nn.Module | None) -> Iterator[nn.Module]:
    """The wrappers from the outside in, and the network."""
    if not isinstance(model, nn.Module):
        raise ValueError(f"model must be a torch module, not {shown(model)}")
    while model is not None:
        yield model
        held = model._modules if set(model._modules) <= set(WRAPPED) else {}
        model = next((held[name] for name in WRAPPED if name in held), None)


@contextmanager
def hooks_run(model: nn.Module) -> Iterator[nn.Module]:
    """The network inside `model`; meanwhile its hooks run in every forward pass.

    Code that torch.compile has made does not see hooks that came later: meanwhile the network runs uncompiled.
    """
    layers = list(_layers(model))
    for layer in layers:
        if isinstance(layer, nn.DataParallel) and len(layer.device_ids) > 1:
            found = f"DataParallel on {len(layer.device_ids)} devices splits a batch that the network has to see whole"
            raise ValueError(f"{found}: use DistributedDataParallel")
    compiles = "torch._dynamo" in sys.modules and not torch.compiler.is_compiling()
    try:
        if torch.compiler.is_dynamo_compiling():
            raise RuntimeError("torch.compile traces this")
        rests = torch.compiler.set_stance("force_eager") if compiles else nullcontext()
    except RuntimeError as error:
        found = "within a function that torch.compile made, hooks of the network may not run"
        raise ValueError(f"{found}: enter hidden_mixing or recorded_attention outside of it") from error
    with rests:
        yield layers[-1]
