"""AutoMix and SAMix as a task of the engine."""

from typing import Any

import torch
from timm.task import ClassificationTask
from timm.utils.model import unwrap_model
from torch import Tensor, nn

from lumix.automix import learner as learners
from lumix.automix.learner import LearnersBatch
from lumix.batch import MixedBatch
from lumix.draws import draw_beta
from lumix.mixers.eval_mode import evaluating
from lumix.registry import name_of
from training.build import Setup, build_loss
from training.config import Mix
from training.mix_task import record_of
from training.mixed_accuracy import next_ones
from training.optim import parameter_groups
from training.rng import stream_seed
from training.task import StepResult, Streams


class AutoMixTask(ClassificationTask):
    """A learner, its schedules over the run's updates, and learning rates of the mask generator's own.

    Accuracy is that of the network itself with its own head, which learns from mixed images. The seed decides the
    initial weights of the mask generator.
    """

    def __init__(self, options: Any, setup: Setup) -> None:
        run, device = setup.run, setup.device
        if run.mix != Mix():
            raise ValueError(f"a task that learns to mix takes the place of Run.mix, which is {run.mix}: leave it out")
        if run.optim.ema_decay:
            raise ValueError(f"this task keeps no average: leave Optim.ema_decay, which is {run.optim.ema_decay}, at 0")
        kind = learners.SAMix if name_of(options) == "samix" else learners.AutoMix
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(stream_seed(setup.seed, "block"))
            learner = kind(
                setup.network,
                build_loss(run.loss),
                alpha=options.alpha,
                stage=options.stage,
                large=options.large,
                momentum=options.momentum,
                mask_decays=options.mask_decays,
                share=options.share,
            )
        self.memory_format = torch.channels_last if run.channels_last else torch.preserve_format
        learner = learner.to(device).to(memory_format=self.memory_format)
        super().__init__(model=learner, criterion=learner.loss, device=device, verbose=False)
        self.updates = setup.updates
        own = {"lr": options.block_lr, "min_lr": options.block_min_lr}
        self.block_rates = {name: rate for name, rate in own.items() if rate is not None}

    @property
    def learner(self) -> learners.AutoMix:
        learner = unwrap_model(self.trainable_module)
        assert isinstance(learner, learners.AutoMix)
        return learner

    def prepare(self, images: Tensor, labels: Tensor, streams: Streams) -> LearnersBatch:
        """Both draws by the stream "mix", the label rule's by the stream "rule"."""
        images = images.to(memory_format=self.memory_format)
        return self.learner.prepare(images, labels, streams("mix"), streams("rule"))

    def step(self, part: LearnersBatch) -> StepResult:
        losses = self.trainable_module(part)
        loss = torch.stack(list(losses.parts.values())).sum(dim=0)
        record = record_of(part.mixed, self.learner.loss, loss, losses.own_weight)
        return StepResult(losses.loss, losses.parts, record)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """As for any network; those of the mask generator have its learning rates."""
        block = {id(parameter) for parameter in self.learner.block.parameters()}
        found = []
        for group in parameter_groups(self.learner):
            own = [parameter for parameter in group["params"] if id(parameter) in block]
            others = [parameter for parameter in group["params"] if id(parameter) not in block]
            found += [{**group, "params": others}, {**group, "params": own, **self.block_rates}]
        return [group for group in found if group["params"]]

    def after_update(self, step: int) -> None:
        self.learner.after_update(min((step + 1) / self.updates, 1.0))

    def reported_model(self) -> nn.Module:
        return self.learner.network

    def mix_test(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> MixedBatch:
        weight = draw_beta(self.learner.alpha, len(images), generator).float().to(images.device)
        with evaluating(self.learner):
            return self.learner.mix(images, labels, next_ones(len(images)).to(images.device), weight)

    def checkpoint(self) -> dict[str, Any]:
        return dict(self.get_checkpoint_state())

    def restore(self, saved: dict[str, Any]) -> None:
        self.load_checkpoint_state(saved["state_dict"])
