"""What a run's records describe, as objects: mixer, label rule, loss, and the task that trains with them."""

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from lumix import mixers
from lumix.loss import MixLoss
from lumix.rules import AreaRule, BetaLaw, ConstantLaw, Law, LUMixRule, NormalLaw, Rule, TransMixRule
from lumix.train.config import Loss, Mix, Run
from lumix.train.frozen import frozen_network
from lumix.train.mix_task import MixTask, NoMix


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
        return NormalLaw(loss.law_parameter, loss.law_reading)
    return ConstantLaw(loss.law_parameter)


def build_loss(loss: Loss) -> MixLoss:
    """The loss and label rule that a run's `Loss` describes."""
    rule: Rule = AreaRule()
    if loss.perturbs:
        rule = LUMixRule(loss.r_r, loss.r_s, _build_law(loss), loss.detach, loss.apply_to, loss.scores, loss.r_a)
    elif loss.r_a:
        rule = TransMixRule(loss.r_a)
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
        model=network,
        mixer=build_mixer(run.mix, mean, std, frozen),
        loss=build_loss(run.loss),
        device=device,
        channels_last=run.channels_last,
        ema_decay=run.optim.ema_decay,
        ema_reported=run.optim.ema_reported,
    )
