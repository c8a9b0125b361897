"""The body of every training loop here: gradients of a batch or of its parts, then one update of the weights."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn


class Updater:
    """Updates the weights that an optimizer holds.

    Args:
        optimizer: all of its parameters on one device.
        precision: "float32", or "bfloat16" or "float16" for automatic mixed precision, float16 with loss scaling.
        clip_grad: largest norm of the whole gradient; 0 is none.
        clip_parameters: gives the parameters whose gradient that is.
        no_sync: context in which gradients are not averaged over processes, for all parts of a batch but the last.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        *,
        precision: str = "float32",
        clip_grad: float = 0.0,
        clip_parameters: Callable[[], Iterable[nn.Parameter]] = list,
        no_sync: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        self.optimizer, self.precision = optimizer, precision
        self.clip_grad, self.clip_parameters, self.no_sync = clip_grad, clip_parameters, no_sync
        self.device_type = optimizer.param_groups[0]["params"][0].device.type
        self.scaler = torch.amp.GradScaler(self.device_type, enabled=precision == "float16")

    def autocast(self) -> torch.autocast:
        """The context of a forward pass in this precision."""
        return torch.autocast(self.device_type, getattr(torch, self.precision), enabled=self.precision != "float32")

    def update(self, loss_of: Callable[[Any], Tensor], *parts: Any) -> None:
        """One update by the gradient of the sum of `loss_of(part)`, scalars that are computed one after the other.

        Where the parts are those of a batch, `loss_of` weighs each by its share. Gradients are cleared afterwards.
        """
        for number, part in enumerate(parts, 1):
            with self.no_sync() if number < len(parts) else nullcontext():
                with self.autocast():
                    loss = loss_of(part)
                self.scaler.scale(loss).backward()
        self.apply()
        self.optimizer.zero_grad()

    def apply(self) -> None:
        """Update the weights by the gradients there are, which stay."""
        if self.clip_grad:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.clip_parameters(), self.clip_grad)
        self.scaler.step(self.optimizer)
        self.scaler.update()
