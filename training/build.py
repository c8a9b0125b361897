"""From a run's specs to the objects that train: mixer, loss, task."""

from functools import partial
from typing import Any

import torch
from torch import nn

from lumix.catalogue import create, get_part
from lumix.composition import Either, Switch
from lumix.loss import MixLoss
from lumix.mixers.base import Mixer
from lumix.mixers.none import NoMix
from training.config import Loss, Mix, Run
from training.mix_task import MixTask
from training.task import Task

Values = tuple[float, ...]  # an entry a channel


def build_mixer(mix: Mix, mean: Values, std: Values, frozen: nn.Module | None = None) -> Mixer:
    """The mixer of a run for images normalised by `mean` and `std`; `frozen` is the network of one that needs it.

    The engine's batches are its own: mixers that can write into them do, which saves a copy.
    """
    mixer: Mixer = _build_choices(mix, {"mean": mean, "std": std, "network": frozen})
    for step in mix.then:
        mixer = create(step, mixer=mixer)
    return mixer


def _build_choices(mix: Mix, given: dict[str, Any]) -> Mixer:
    settings = {"mode": mix.mode, "pairing": mix.pairing, "prob": mix.prob, "inplace": True}
    specs = [spec for spec, _ in mix.choices]
    if not specs:
        return NoMix()
    if len(specs) == 1:
        mixer: Mixer = create(specs[0], **given, **settings)
        return mixer
    if all("inplace" in get_part(spec.name).given for spec in specs):  # planned without looking: drawn per sample
        usual = {"mode": "batch", "pairing": "permutation", "prob": 1.0, "inplace": False}  # the switch has its own
        first, second = (create(spec, **given, **usual) for spec in specs)
        return Switch(first, second, mix.weights[1], **settings)  # type: ignore[arg-type]
    first, second = (create(spec, **given, **settings | {"prob": 1.0}) for spec in specs)
    return Either(first, second, mix.weights[1], mix.prob)


def build_loss(loss: Loss) -> MixLoss:
    """The loss of a run: its label rule and the sum of its terms."""
    return MixLoss(create(loss.rule), tuple(create(term) for term in loss.terms))


def build_task(
    run: Run,
    network: nn.Module,
    mean: Values,
    std: Values,
    device: torch.device,
    *,
    pretrained: bool = True,
    seed: int = 0,
    updates: int = 1,
) -> Task:
    """The task of a run for a network on `device` and images normalised by `mean` and `std`.

    Without `pretrained` the network that a mixer looks through has random weights, which is enough to measure time.
    The `seed` decides the initial weights of further networks; schedules of a task's own last for `updates`.

    Raises:
        RunError: where its weights cannot be had.
    """
    normalised: dict[str, Any] = {"mean": mean, "std": std, "device": device, "pretrained": pretrained}
    mixing = partial(mixing_parts, run, network, **normalised)
    task: Task = create(run.task, run=run, network=network, mixing=mixing, seed=seed, updates=updates, **normalised)
    return task


def frozen_network(run: Run, mean: Values, std: Values, device: torch.device, pretrained: bool) -> nn.Module | None:
    """The network that one of the run's mixers looks through, None where none does."""
    for spec, _ in run.mix.choices:
        if get_part(spec.name).needs == "a frozen network":
            frozen: nn.Module = create(spec["network"], data=run.data, mean=mean, std=std, pretrained=pretrained)
            return frozen.to(device).eval().requires_grad_(False)
    return None


def mixing_parts(
    run: Run, network: nn.Module, mean: Values, std: Values, device: torch.device, pretrained: bool
) -> dict[str, Any]:
    """The arguments of `MixTask`."""
    return {
        "model": network,
        "mixer": build_mixer(run.mix, mean, std, frozen_network(run, mean, std, device, pretrained)),
        "loss": build_loss(run.loss),
        "device": device,
        "channels_last": run.channels_last,
        "ema_decay": run.optim.ema_decay,
        "ema_reported": run.optim.ema_reported,
    }


def build_mix_task(
    run: Run, network: nn.Module, mean: Values, std: Values, device: torch.device, pretrained: bool
) -> MixTask:
    """The ordinary task: one network that trains on mixed images."""
    return MixTask(**mixing_parts(run, network, mean, std, device, pretrained))
