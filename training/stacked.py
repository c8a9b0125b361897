"""StackedNetworks: networks of one architecture run as one, by torch.func.vmap over their stacked parameters."""

import copy
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

import torch
from timm.layers import DropPath
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from lumix.mixers.manifold import mixed_output
from training.attention import recorded_attention
from training.run_directory import RunError


class HiddenMix(NamedTuple):
    """Mixing behind a module: own weights [M, B] and partners [M, B]."""

    weight: Tensor
    partner: Tensor


def _mix_output(_module: nn.Module, _arguments: Any, output: Tensor, *, weight: Tensor, partner: Tensor) -> Tensor:
    return mixed_output(output, weight, partner)


class StackedNetworks:
    """M networks whose parameters, and their gradients, become slices of stacked tensors [M, ...].

    Each network stays whole: its own optimizer updates it, and it is read, written and evaluated as before. Gradients
    add up in the stacks until `zero_grad`; who clears one network's gradients to None cuts it off.

    Raises:
        RunError: for a network with batch normalisation, whose running statistics do not stack, or one that draws
            random numbers (dropout, stochastic depth), which differ from those of a network alone.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        check_stackable(networks[0])
        self.skeleton = copy.deepcopy(networks[0])
        for module in self.skeleton.modules():
            if hasattr(module, "fused_attn"):
                setattr(module, "fused_attn", False)  # noqa: B010 - mypy: the fused kernel is slower for the tiny heads that are worth stacking
        self.parameters: dict[str, Tensor] = {}
        self._gradients: list[Tensor] = []
        for name, _ in networks[0].named_parameters():
            own = [network.get_parameter(name) for network in networks]
            stack = torch.stack([parameter.detach() for parameter in own]).requires_grad_()
            stack.grad = gradient = torch.zeros_like(stack)
            for place, parameter in enumerate(own):
                parameter.data, parameter.grad = stack.data[place], gradient[place]
            self.parameters[name] = stack
            self._gradients.append(gradient)

    def __call__(
        self,
        images: Tensor,
        *,
        shared: bool = False,
        attends: bool = False,
        hidden: Mapping[str, HiddenMix] | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Logits [M, B, C] of images [M, B, C, H, W], or [B, C, H, W] that are `shared` by all networks.

        With `attends` also the class attention [M, B, patches] of the last block, the mean over its heads, without
        gradient. `hidden` says by module what is mixed behind it.
        """
        mixes = dict(hidden or {})

        def forward(parameters: dict[str, Tensor], own: Tensor, *mix: HiddenMix) -> tuple[Tensor, ...]:
            with ExitStack() as stack:
                for name, values in zip(mixes, mix, strict=True):
                    hook = partial(_mix_output, weight=values.weight, partner=values.partner)
                    handle = self.skeleton.get_submodule(name).register_forward_hook(hook)
                    stack.callback(handle.remove)
                seen = stack.enter_context(recorded_attention(self.skeleton)) if attends else []
                logits = functional_call(self.skeleton, parameters, (own,))
            return (logits, seen[-1].mean(dim=1)) if attends else (logits,)

        in_dims = (0, None if shared else 0, *(0 for _ in mixes))
        logits, *attention = vmap(forward, in_dims=in_dims)(self.parameters, images, *mixes.values())
        return logits, attention[0] if attention else None

    def train(self, mode: bool = True) -> None:
        self.skeleton.train(mode)

    def zero_grad(self) -> None:
        """Clear all gradients in place."""
        torch._foreach_zero_(self._gradients)


def check_stackable(network: nn.Module) -> None:
    """Raise RunError, naming the module, where networks of this architecture cannot be run as one."""
    for name, module in network.named_modules():
        if isinstance(module, _BatchNorm):
            raise RunError(
                f"{name} of {type(network).__name__} is batch normalisation, which cannot be stacked: set Model.norm "
                f"to 'group', or train its runs one by one"
            )
        rate = module.p if isinstance(module, _DropoutNd) else module.drop_prob if isinstance(module, DropPath) else 0
        if rate:
            raise RunError(
                f"{name} of {type(network).__name__} drops at random, which an ensemble would do otherwise than a "
                f"network alone: set its rate to 0, or train its runs one by one"
            )
