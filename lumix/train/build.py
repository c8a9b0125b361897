"""From a run's specs to the objects that train: mixer, loss, task."""

from typing import Any

import torch
from torch import nn

from lumix.catalogue import Spec, create, get_part
from lumix.composition import Either, Switch
from lumix.loss import MixLoss
from lumix.mixers.base import Mixer
from lumix.mixers.none import NoMix
from lumix.train.config import Data, Loss, Mix, Run
from lumix.train.task import MixTask

Normalisation = tuple[tuple[float, ...], tuple[float, ...]]  # mean and std, an entry a channel


def build_mixer(mix: Mix, normalisation: Normalisation, frozen: nn.Module | None = None) -> Mixer:
    """The mixer of a run for images that were normalised so; `frozen` is the network of a mixer that needs one.

    The engine's batches are its own: mixers that can write into them do, which saves a copy.
    """
    mixer: Mixer = _build_choices(mix, {"mean": normalisation[0], "std": normalisation[1], "network": frozen})
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
        return Switch(*(create(spec, **given, **usual) for spec in specs), mix.weights[1], **settings)  # type: ignore[misc, arg-type]
    parts = (create(spec, **given, **settings | {"prob": 1.0}) for spec in specs)
    return Either(*parts, mix.weights[1], mix.prob)  # type: ignore[misc, call-arg]


def frozen_network(
    mix: Mix, data: Data, normalisation: Normalisation, device: torch.device, pretrained: bool = True
) -> nn.Module | None:
    """The frozen network that one of the mixers looks through, on `device`; None where none does.

    Without `pretrained` its weights are random, which is enough to measure time.

    Raises:
        RunError: where the pretrained weights cannot be had.
    """
    wanted = [spec["network"] for spec, _ in mix.choices if get_part(spec.name).needs == "a frozen network"]
    if not wanted:
        return None
    mean, std = normalisation
    network: nn.Module = create(wanted[0], data=data, mean=mean, std=std, pretrained=pretrained)
    return network.to(device).eval().requires_grad_(False)


def build_loss(loss: Loss) -> MixLoss:
    """The loss of a run: its label rule and the sum of its terms."""
    terms: tuple[Spec, ...] = loss.terms
    return MixLoss(create(loss.rule), tuple(create(term) for term in terms))


def build_task(
    run: Run, network: nn.Module, normalisation: Normalisation, device: torch.device, pretrained: bool = True
) -> MixTask:
    """The task of a run for a network on `device` and images normalised so."""
    frozen = frozen_network(run.mix, run.data, normalisation, device, pretrained)
    return MixTask(
        model=network, mixer=build_mixer(run.mix, normalisation, frozen), loss=build_loss(run.loss), device=device
    )
