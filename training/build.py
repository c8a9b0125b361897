"""From a run to the objects that train: mixer, loss, task."""

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import nn

from lumix.losses import MixLoss
from lumix.mixers.base import Mixer, NoMix, PlannedMixer
from lumix.mixers.switch import Either, Switch
from lumix.registry import part_of
from training.config import Loss, Mix, Run

Values = tuple[float, ...]  # an entry a channel


@dataclass(frozen=True)
class Setup:
    """What a task is built for."""

    run: Run
    network: nn.Module  # of the run, on `device`
    mean: Values  # with `std` what images are normalised by
    std: Values
    device: torch.device
    pretrained: bool = True  # without it the network that a mixer looks through is random: enough to measure time
    seed: int = 0  # of the initial weights of further networks
    updates: int = 1  # for which schedules of a task's own last


def build_task(run: Run, *arguments: Any, **options: Any) -> Any:
    """The `training.tasks.mixed.Task` of a run; arguments as of `Setup`."""
    return run.task.build(Setup(run, *arguments, **options))


def build_mixer(mix: Mix, mean: Values, std: Values, frozen: nn.Module | None = None) -> Mixer:
    """The mixer of a run for images normalised by `mean` and `std`; `frozen` is the network of one that needs it.

    The engine's batches are its own: mixers that can write into them do, which saves a copy.
    """
    settings: Any = {"pairing": mix.pairing, "inplace": True}
    network = {} if frozen is None else {"network": frozen}
    chosen = [mixer for mixer, _ in mix.choices]
    if len(chosen) == 2 and all(isinstance(m, PlannedMixer) and type(m).draw is PlannedMixer.draw for m in chosen):
        mixer: Mixer = Switch(chosen[0], chosen[1], mix.weights[1], **settings)
    else:
        filled = [_filled(mixer, **settings, **network, mean=mean, std=std) for mixer in chosen]
        mixer = Either(filled[0], filled[1], mix.weights[1]) if len(filled) == 2 else filled[0] if filled else NoMix()
    for step in mix.then:
        mixer = _filled(step, mixer=mixer)
    return mixer


def _filled(part: Any, **given: Any) -> Any:
    """A mixer or step with what a run leaves to its builder, as far as it has such fields."""
    return replace(part, **{field.name: given[field.name] for field in fields(part) if field.name in given})


def build_loss(loss: Loss) -> MixLoss:
    """The loss of a run: its label rule and the sum of its terms."""
    return MixLoss(loss.rule, loss.terms)


def frozen_network(setup: Setup) -> nn.Module | None:
    """The network that one of the run's mixers looks through, None where none does."""
    for mixer, _ in setup.run.mix.choices:
        if part_of(mixer).needs == "a frozen network":
            frozen: nn.Module = mixer.network(setup.run.data, setup.mean, setup.std, setup.pretrained)
            return frozen.to(setup.device).eval().requires_grad_(False)
    return None
