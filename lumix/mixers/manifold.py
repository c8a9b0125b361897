"""ManifoldMix (Verma et al. 2019): Mixup of what a randomly chosen layer of the network puts out.

batch = mixer(images, labels, generator)
with hidden_mixing(model, batch):
    logits = model(batch.images)
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from lumix.batch import MIXED, Kind, MixedBatch
from lumix.inputs import Positive
from lumix.mixers.base import PlannedMixer, hooks_run
from lumix.mixers.paste import Draws, MixPlan, draw_blends
from lumix.random import device_of, draw_integers
from lumix.registry import register


@register("mixer", "manifoldmix", "ManifoldMix", pixels="blend", needs="the network")
@dataclass(frozen=True)
class ManifoldMix(PlannedMixer):
    """Blend the images, or the output of one module, with weights from Beta(alpha, alpha).

    A batch that is to be mixed inside the network holds the caller's images as they are, and the module's name in
    `hidden`. Give it to the network whole, within `hidden_mixing`.

    Attributes:
        layers: names of modules, each as likely; "" is the input. By default the input and the first two stages of a
            ResNet of timm, as published (k = 0, 1, 2); any model's modules will do, as ("", "stages.0", "stages.1").
        alpha: 2 as published for CIFAR.
    """

    layers: tuple[str, ...] = ("", "layer1", "layer2")
    alpha: Positive = 2.0
    kinds = frozenset({Kind.BLEND})

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.layers:
            raise ValueError('layers is empty: name at least one module, or "" for the input')

    def draw_each(self, count: int, height: int, width: int, generator: torch.Generator) -> Draws:
        return draw_blends(self.alpha, count, generator)

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> MixPlan:
        choices = torch.full((1,), len(self.layers), device=device_of(generator))
        layer = self.layers[int(draw_integers(choices, generator))]
        return replace(super().draw(shape, generator), hidden=layer or None)


@contextmanager
def hidden_mixing(model: nn.Module, batch: MixedBatch) -> Iterator[None]:
    """Within it, a forward pass of `model` mixes the output of the module that `batch.hidden` names, if any.

    The gradient flows through both parts. The model itself stays as it is. It may be wrapped (torch.compile, DDP,
    moving averages) and runs uncompiled meanwhile. The loss refuses logits of any other pass, and a module that ran
    twice in one; activations of the module must not be checkpointed.
    """
    if not isinstance(batch, MixedBatch):
        raise ValueError(f"batch must be the MixedBatch of a mixer, not a {type(batch).__name__}")
    hidden = batch.hidden
    if hidden is None:
        yield
        return
    hidden.done = False

    def mix(module: nn.Module, _arguments: tuple[Any, ...], output: Any) -> Any:
        if module is not place:  # of a copy made meanwhile, as of moving averages, which keeps its hooks for ever
            return output
        hidden.done = True
        if not isinstance(output, Tensor) or output.shape[:1] != batch.labels.shape:
            what = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(f"the output of {hidden.name!r} must be a tensor of {batch.size} samples, not {what}")
        if _is_checkpointed():
            raise ValueError(
                f"activations behind {hidden.name!r} are checkpointed, and the backward pass would compute them again "
                "without hidden_mixing: turn checkpointing off, or mix behind a module that is outside of it"
            )
        if torch.is_grad_enabled() and not output.requires_grad:
            output = output.detach().requires_grad_()  # of a frozen part; the loss looks for the mixing in the graph
        mixed = mixed_output(output, batch.own_weight, batch.partner)
        node: Any = mixed.grad_fn
        if node is not None:
            node.metadata[MIXED] = hidden
        return mixed

    with hooks_run(model) as network:
        place = _named(hidden.name, model, network)
        handle = place.register_forward_hook(mix)
        try:
            yield
        finally:
            handle.remove()
    if not hidden.done:
        remedy = "call the model itself within hidden_mixing, not a scripted or exported copy of it"
        raise RuntimeError(f"nothing was mixed: no forward pass went through {hidden.name!r}; {remedy}")


def _is_checkpointed() -> bool:
    """Whether the running code was called by torch's checkpointing of activations."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_globals.get("__name__") != "torch.utils.checkpoint":
        frame = frame.f_back
    return frame is not None


def mixed_output(output: Tensor, own_weight: Tensor, partner: Tensor) -> Tensor:
    """The output [B, ...] of a module, each sample's mixed with its partner's, by own weights [B] and indices [B]."""
    weight = own_weight.view(-1, *(1,) * (output.ndim - 1))
    return (output * weight + output[partner] * (1 - weight)).to(output.dtype)


def _named(name: str, model: nn.Module, network: nn.Module) -> nn.Module:
    """The module of this name in `model`, or in the `network` that it wraps."""
    for root in (model, network):
        try:
            return root.get_submodule(name)
        except AttributeError:
            continue
    names = ", ".join(child for child, _ in network.named_children())
    raise ValueError(f"{type(network).__name__} has no module {name!r} to mix behind; it has {names}")
