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


@contextmanager
def hidden_mixing(model: nn.Module, batch: MixedBatch) -> Iterator[None]:
    """Within it, a forward pass of `model` mixes the output of the module that `batch.hidden` names, if any.

    The gradient flows through both parts. The model itself stays as it is.

    Raises:
        ValueError: for a module that the model lacks, or whose output is no tensor of the batch's size.
        RuntimeError: where no forward pass came through that module.
    """
    if batch.hidden is None:
        yield
        return
    try:
        module = model.get_submodule(batch.hidden)
    except AttributeError:
        names = ", ".join(name for name, _ in model.named_children())
        raise ValueError(
            f"{type(model).__name__} has no module {batch.hidden!r} to mix behind; it has {names}"
        ) from None
    passes: list[bool] = []

    def mix(_module: nn.Module, _arguments: tuple[Any, ...], output: Any) -> Tensor:
        passes.append(True)
        if not isinstance(output, Tensor) or output.shape[:1] != batch.labels.shape:
            what = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(f"the output of {batch.hidden!r} must be a tensor of {len(batch)} samples, not {what}")
        weight = batch.own_weight.view(-1, *(1,) * (output.ndim - 1))
        return (output * weight + output[batch.partner] * (1 - weight)).to(output.dtype)

    handle = module.register_forward_hook(mix)
    try:
        yield
    finally:
        handle.remove()
    if not passes:
        raise RuntimeError(f"nothing was mixed: no forward pass went through {batch.hidden!r}")
