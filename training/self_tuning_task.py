"""Self-Tuning as a task of the engine, with the mixed losses of the run where it mixes (Decoupled Mixup)."""

from typing import Any

import torch
from timm.utils.model import unwrap_model
from torch import Tensor, nn

from lumix.mixers.none import NoMix
from lumix.semi import learner as learners
from lumix.semi.learner import ContrastBatch
from lumix.semi.views import Views
from training.build import Setup, build_loss, build_mixer, frozen_network
from training.config import Mix
from training.mix_task import MixTask, record_of
from training.optim import parameter_groups
from training.rng import stream_seed
from training.task import StepResult, Streams


class SelfTuningTask(MixTask):
    """A learner whose batches are `Views` with the labels of the labelled ones.

    Accuracy is that of the query network with its classifier. Without mixing it is Self-Tuning itself; with it the
    weight of labelled images mixed with unlabelled ones rises over the run's updates. The seed decides the initial
    weights of the projector.
    """

    def __init__(self, options: Any, setup: Setup) -> None:
        run = setup.run
        if run.optim.ema_decay:
            raise ValueError(f"this task keeps no average: leave Optim.ema_decay, which is {run.optim.ema_decay}, at 0")
        mixers = {}
        if run.mix != Mix():
            frozen = frozen_network(setup)
            mixers = {
                name: build_mixer(mix, setup.mean, setup.std, frozen)
                for name, mix in (("mixer", run.mix), ("pair_mixer", run.mix.replace(pairing="flip")))
            }
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(stream_seed(setup.seed, "projector"))
            learner = learners.SelfTuning(
                setup.network,
                loss=build_loss(run.loss),
                places=options.places,
                features=options.features,
                temperature=options.temperature,
                momentum=options.momentum,
                **mixers,
            )
        super().__init__(
            model=learner.to(setup.device),
            mixer=mixers.get("mixer", NoMix()),
            loss=learner.loss,
            device=setup.device,
            channels_last=run.channels_last,
        )
        self.updates, factor = setup.updates, options.head_lr_factor
        self.head_rates = {"lr": factor * run.optim.lr, "min_lr": factor * run.optim.min_lr}

    @property
    def learner(self) -> learners.SelfTuning:
        learner = unwrap_model(self.trainable_module)
        assert isinstance(learner, learners.SelfTuning)
        return learner

    def prepare(self, images: Views, labels: Tensor, streams: Streams) -> ContrastBatch:  # type: ignore[override]
        """Keys, pseudo-labels and mixed images, whose draws are of the streams "mix" and "rule"."""
        images = images.each(lambda view: view.to(memory_format=self.memory_format))
        self.prepared = self.learner.prepare(images, labels, streams("mix"), streams("rule"))
        return self.prepared

    def step(self, part: ContrastBatch) -> StepResult:  # type: ignore[override]
        losses = self.trainable_module(part)
        loss = torch.stack(list(losses.parts.values())).sum(dim=0)
        if part.mixed is None:
            return StepResult(losses.loss, losses.parts, {"loss": loss})
        return StepResult(
            losses.loss, losses.parts, record_of(part.mixed.batch, self.learner.loss, loss, losses.own_weight)
        )

    def parameter_groups(self) -> list[dict[str, Any]]:
        """As for any network; those of the classifier have its learning rates."""
        classifier: nn.Module = self.learner.network.get_classifier()  # type: ignore[operator]
        head = {id(parameter) for parameter in classifier.parameters()}
        found = []
        for group in parameter_groups(self.learner):
            own = [parameter for parameter in group["params"] if id(parameter) in head]
            others = [parameter for parameter in group["params"] if id(parameter) not in head]
            found += [{**group, "params": others}, {**group, "params": own, **self.head_rates}]
        return [group for group in found if group["params"]]

    def after_update(self, step: int) -> None:
        """The keys of the batch that was prepared last come into the queues."""
        self.learner.after_update(self.prepared, min((step + 1) / self.updates, 1.0))

    def reported_model(self) -> nn.Module:
        return self.learner.network
