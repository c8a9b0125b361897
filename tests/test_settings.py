"""Settings: each that is changed changes what comes out or is refused, in every composition, and none acts twice."""

import copy
import dataclasses
import itertools
from functools import partial

import pytest
import torch
from batches import images_of, labels_of, stream
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import lumix
from lumix.integrations.timm import Criterion
from lumix.integrations.timm import Mixup as DropIn

CLASSES, SIZE = 10, 8
IMAGES, LABELS = images_of(SIZE, height=16, width=16), labels_of(SIZE)
NETWORK = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.Tanh(), nn.Flatten(), nn.Linear(64, CLASSES))
WEIGHTS = torch.linspace(0.5, 2, CLASSES)
OTHER = {  # of each setting a value that is not the default, where a half is none
    "mode": "elem", "pairing": "flip", "box_rule": "full", "correct_lam": False, "minmax": (0.2, 0.6), "alpha": 3.0,
    "switch_prob": 0.9, "mixup": lumix.Mixup(3.0), "cutmix": lumix.CutMix(3.0), "mixer": lumix.CutMix(), "patch": 8,
    "transport": False, "transport_size": 1, "std": (1.0, 2.0, 0.1), "mean": (0.1, 0.9, 0.5), "layers": ("0",),
    "cells": 2, "size": 12, "max_soft": 0.3, "law": lumix.ConstantLaw(), "detach": False, "apply_to": "both",
    "scores": "sigmoid", "r_r": 0.2, "r_s": 0.3, "reading": "and", "target": "soft", "reduction": "class_sum",
    "eta": 0.7, "smoothing": 0.2, "threshold": 0.6, "weight": WEIGHTS, "pos_weight": WEIGHTS,
    "blend_t": 0.8, "blend_xi": 0.4, "cut_xi": 0.4,
}  # fmt: skip
MIXERS = [lumix.Mixup, lumix.CutMix, lumix.FMix, lumix.ResizeMix, lumix.SaliencyMix, lumix.PuzzleMix, lumix.Switch]
MIXERS += [lumix.RandomLambda, partial(lumix.ManifoldMix, layers=("",))]
MIXERS += [
    partial(lumix.AttentiveCutMix, NETWORK[0], cells=1, size=None),
    partial(lumix.RandomShuffle, mixer=lumix.Mixup()),
]
WITHIN = {
    "alone": lambda mixer: mixer,
    "Either": lambda mixer: lumix.Either(mixer, mixer),
    "RandomShuffle": lambda mixer: lumix.RandomShuffle(mixer, patch=4),
    "Either of Either": lambda mixer: lumix.Either(lumix.NoMix(), lumix.Either(mixer, lumix.NoMix())),
}
UNSEEN = {"inplace", "network"}  # saves memory; is a part of the user's
TERMS = [lumix.CrossEntropy, lumix.BinaryCrossEntropy, lumix.RescaledBinaryCrossEntropy, lumix.Regulariser]
TERMS += [lumix.Decoupled, partial(lumix.BinaryCrossEntropy, target="threshold")]


def changed(make):
    """A part by its defaults, and one for each setting, by the setting's name; settings that are refused are absent."""
    for field in dataclasses.fields(make()):
        if field.name not in UNSEEN:
            try:
                yield field.name, make(**{field.name: OTHER.get(field.name, 0.5)})
            except ValueError as error:
                assert "has no use" in str(error)  # noqa: PT017


def mixed(mixer, seeds=60):
    return [mixer(IMAGES, LABELS, stream(seed), NETWORK) for seed in range(seeds)]


def equal(one, other):
    pairs = zip(one, other, strict=True)
    return all(torch.equal(a.images, b.images) and torch.equal(a.own_weight, b.own_weight) for a, b in pairs)


@pytest.mark.parametrize("make", MIXERS, ids=repr)
@pytest.mark.parametrize("within", WITHIN)
def test_each_setting_of_a_mixer_changes_batches(make, within):
    plain = mixed(WITHIN[within](make()))
    for name, mixer in changed(make):
        other = mixed(WITHIN[within](mixer))
        hidden = [batch.hidden for batch in other] != [batch.hidden for batch in plain]
        moved = [batch.moved for batch in other] != [batch.moved for batch in plain]
        assert hidden or moved or not equal(plain, other), name


