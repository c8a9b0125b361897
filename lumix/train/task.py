"""MixTask: timm's training task that owns the mixer, the model, the label rule and the loss."""

from dataclasses import replace
from typing import Any

import torch
from timm.task import ClassificationTask
from timm.utils.model import unwrap_model
from torch import Tensor, nn

from lumix import mixers
from lumix.batch import MixedBatch
from lumix.loss import MixLoss
from lumix.mixers.apply import apply_plan
from lumix.mixers.plan import unmixed_plan
from lumix.rules import AreaRule, BetaLaw, ConstantLaw, Law, LUMixRule, NormalLaw, Rule, TransMixRule
from lumix.terms import BinaryCrossEntropy, CrossEntropy, Regulariser, Term
from lumix.train.attention import check_class_attention, recorded_attention
from lumix.train.config import Loss, Mix, Run
from lumix.train.frozen import frozen_network


class NoMix:
    """The mixer that leaves every sample as it is."""

    def __call__(self, images: Tensor, labels: Tensor, generator: torch.Generator, model: Any = None) -> MixedBatch:
        return apply_plan(images, labels, unmixed_plan(len(images), images.device))


def build_mixer(
    mix: Mix, mean: tuple[float, ...], std: tuple[float, ...], network: nn.Module | None = None
) -> mixers.Mixer:
    """The mixer that a run's `Mix` describes, for images that were normalised by `mean` and `std`.

    `network` is the frozen one of Attentive-CutMix, from `frozen.frozen_network`.
    """
    if mix.random_lambda_patch:
        return mixers.RandomLambda(mix.mixup_alpha, mix.random_lambda_patch, mix.pairing)
    draw: dict[str, Any] = {"mode": mix.mode, "pairing": mix.pairing, "prob": mix.prob}
    mixer: Any
    if not mix.cutmix_alpha:
        mixer = mixers.Mixup(mix.mixup_alpha, **draw) if mix.mixup_alpha else NoMix()
    elif mix.method == "cutmix":
        cutmix = mixers.CutMix(mix.cutmix_alpha, box_rule=mix.box_rule)
        mixer = replace(cutmix, **draw)
        if mix.mixup_alpha:
            mixer = mixers.Switch(mixers.Mixup(mix.mixup_alpha), cutmix, mix.switch_prob, **draw)
    else:
        mixer = _build_rival(mix, mean, std, network)
        if mix.mixup_alpha:
            mixup = mixers.Mixup(mix.mixup_alpha, mode=mix.mode, pairing=mix.pairing)
            mixer = mixers.Either(mixup, replace(mixer, prob=1.0), mix.switch_prob, mix.prob)
    return mixers.RandomShuffle(mixer, mix.shuffle_patch) if mix.shuffle_patch else mixer


def _build_rival(mix: Mix, mean: tuple[float, ...], std: tuple[float, ...], network: nn.Module | None) -> Any:
    """The mixer named by `mix.method`, other than CutMix, with its authors' defaults."""
    draw: dict[str, Any] = {"pairing": mix.pairing, "prob": mix.prob}
    if mix.method == "saliencymix":
        return mixers.SaliencyMix(mix.cutmix_alpha, mean=mean, std=std, **draw)
    if mix.method == "puzzlemix":
        return mixers.PuzzleMix(mix.cutmix_alpha, transport_size=mix.transport_size, std=std, **draw)
    if mix.method == "attentivecutmix":
        assert network is not None
        return mixers.AttentiveCutMix(network, mix.cells, size=mix.frozen_size or None, **draw)
    if mix.method == "resizemix":
        return mixers.ResizeMix(**draw)
    return (
        mixers.FMix(mix.cutmix_alpha, **draw)
        if mix.method == "fmix"
        else mixers.ManifoldMix(alpha=mix.cutmix_alpha, **draw)
    )


def _build_law(loss: Loss) -> Law:
    if loss.law == "beta":
        return BetaLaw(loss.law_parameter)
    if loss.law == "normal":
        return NormalLaw(loss.law_parameter, "raw" if loss.law_reading == "clamp_final" else loss.law_reading)
    return ConstantLaw(loss.law_parameter)


def build_loss(loss: Loss) -> MixLoss:
    """The loss and label rule that a run's `Loss` describes."""
    rule: Rule = AreaRule()
    if loss.perturbs:
        apply_to = "cut" if loss.apply_to == "cutmix" else loss.apply_to
        rule = LUMixRule(loss.r_r, loss.r_s, _build_law(loss), loss.detach, apply_to, loss.scores, loss.r_a)
    elif loss.r_a:
        rule = TransMixRule(loss.r_a)
    terms: list[Term] = [CrossEntropy(loss.smoothing)]
    if loss.kind == "bce":
        terms = [BinaryCrossEntropy(loss.smoothing, loss.bce_target, loss.bce_threshold, loss.bce_reduction)]
    if loss.eta:
        scores = "sigmoid" if loss.scores == "sigmoid" else "softmax"
        terms.append(Regulariser(loss.eta, loss.smoothing, loss.regulariser, scores))
    return MixLoss(rule, terms)


class MixTask(ClassificationTask):
    """Mix on the device, forward, loss. Keyword arguments only: timm's signatures still move."""

    criterion: MixLoss

    def __init__(self, *, model: nn.Module, mixer: mixers.Mixer, loss: MixLoss, device: torch.device) -> None:
        """Raise ValueError, naming the model, where the label rule asks for attention that it does not have."""
        if loss.rule.needs_attention:
            check_class_attention(model)
        super().__init__(model=model, criterion=loss, device=device, verbose=False)
        self.mixer = mixer

    def mix(self, images: Tensor, labels: Tensor, *, generator: torch.Generator) -> MixedBatch:
        """The mixed batch of images [B, C, H, W] and labels [B]."""
        return self.mixer(images, labels, generator, unwrap_model(self.trainable_module))

    def forward(  # type: ignore[override]
        self, input: Tensor, target: MixedBatch, *, draws: Tensor | None
    ) -> dict[str, Tensor]:
        """Loss on mixed images; `target` is the batch from `mix`, of which `input` are the images.

        `draws` are those of `criterion.draw` for these samples.

        Returns:
            "loss", a scalar; "output", logits [B, C]; "own_weight", the weights [B] that the rule gave.
        """
        network = unwrap_model(self.trainable_module)
        attention = None
        with mixers.hidden_mixing(network, target):
            if self.criterion.rule.needs_attention:
                with recorded_attention(network) as recorded:
                    logits = self.trainable_module(input)
                attention = recorded[-1].mean(dim=1)
            else:
                logits = self.trainable_module(input)
        weight = self.criterion.weights(logits, target, draws, attention)
        loss = self.criterion.per_sample(logits, target, weight)[0].mean()
        return {"loss": loss, "output": logits, "own_weight": weight.detach()}


def build_task(
    run: Run,
    network: nn.Module,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    device: torch.device,
    pretrained: bool = True,
) -> MixTask:
    """The task of a run for a network on `device` and images normalised by `mean` and `std`.

    Without `pretrained` a frozen network has random weights, which is enough to measure time.
    """
    frozen = frozen_network(run.mix, run.data, mean, std, device, pretrained)
    return MixTask(
        model=network, mixer=build_mixer(run.mix, mean, std, frozen), loss=build_loss(run.loss), device=device
    )
