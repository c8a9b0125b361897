"""The methods of the tables as functions from a base run to a run: equal methods, equal runs, whichever table asks."""

from dataclasses import replace
from functools import partial
from typing import Any

import lumix as parts
from training.config import Loss, Run
from training.parts import Embedded, Pretrained

HEADLINE_ROLE = "deit_s"
MIXUP, CUTMIX = parts.Mixup(alpha=0.8), parts.CutMix(alpha=1.0)
SWITCH = ((MIXUP, 0.5), (CUTMIX, 0.5))  # the mixing of DeiT's recipe: one of the two for each batch
PLAIN = Loss(terms=(parts.CrossEntropy(),))  # nothing smoothed, labels by area


def same(run: Run) -> Run:
    """The base run itself: Mixup and CutMix, the ordinary loss."""
    return run


# ------------------------------------------------------------------------------------------------- label rules, losses


def with_rule(run: Run, rule: parts.Rule) -> Run:
    """The run with another label rule."""
    return run.replace(loss=run.loss.replace(rule=rule))


def with_regulariser(run: Run, eta: float, **changes: Any) -> Run:
    """The run with LUMix's regulariser R, on targets smoothed as those of its first term; without where eta is 0."""
    first, *others = run.loss.terms
    kept = (term for term in others if term.name != "regulariser")
    added = (parts.Regulariser(eta=eta, smoothing=getattr(first, "smoothing", 0.0), **changes),) if eta else ()
    return run.replace(loss=run.loss.replace(terms=(first, *kept, *added)))


def components(run: Run, r_r: float, r_s: float, eta: float = 0.0) -> Run:
    """Parts of LUMix: weights of the random and of the predicted ratio, R only where eta is above 0."""
    return with_regulariser(with_rule(run, parts.LUMixRule(r_r=r_r, r_s=r_s)), eta)


def lumix(run: Run, eta: float = 1.0, reading: str = "or", **changes: Any) -> Run:
    """LUMix in full: 0.4 of a Beta(2, 2) draw, 0.1 of the predicted ratio, R (best rows of Tables 3 and 10).

    `eta` and `reading` are R's, `changes` arguments of the rule that differ.
    """
    return with_regulariser(with_rule(run, parts.LUMixRule(**changes)), eta, reading=reading)


# LUMix with the random ratio fixed at its mean 1/2: the same expected gradient, no noise.
constant_control = partial(lumix, law=parts.ConstantLaw())
# LUMix that gives half of the area's remaining 0.5 to attention, as TransMix gives half of the whole (ours).
lumix_and_attention = partial(lumix, r_a=0.25)
transmix = partial(with_rule, rule=parts.TransMixRule())  # the label weight of cut images: mean of area and attention


def binary(run: Run, **changes: Any) -> Run:
    """The run under binary cross entropy in place of softmax cross entropy, smoothed alike."""
    first, *others = run.loss.terms
    base = parts.BinaryCrossEntropy(smoothing=getattr(first, "smoothing", 0.0), **changes)
    return run.replace(loss=run.loss.replace(terms=(base, *others)))


def sigmoid_scores(run: Run) -> Run:
    """The run with the predicted ratio and R read from sigmoids instead of the softmax (I-17)."""
    terms = (replace(term, scores="sigmoid") if term.name == "regulariser" else term for term in run.loss.terms)
    return run.replace(loss=run.loss.replace(rule=replace(run.loss.rule, scores="sigmoid"), terms=tuple(terms)))


# ------------------------------------------------------------------------------------------------- mixing


def random_shuffle(run: Run, patch: int) -> Run:
    """Random Shuffling: patches of the mixed image are permuted (Table 12)."""
    return run.replace(mix=run.mix.replace(then=(parts.RandomShuffle(patch=patch),)))


def random_lambda(run: Run, patch: int) -> Run:
    """Random lambda: one Beta(0.8, 0.8) ratio for each patch, in place of both Mixup and CutMix (Table 12, I-18)."""
    return run.replace(mix=run.mix.replace(choices=((parts.RandomLambda(alpha=0.8, patch=patch), 1.0),)))


def without_cutmix(run: Run) -> Run:
    """Mixup alone, the baseline of Table 6."""
    return run.replace(mix=run.mix.replace(choices=((MIXUP, 1.0),)))


def in_place_of_cutmix(run: Run, rival: parts.Mixer) -> Run:
    """A rival of Table 6 in CutMix's place in the switch, Mixup kept."""
    return run.replace(mix=run.mix.replace(choices=((MIXUP, 0.5), (rival, 0.5))))


def puzzle(run: Run, alpha: float = 1.0) -> parts.PuzzleMix:
    """Puzzle-Mix; transport moves cells of 4 pixels on small images, as on CIFAR, and whole blocks on all others."""
    return parts.PuzzleMix(alpha=alpha, transport_size=4 if 32 <= run.data.image_size <= 64 else -1)


def manifold(run: Run, alpha: float = 2.0) -> parts.ManifoldMix:
    """ManifoldMix after the input or one of the first two stages, which residual nets of version 2 name otherwise."""
    if run.model.name.startswith("resnetv2"):
        return parts.ManifoldMix(("", "stages.0", "stages.1"), alpha)
    return parts.ManifoldMix(alpha=alpha)


def puzzle_mix(run: Run) -> Run:
    """Puzzle-Mix in CutMix's place."""
    return in_place_of_cutmix(run, puzzle(run))


def attentive_cutmix(run: Run) -> Run:
    """Attentive-CutMix: 6 of the 7x7 cells of a ResNet-50 pretrained on ImageNet that sees the images at 224 pixels.

    For embedded sets a tiny ResNet that was trained on them stands in for it: 2 of 4x4 cells on the digits.
    """
    if run.data.name in ("digits", "shapes"):
        return in_place_of_cutmix(run, parts.AttentiveCutMix(network=Embedded(), size=None, cells=2))
    return in_place_of_cutmix(run, parts.AttentiveCutMix(network=Pretrained(model="resnet50.tv_in1k")))


def smoothed(run: Run, smoothing: float) -> Run:
    """The run under cross entropy with this label smoothing."""
    first, *others = run.loss.terms
    return run.replace(loss=run.loss.replace(terms=(replace(first, smoothing=smoothing), *others)))