@given(outer=st.floats(0.2, 1), inner=st.floats(0.2, 1), switch=st.floats(0, 1))
@settings(max_examples=12, derandomize=True, deadline=None)
def test_probabilities_of_nested_mixers_act_once_each(outer, inner, switch):
    mixer = lumix.Either(lumix.Mixup(prob=inner), lumix.CutMix(prob=inner, minmax=(0.3, 0.6)), switch, outer)
    kinds = torch.cat([mixer(IMAGES[:2], LABELS[:2], stream(seed)).kind[:1] for seed in range(600)])
    for kind, share in ((lumix.Kind.BLEND, 1 - switch), (lumix.Kind.BOX, switch)):
        expected = outer * inner * share
        assert (
            abs(float((kinds == kind).float().mean()) - expected)
            < 4.5 * (expected * (1 - expected) / 600) ** 0.5 + 1e-9
        )


def batch_of(seed=0, mixer=lumix.Switch(mode="elem")):  # noqa: B008
    return mixer(IMAGES, LABELS, stream(seed)), torch.randn(SIZE, CLASSES, generator=stream(seed + 1))


def value(loss, seed=0):
    batch, logits = batch_of(seed)
    return loss(logits, batch, stream(seed))


@pytest.mark.parametrize("make", TERMS, ids=repr)
@pytest.mark.parametrize("beside", [(), (lumix.CrossEntropy(0.1),)])
def test_each_setting_of_a_term_changes_the_loss(make, beside):
    beside = () if type(make()) is lumix.CrossEntropy else beside
    plain = [value(lumix.MixLoss(lumix.LUMixRule(), [make(), *beside]), seed) for seed in range(12)]
    for name, term in changed(make):
        found = [value(lumix.MixLoss(lumix.LUMixRule(), [*beside, term]), seed) for seed in range(12)]
        assert not torch.allclose(torch.stack(plain), torch.stack(found)), name


def test_each_setting_of_a_rule_changes_weights_or_gradients():
    batch, logits = batch_of(1)

    def weigh(rule):
        z = logits.clone().requires_grad_()
        loss = lumix.MixLoss(rule, smoothing=0.1, eta=0.5)(z, batch, stream(), torch.rand(SIZE, 16, generator=stream()))
        return torch.cat([loss.view(1), *torch.autograd.grad(loss, z)[0]])

    for make in (lumix.LUMixRule, partial(lumix.TransMixRule, share=0.9)):
        for name, rule in changed(make):
            assert not torch.allclose(weigh(make()), weigh(rule), atol=1e-7), name


@given(smoothing=st.floats(0, 0.5), eta=st.floats(0.1, 3), order=st.permutations(range(4)), weighted=st.booleans())
@settings(max_examples=40, derandomize=True, deadline=None)
def test_terms_in_any_order_sum_to_what_each_is_alone(smoothing, eta, order, weighted):
    given_ = {"weight": WEIGHTS} if weighted else {}
    terms = [lumix.CrossEntropy(smoothing, **given_), lumix.Regulariser(eta, smoothing, **given_)]
    terms += [lumix.BinaryCrossEntropy(smoothing, **given_), lumix.Decoupled(eta, **given_)]
    rule = lumix.LUMixRule()
    whole = value(lumix.MixLoss(rule, [terms[place] for place in order]))
    torch.testing.assert_close(whole, sum(value(lumix.MixLoss(rule, [term])) for term in terms))


