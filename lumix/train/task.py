"""MixTask: timm's training task that owns the mixer, the model, the label rule and the loss."""

from typing import Any

import torch
from timm.task import ClassificationTask
from torch import Tensor, nn

from lumix.batch import MixedBatch
from lumix.loss import MixLoss
from lumix.mixers import CutMix, Mixer, Mixup, RandomLambda, RandomShuffle, Switch
from lumix.mixers.plan import apply_plan, unmixed_plan
from lumix.rules import AreaRule, BetaLaw, ConstantLaw, Law, LUMixRule, NormalLaw, Rule
from lumix.train.config import Loss, Mix


class NoMix:
    """The mixer that leaves every sample as it is."""

    def __call__(self, images: Tensor, labels: Tensor, generator: torch.Generator, model: Any = None) -> MixedBatch:
        return apply_plan(images, labels, unmixed_plan(len(images), images.device))


def build_mixer(mix: Mix) -> Mixer:
    """The mixer that a run's `Mix` describes."""
    if mix.random_lambda_patch:
        return RandomLambda(mix.mixup_alpha, mix.random_lambda_patch, mix.pairing)
    draw: dict[str, Any] = {"mode": mix.mode, "pairing": mix.pairing, "prob": mix.prob}
    mixer: Mixer
    if mix.mixup_alpha and mix.cutmix_alpha:
        cutmix = CutMix(mix.cutmix_alpha, box_rule=mix.box_rule)
        mixer = Switch(Mixup(mix.mixup_alpha), cutmix, mix.switch_prob, **draw)
    elif mix.cutmix_alpha:
        mixer = CutMix(mix.cutmix_alpha, box_rule=mix.box_rule, **draw)
    else:
        mixer = Mixup(mix.mixup_alpha, **draw) if mix.mixup_alpha else NoMix()
    return RandomShuffle(mixer, mix.shuffle_patch) if mix.shuffle_patch else mixer


def _build_law(loss: Loss) -> Law:
    if loss.law == "beta":
        return BetaLaw(loss.law_parameter)
    if loss.law == "normal":
        return NormalLaw(loss.law_parameter, loss.law_reading)
    return ConstantLaw(loss.law_parameter)


def build_loss(loss: Loss) -> MixLoss:
    """The loss and label rule that a run's `Loss` describes."""
    rule: Rule = AreaRule()
    if loss.perturbs:
        rule = LUMixRule(loss.r_r, loss.r_s, _build_law(loss), loss.detach, loss.apply_to, loss.scores)
    return MixLoss(
        rule,
        kind=loss.kind,
        smoothing=loss.smoothing,
        eta=loss.eta,
        regulariser=loss.regulariser,
        bce_target=loss.bce_target,
        bce_threshold=loss.bce_threshold,
        bce_reduction=loss.bce_reduction,
        score="sigmoid" if loss.scores == "sigmoid" else "softmax",
    )


class MixTask(ClassificationTask):
    """Mix on the device, forward, loss. Keyword arguments only: timm's signatures still move."""

    criterion: MixLoss

    def __init__(self, *, model: nn.Module, mixer: Mixer, loss: MixLoss, device: torch.device) -> None:
        super().__init__(model=model, criterion=loss, device=device, verbose=False)
        self.mixer = mixer

    def mix(self, images: Tensor, labels: Tensor, *, generator: torch.Generator) -> MixedBatch:
        """The mixed batch of images [B, C, H, W] and labels [B]."""
        return self.mixer(images, labels, generator, self.trainable_module)

    def forward(  # type: ignore[override]
        self, input: Tensor, target: MixedBatch, *, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Loss on mixed images; `target` is the batch from `mix`, of which `input` are the images.

        Returns:
            "loss", a scalar; "output", logits [B, C]; "own_weight", the weights [B] that the rule gave.
        """
        logits = self.trainable_module(input)
        weight = self.criterion.weights(logits, target, generator)
        loss = self.criterion.per_sample(logits, target, weight).mean()
        return {"loss": loss, "output": logits, "own_weight": weight.detach()}
