"""Learners of the method as tasks: AutoMix and SAMix, which learn their masks, and Self-Tuning."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn

from lumix import automix
from lumix.batch import MixedBatch
from lumix.mixers.base import NoMix
from lumix.registry import name_of
from lumix.semi import SelfTuning
from training.build import Setup, build_loss, build_mixer, frozen_network
from training.config import Mix
from training.optim import parameter_groups
from training.rng import stream_seed
from training.tasks.mixed import StepResult, Streams, Task, record_of

HEAD_RATE = 10.0  # learning rate of Self-Tuning's classifier over the run's


class LearnerTask(Task):
    """A learner: the network, whose accuracy counts, with what learns or is remembered beside it."""

    def __init__(
        self,
        setup: Setup,
        stream: str,  # decides, with the run's seed, the initial weights beside the network's
        build: Callable[[], nn.Module],  # the learner
        part: Callable[[Any], nn.Module],  # finds the module in it that has `rates` in place of the run's
        rates: dict[str, float],
    ) -> None:
        run = setup.run
        if run.optim.ema_decay:
            raise ValueError(f"this task keeps no average: leave Optim.ema_decay, which is {run.optim.ema_decay}, at 0")
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(stream_seed(setup.seed, stream))
            learner: Any = build().to(setup.device)
        super().__init__(learner, learner.loss, setup.device, run.channels_last)
        self.updates, self.part, self.rates = setup.updates, part, rates

    @property
    def learner(self) -> Any:
        return self.network

    def result(self, part: Any, mixed: MixedBatch | None) -> StepResult:
        """One forward pass of the learner, recorded as of a mixed batch where there is one."""
        losses = self.trainable_module(part)
        loss = torch.stack(list(losses.parts.values())).sum(dim=0)
        if mixed is None:
            return StepResult(losses.loss, losses.parts, {"loss": loss})
        return StepResult(losses.loss, losses.parts, record_of(mixed, self.learner.loss, loss, losses.own_weight))

    def parameter_groups(self) -> list[dict[str, Any]]:
        return parameter_groups(self.learner, self.part(self.learner), **self.rates)

    def progress(self, step: int) -> float:
        """How much of the run is done after update `step`."""
        return min((step + 1) / self.updates, 1.0)

    def reported_model(self) -> nn.Module:
        network: nn.Module = self.learner.network
        return network


class AutoMixTask(LearnerTask):
    """AutoMix or SAMix, its schedules over the run's updates, and learning rates of the mask generator's own.

    The network learns from mixed images with its own head.
    """

    def __init__(self, options: Any, setup: Setup) -> None:
        run = setup.run
        if run.mix != Mix():
            raise ValueError(f"a task that learns to mix takes the place of Run.mix, which is {run.mix}: leave it out")
        kind = automix.SAMix if name_of(options) == "samix" else automix.AutoMix
        rates = {"lr": options.block_lr, "min_lr": options.block_min_lr}
        arguments = {field.name: getattr(options, field.name) for field in fields(kind.OPTIONS)}
        super().__init__(
            setup,
            "block",
            lambda: kind(setup.network, build_loss(run.loss), **arguments),
            lambda learner: learner.block,
            {name: rate for name, rate in rates.items() if rate is not None},
        )

    def prepare(self, images: Any, labels: Tensor, streams: Streams) -> Any:
        """Both draws by the stream "mix", the label rule's by the stream "rule"."""
        images = images.to(memory_format=self.memory_format)
        return self.learner.prepare(images, labels, streams("mix"), streams("rule"))

    def step(self, part: Any) -> StepResult:
        return self.result(part, part.mixed)

    def after_update(self, step: int) -> None:
        self.learner.after_update(self.progress(step))


class SelfTuningTask(LearnerTask):
    """Self-Tuning, whose batches are `Views` with the labels of the labelled ones; the classifier learns faster.

    Where the run mixes its mixed losses are added (Decoupled Mixup), and the weight of labelled images mixed with
    unlabelled ones rises over the run's updates.
    """

    def __init__(self, options: Any, setup: Setup) -> None:
        run = setup.run
        mixers: dict[str, Any] = {}
        if run.mix != Mix():
            frozen = frozen_network(setup)
            mixers = {
                name: build_mixer(mix, setup.mean, setup.std, frozen)
                for name, mix in (("mixer", run.mix), ("pair_mixer", run.mix.replace(pairing="flip")))
            }
        super().__init__(
            setup,
            "projector",
            lambda: SelfTuning(setup.network, loss=build_loss(run.loss), **vars(options), **mixers),
            lambda learner: nn.ModuleList([learner.network.get_classifier(), *getattr(learner, "mixed_head", ())]),
            {"lr": HEAD_RATE * run.optim.lr, "min_lr": HEAD_RATE * run.optim.min_lr},
        )
        self.mixer = mixers.get("mixer", NoMix())  # of test images

    def prepare(self, images: Any, labels: Tensor, streams: Streams) -> Any:
        """Keys, pseudo-labels and mixed images, whose draws are of the streams "mix" and "rule"."""
        images = images.each(lambda view: view.to(memory_format=self.memory_format))
        self.prepared = self.learner.prepare(images, labels, streams("mix"), streams("rule"))
        return self.prepared

    def step(self, part: Any) -> StepResult:
        return self.result(part, None if part.mixed is None else part.mixed.batch)

    def after_update(self, step: int) -> None:
        """The keys of the batch that was prepared last come into the queues."""
        self.learner.after_update(self.prepared, self.progress(step))