@given(
    smoothing=st.floats(0, 0.5), eta=st.floats(0.1, 3), prob=st.sampled_from([0.0, 0.5, 1.0]), seed=st.integers(0, 9)
)
@settings(max_examples=30, derandomize=True, deadline=None)
def test_the_drop_in_smooths_and_mixes_once(smoothing, eta, prob, seed):
    """As the mixer and the loss without it, from the same draws."""
    drop = DropIn(0.8, 1.0, prob=prob, label_smoothing=smoothing, num_classes=CLASSES, generator=stream(seed))
    loss, logits = lumix.MixLoss(lumix.LUMixRule(), smoothing=smoothing, eta=eta), batch_of(seed)[1]
    images, target = drop(IMAGES, LABELS)
    generator = stream(seed)
    batch = dataclasses.replace(lumix.Switch(), prob=prob, pairing="flip")(IMAGES, LABELS, generator)
    assert torch.equal(images, batch.images)
    assert torch.equal(Criterion(loss)(logits, target), loss(logits, batch, generator))


def test_eta_without_a_rule_that_perturbs_is_refused():
    for rule, eta in itertools.product((None, lumix.AreaRule()), (1.0, nn.Parameter(torch.zeros(())))):
        with pytest.raises(ValueError, match="has no use with AreaRule, which perturbs nothing: use LUMixRule"):
            lumix.MixLoss(rule, eta=eta)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: lumix.CutMix(2.0, (0.2, 0.5)), r"CutMix.alpha=2.0 has no use with minmax=\(0.2, 0.5\)"),
        (
            lambda: lumix.PuzzleMix(transport=False, transport_size=4),
            "transport_size=4 has no use with transport=False",
        ),
        (lambda: lumix.BinaryCrossEntropy(threshold=0.5), "threshold=0.5 has no use with target='twohot'"),
        (lambda: lumix.automix.SAMixOptions(large=True, curvature=1.0), "curvature=1.0 has no use with large=True"),
    ],
)
def test_a_setting_that_another_turns_off_is_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


def test_puzzles_of_floats_up_to_255_are_refused_or_scaled_by_std():
    draws, seen = lumix.PuzzleMix().draw(IMAGES.shape, stream()), {"saliency": torch.rand(SIZE, 16, 16)}
    with pytest.raises(ValueError, match="no normalised ones: give std="):
        lumix.PuzzleMix().apply(IMAGES.abs() * 255, LABELS, draws, **seen)
    found = lumix.PuzzleMix(std=(1 / 255,) * 3).apply(IMAGES.abs() * 255, LABELS, draws, **seen)
    expected = lumix.PuzzleMix(std=(1,) * 3).apply(IMAGES.abs(), LABELS, draws, **seen)
    torch.testing.assert_close(found.own_weight, expected.own_weight)


def test_wide_integers_are_no_pixels_for_a_network():
    with pytest.raises(ValueError, match=r"pixels of uint8 or floats, not torch\.int16"):
        lumix.AttentiveCutMix(NETWORK[0], 1, None)(IMAGES.to(torch.int16), LABELS, stream())


def test_a_deep_copy_of_a_mixed_target_is_one():
    target = DropIn(num_classes=CLASSES)(IMAGES, LABELS)[1]
    found, criterion = copy.deepcopy(target), Criterion(lumix.MixLoss(lumix.LUMixRule(), smoothing=0.1))
    assert torch.equal(criterion(torch.ones(SIZE, CLASSES), found), criterion(torch.ones(SIZE, CLASSES), target))


def test_a_network_without_feature_info_is_refused():
    network = nn.Identity()
    network.forward_intermediates = network.get_classifier = network.forward
    with pytest.raises(ValueError, match="Identity has no feature_info"):
        lumix.AutoMix(network)


def test_saliency_of_floats_up_to_255_is_refused_and_said_right_as_of_bytes():
    pixels = torch.randint(0, 256, (4, 3, 16, 16), generator=stream(), dtype=torch.uint8)
    with pytest.raises(ValueError, match="floats up to 255, no normalised ones: give uint8 images, or say mean="):
        lumix.SaliencyMix()(pixels.float(), LABELS[:4], stream())
    mixer = lumix.SaliencyMix(mean=(0,) * 3, std=(1 / 255,) * 3)
    found, expected = mixer(pixels.float(), LABELS[:4], stream()), lumix.SaliencyMix()(pixels, LABELS[:4], stream())
    assert torch.equal(found.images, expected.images.float())
