"""Optimizer and schedule of a run, built by timm, and its update."""

import math
from typing import Any

from timm.optim import create_optimizer_v2, param_groups_weight_decay
from timm.scheduler import CosineLRScheduler
from torch import nn
from torch.optim import Optimizer

from training.config import Optim, Run
from training.task import Task
from training.update import Updater

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


def parameter_groups(model: nn.Module) -> list[dict[str, Any]]:
    """All that trains, in two groups: biases, norms, other 1-D parameters and `undecayed_names` without weight decay.

    The other group names no weight decay: it takes the optimizer's.
    """
    groups = param_groups_weight_decay(model, 1.0, no_weight_decay_list=undecayed_names(model))
    return [{name: value for name, value in group.items() if value != 1.0} for group in groups]


def build_optimizer(optim: Optim, groups: list[dict[str, Any]]) -> Optimizer:
    """timm's optimizer of groups of parameters, as from `parameter_groups`.

    Mind timm's names: "sgd" is SGD with Nesterov's momentum, "momentum" the plain momentum of most published recipes.
    """
    options: dict[str, Any] = {}
    if optim.name == "adamw":
        # One kernel for all parameters where torch has it: most of a tiny model's step is launching.
        options = {"fused": groups[0]["params"][0].device.type in ("cpu", "cuda")}
    return create_optimizer_v2(
        groups, opt=optim.name, lr=optim.lr, weight_decay=optim.weight_decay, momentum=MOMENTUM, **options
    )


def build_updater(run: Run, task: Task) -> Updater:
    """The update of a run's task, with its optimizer."""
    return Updater(
        build_optimizer(run.optim, task.parameter_groups()),
        precision=run.precision,
        clip_grad=run.optim.clip_grad,
        clip_parameters=task.get_clip_parameters,
        no_sync=task.no_sync,
    )


class GroupedCosine(CosineLRScheduler):
    """timm's cosine, in which a group of parameters with "min_lr" ends at that rate of its own."""

    def update_groups(self, values: Any) -> None:
        pairs = zip(self.optimizer.param_groups, self.base_values, values, strict=True)
        super().update_groups([self._stretched(group, peak, value) for group, peak, value in pairs])

    def _stretched(self, group: dict[str, Any], peak: float, value: float) -> float:
        if "min_lr" not in group or value == peak:  # the peak is set before timm knows its floor
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
