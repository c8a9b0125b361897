"""One update of the weights, the body of every training loop here; a run's optimizer and schedule, built by timm."""

import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from timm.optim import Lamb, create_optimizer_v2, param_groups_weight_decay
from timm.scheduler import CosineLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer

from training.config import Optim, Run


class Updater:
    """Updates the weights that an optimizer holds, all of them on one device."""

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        *,
        precision: str = "float32",  # or "bfloat16" for automatic mixed precision
        clip_grad: float = 0.0,  # largest norm of the whole gradient; 0 is none
        clip_parameters: Callable[[], Iterable[nn.Parameter]] = list,  # gives the parameters whose gradient that is
        no_sync: Callable[[], AbstractContextManager[Any]] = nullcontext,  # around all parts of a batch but the last
    ) -> None:
        self.optimizer, self.precision = optimizer, precision
        self.clip_grad, self.clip_parameters, self.no_sync = clip_grad, clip_parameters, no_sync
        self.device_type = optimizer.param_groups[0]["params"][0].device.type

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
                loss.backward()
        self.clip()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def clip(self) -> None:
        """Clip the gradient there is."""
        if self.clip_grad:
            nn.utils.clip_grad_norm_(self.clip_parameters(), self.clip_grad)


MOMENTUM, WARMUP_LR = 0.9, 1e-6  # the rate that the warm-up begins with


def undecayed_names(model: nn.Module) -> set[str]:
    """Parameters that the model or one of its blocks asks to keep from weight decay, as patterns of full names.

    timm asks the outermost module only, which misses for instance the attention temperature of XCiT.
    """
    names = set()
    for prefix, module in model.named_modules():
        if hasattr(module, "no_weight_decay"):
            names |= {f"{prefix}.{name}" if prefix else name for name in module.no_weight_decay()}
    return names


def parameter_groups(model: nn.Module, part: nn.Module | None = None, **rates: float) -> list[dict[str, Any]]:
    """All that trains, in two groups: biases, norms, other 1-D parameters and `undecayed_names` without weight decay.

    The other group names no weight decay: it takes the optimizer's. The parameters of a `part` of the model are in
    groups of their own with these `rates`.
    """
    inside = {id(parameter) for parameter in part.parameters()} if part is not None else set()
    found = []
    for group in param_groups_weight_decay(model, 1.0, no_weight_decay_list=undecayed_names(model)):
        group = {name: value for name, value in group.items() if value != 1.0}
        own = [parameter for parameter in group["params"] if id(parameter) in inside]
        others = [parameter for parameter in group["params"] if id(parameter) not in inside]
        found += [{**group, "params": others}, {**group, "params": own, **rates}]
    return [group for group in found if group["params"]]


