"""Self-Tuning as a task of the engine, with the mixed losses of the run where it mixes (Decoupled Mixup)."""

from typing import Any

import torch
from timm.utils.model import unwrap_model
from torch import Tensor, nn

from lumix.checks import check_positive
from lumix.mixers.none import NoMix
from lumix.semi.learner import ContrastBatch, SelfTuning
from lumix.semi.views import Views
from training.build import build_loss, build_mixer, frozen_network
from training.config import Mix, Run
from training.mix_task import MixTask, record_of
from training.optim import parameter_groups
from training.rng import stream_seed
from training.task import StepResult, Streams


class SelfTuningTask(MixTask):
    """A learner whose batches are `Views` with the labels of the labelled ones.

    Accuracy is that of the query network with its classifier.

    Args:
        run: its mixing and mixed loss; without mixing it is Self-Tuning itself.
        seed: decides the initial weights of the projector.
        updates: over which the weight of labelled images mixed with unlabelled ones rises.
        head_lr_factor: learning rate of the classifier over the run's.

    Raises:
        ValueError: for a run that keeps a moving average.
    """

    def __init__(
        self,
        *,
        run: Run,
        network: nn.Module,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        device: torch.device,
        pretrained: bool = True,
        seed: int,
        updates: int,
        places: int = 32,
        features: int = 1024,
        temperature: float = 0.07,
        momentum: float = 0.999,
        head_lr_factor: float = 10.0,
    ) -> None:
        if run.optim.ema_decay:
            raise ValueError(f"this task keeps no average: leave Optim.ema_decay, which is {run.optim.ema_decay}, at 0")
        check_positive("head_lr_factor", head_lr_factor)
        mixers = {}
        if run.mix != Mix():
            frozen = frozen_network(run, mean, std, device, pretrained)
            mixers = {
                name: build_mixer(mix, mean, std, frozen)
                for name, mix in (("mixer", run.mix), ("pair_mixer", run.mix.replace(pairing="flip")))
            }
        options = {"places": places, "features": features, "temperature": temperature, "momentum": momentum}
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(stream_seed(seed, "projector"))
            learner = SelfTuning(network, loss=build_loss(run.loss), **mixers, **options)  # type: ignore[arg-type]
        super().__init__(
            model=learner.to(device),
            mixer=mixers.get("mixer", NoMix()),
            loss=learner.loss,
            device=device,
            channels_last=run.channels_last,
        )
        self.updates = updates
        self.head_rates = {"lr": head_lr_factor * run.optim.lr, "min_lr": head_lr_factor * run.optim.min_lr}

    @property
    def learner(self) -> SelfTuning:
        learner = unwrap_model(self.trainable_module)
        assert isinstance(learner, SelfTuning)
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
