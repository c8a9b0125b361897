"""Mixing inside a network: the output of one module is mixed while a batch that asks for it passes.

batch = mixer(images, labels, generator)
with hidden_mixing(model, batch):
    logits = model(batch.images)
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from lumix.batch import MixedBatch
from lumix.mixers.eval_mode import hooks_run


@contextmanager
def hidden_mixing(model: nn.Module, batch: MixedBatch) -> Iterator[None]:
    """Within it, a forward pass of `model` mixes the output of the module that `batch.hidden` names, if any.

    The gradient flows through both parts. The model itself stays as it is. It may be wrapped (torch.compile, DDP,
    moving averages); compiled code rests meanwhile. The loss refuses a batch that did not pass through here.

    Raises:
        ValueError: for a module that the model lacks, or whose output is no tensor of the batch's size; for
            DataParallel on several devices.
        RuntimeError: where no forward pass came through that module.
    """
    hidden = batch.hidden
    if hidden is None:
        yield
        return
    passes: list[bool] = []

    def mix(_module: nn.Module, _arguments: tuple[Any, ...], output: Any) -> Tensor:
        passes.append(True)
        hidden.done = True
        if not isinstance(output, Tensor) or output.shape[:1] != batch.labels.shape:
            what = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(f"the output of {hidden.name!r} must be a tensor of {batch.size} samples, not {what}")
        return mixed_output(output, batch.own_weight, batch.partner)

    with hooks_run(model) as network:
        handle = _named(hidden.name, model, network).register_forward_hook(mix)
        try:
            yield
        finally:
            handle.remove()
    if not passes:
        raise RuntimeError(
            f"nothing was mixed: no forward pass went through {hidden.name!r}; call the model itself within "
            "hidden_mixing, not a scripted or exported copy of it, and without checkpointing of activations"
        )


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