class StackedLamb(Lamb):
    """timm's LAMB for parameters [M, n] of M networks: norms of gradients and trust ratios are each network's own."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        every = [parameter for group in self.param_groups for parameter in group["params"]]
        norm = torch.stack([parameter.grad.norm(dim=1, keepdim=True) for parameter in every]).norm(dim=0)
        scale = (norm / self.defaults["max_grad_norm"]).clamp(min=1.0)
        for group in self.param_groups:
            parameters, decay, (beta1, beta2) = group["params"], group["weight_decay"], group["betas"]
            group["step"] = step = group.get("step", 0) + 1
            for parameter in parameters if step == 1 else ():
                self.state[parameter] = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
            first, second = ([self.state[p][name] for p in parameters] for name in ("exp_avg", "exp_avg_sq"))
            gradients = [parameter.grad / scale for parameter in parameters]
            torch._foreach_lerp_(first, gradients, 1 - beta1)
            torch._foreach_mul_(second, beta2)
            torch._foreach_addcmul_(second, gradients, gradients, value=1 - beta2)
            divisors = torch._foreach_sqrt(second)
            torch._foreach_div_(divisors, (1 - beta2**step) ** 0.5)
            torch._foreach_add_(divisors, group["eps"])
            updates = torch._foreach_div(first, 1 - beta1**step)
            torch._foreach_div_(updates, divisors)
            for parameter, update in zip(parameters, updates, strict=True) if decay else ():
                update.add_(parameter, alpha=decay)
                own, change = (values.norm(dim=1, keepdim=True) for values in (parameter, update))
                update.mul_(torch.where((own > 0) & (change > 0), own / change, 1.0))
            torch._foreach_add_(parameters, updates, alpha=-group["lr"])


def build_optimizer(optim: Optim, groups: list[dict[str, Any]], stacked: bool = False) -> Optimizer:
    """timm's optimizer of groups of parameters, as from `parameter_groups`, or of those `stacked` of several networks.

    Under `Optim.decayed` "all" no group is exempt from weight decay. Mind timm's names: "sgd" is SGD with Nesterov's
    momentum, "momentum" the plain momentum of most published recipes.
    """
    if optim.decayed == "all":
        groups = [{name: value for name, value in group.items() if name != "weight_decay"} for group in groups]
    if stacked and optim.name == "lamb":
        return StackedLamb(groups, lr=optim.lr, weight_decay=optim.weight_decay)
    options: dict[str, Any] = {}
    if optim.name == "adamw":
        # One kernel for all parameters where torch has it: most of a tiny model's step is launching.
        options = {"fused": groups[0]["params"][0].device.type in ("cpu", "cuda")}
    return create_optimizer_v2(
        groups, opt=optim.name, lr=optim.lr, weight_decay=optim.weight_decay, momentum=MOMENTUM, **options
    )


def build_updater(run: Run, task: Any) -> Updater:
    """The update of a run's `Task`, with its optimizer."""
    return Updater(
        build_optimizer(run.optim, task.parameter_groups()),
        precision=run.precision,
        clip_grad=run.optim.clip_grad,
        clip_parameters=task.get_clip_parameters,
        no_sync=task.no_sync,
    )


class GroupedCosine(CosineLRScheduler):
    """timm's cosine, in which a group of parameters with "min_lr" ends at that rate of its own and warms up as all."""

    def _get_values(self, t: int, on_epoch: bool = True) -> list[float] | None:
        values = super()._get_values(t, on_epoch)
        if values is None or t < self.warmup_t:
            return values
        pairs = zip(self.optimizer.param_groups, self.base_values, values, strict=True)
        return [self._stretched(group, peak, value) for group, peak, value in pairs]

    def _stretched(self, group: dict[str, Any], peak: float, value: float) -> float:
        if "min_lr" not in group or value == peak:
            return value
        floor = float(group["min_lr"])
        return floor + (value - self.lr_min) * (peak - floor) / (peak - self.lr_min)


class Cosine716(GroupedCosine):
    """The schedule of FixMatch: the rate times cos(7 pi t / 16 T), which ends at a fifth of the rate."""

    def _get_lr(self, t: int) -> list[float]:
        factor = math.cos(7 * math.pi * t / (16 * self.t_initial))
        return [peak * factor for peak in self.base_values]


def build_schedule(optim: Optim, optimizer: Optimizer, epochs: int, updates_per_epoch: int) -> CosineLRScheduler:
    """Cosine per update after a linear warm-up: full rate at the first update after it, the floor at the last update.

    With `Optim.schedule` "cosine_7_16" it is that of FixMatch.

    Call `step_update(u)` before update u = 0, 1, ...; the rate is a function of u alone.
    """
    if optim.schedule == "cosine_7_16":
        return Cosine716(optimizer, t_initial=epochs * updates_per_epoch, t_in_epochs=False)
    warmup, total = optim.warmup_epochs * updates_per_epoch, epochs * updates_per_epoch
    return GroupedCosine(
        optimizer,
        t_initial=max(total - warmup - 1, 2),
        lr_min=optim.min_lr,
        warmup_t=warmup,
        warmup_lr_init=WARMUP_LR,
        warmup_prefix=True,
        t_in_epochs=False,
    )
