"""ManifoldMix (Verma et al. 2019): Mixup of what a randomly chosen layer of the network puts out.

batch = mixer(images, labels, generator)
with hidden_mixing(model, batch):
    logits = model(batch.images)
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lumix.batch import MixedBatch
from lumix.checks import check_batch
from lumix.draws import draw_integers
from lumix.mixers.apply import apply_plan
from lumix.mixers.base import PlannedMixer
from lumix.mixers.mixup import Mixup


@dataclass(frozen=True)
class ManifoldMix(PlannedMixer):
    """Blend the images, or the output of one module, with one weight from Beta(alpha, alpha); drawn for each batch.

    The record of a batch to be mixed inside holds the caller's images as they are, and the module's name in `hidden`.
    Give it to the network whole, within `hidden_mixing`. Mode, pairing and prob as in `PlannedMixer`.

    Attributes:
        layers: names of modules, each as likely; "" is the input. By default the input and the first two stages of a
            ResNet of timm, as published (k = 0, 1, 2); any model's modules will do, as ("", "stages.0", "stages.1").
        alpha: above 0; 2 as published for CIFAR.
    """

    layers: tuple[str, ...] = ("", "layer1", "layer2")
    alpha: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        Mixup(self.alpha)  # checks alpha
        if not self.layers:
            raise ValueError('layers is empty: name at least one module, or "" for the input')

    def __call__(self, images: Tensor, labels: Tensor, generator: torch.Generator, model: Any = None) -> MixedBatch:
        """As `PlannedMixer`; images [B, C, H, W] and labels [B] int64 stay as they are."""
        check_batch(images, labels)
        choices = torch.full((1,), len(self.layers), device=generator.device)
        layer = self.layers[int(draw_integers(choices, generator))]
        mixup = Mixup(self.alpha, mode=self.mode, pairing=self.pairing, prob=self.prob)
        plan = mixup.plan(len(images), images.shape[-2], images.shape[-1], generator).to(images.device)
        if not layer:
            return apply_plan(images, labels, plan)
        return MixedBatch(
            images=images,
            labels=labels,
            partner_labels=labels[plan.partner],
            own_weight=plan.own_weight.to(torch.float32),
            partner=plan.partner,
            kind=plan.kind,
            hidden=layer,
        )


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
