"""Networks that mixers look through or mix in: evaluation mode, wrappers, hooks; and ImageNet's normalisation."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# Under these names torch.compile, DistributedDataParallel, DataParallel, FSDP, Lightning Fabric and the moving averages
# of torch and timm hold the network that they wrap.
WRAPPED = ("_orig_mod", "module", "_fsdp_wrapped_module", "_forward_module", "_original_module")


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


def unwrapped(model: nn.Module) -> nn.Module:
    """The network inside wrappers, one in the other: modules that hold nothing else."""
    return list(_layers(model))[-1]


def _layers(model: nn.Module | None) -> Iterator[nn.Module]:
    """The wrappers from the outside in, and the network."""
    while model is not None:
        yield model
        held = model._modules if set(model._modules) <= set(WRAPPED) else {}
        model = next((held[name] for name in WRAPPED if name in held), None)


@contextmanager
def hooks_run(model: nn.Module) -> Iterator[nn.Module]:
    """The network inside `model`; meanwhile its hooks run in every forward pass.

    Code that torch.compile has made does not see hooks that came later. It rests, and the network runs uncompiled.

    Raises:
        ValueError: for DataParallel on several devices, which gives each of them a part of the batch.
    """
    layers = list(_layers(model))
    for layer in layers:
        if isinstance(layer, nn.DataParallel) and len(layer.device_ids) > 1:
            raise ValueError(
                f"DataParallel on {len(layer.device_ids)} devices splits a batch that the network has to see whole: "
                "use DistributedDataParallel"
            )
    compiles = "torch._dynamo" in sys.modules and not torch.compiler.is_compiling()
    with torch.compiler.set_stance("force_eager") if compiles else nullcontext():
        yield layers[-1]
