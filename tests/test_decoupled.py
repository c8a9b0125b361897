"""Decoupled Mixup: DM(CE) and DM(BCE) against dense formulas, its two propositions, edges and compositions."""

import pytest
import torch
from batches import ALL_MIXERS, build_loss, images_of, label_batch, labels_of, random_logits, stream
from torch.nn import functional as F

from lumix import (
    AreaRule,
    BinaryCrossEntropy,
    CrossEntropy,
    Decoupled,
    Kind,
    LUMixRule,
    MixLoss,
    RescaledBinaryCrossEntropy,
    functional,
)

LOGITS = random_logits()
BATCH = label_batch()
CUT = label_batch(kind=Kind.BOX)
PLAIN = torch.ones(12, dtype=torch.bool)


def dm(eta=1.0, smoothing=0.0, rule=None, **changes):
    return MixLoss(rule, (CrossEntropy(smoothing), Decoupled(eta, **changes)))


def by_the_book(logits, batch):
    """L_DM [B] as printed, -log p_a / (1 - p_b) - log p_b / (1 - p_a), 0 for same-class pairs."""
    p = logits.softmax(1)
    own, partner = (functional.take(p, labels) for labels in (batch.labels, batch.partner_labels))
    value = -(own / (1 - partner)).log() - (partner / (1 - own)).log()
    return torch.where(batch.labels == batch.partner_labels, 0, value)


@pytest.mark.parametrize("eta", [0.0, 0.1, 2.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("fused", [True, False])
def test_dm_ce_is_cross_entropy_plus_eta_times_the_printed_term(eta, smoothing, fused):
    """Smoothing reaches the mixed cross entropy only."""
    loss = dm(eta, smoothing)
    assert loss._in_one_piece
    loss._in_one_piece = fused
    value, parts = loss.per_sample(LOGITS, CUT, CUT.own_weight)
    mixed = build_loss(smoothing=smoothing).per_sample(LOGITS, CUT, CUT.own_weight)[0]
    expected = eta * by_the_book(LOGITS, CUT)
    torch.testing.assert_close(value, mixed + expected, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(parts["decoupled"], expected, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(parts["cross_entropy"], mixed, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("classes", [2, 3, 1000])
@pytest.mark.parametrize("fused", [True, False])
def test_values_and_gradients_stay_finite_where_one_class_has_all_the_probability(dtype, classes, fused):
    """log(p_a / (1 - p_b)) by 1 - p_b would be inf or NaN here; the truth is about log of the classes left."""
    logits = torch.zeros(4, classes, dtype=dtype)
    logits[:, 1] = 3e4
    logits.requires_grad_()
    batch = label_batch(4, 2)._replace(labels=torch.zeros(4).long(), partner_labels=torch.ones(4).long())
    batch = batch._replace(own_weight=torch.full((4,), 0.5))
    loss = dm()
    loss._in_one_piece = fused
    value, parts = loss.per_sample(logits, batch, batch.own_weight)
    value.sum().backward()
    assert value.isfinite().all()
    assert logits.grad.isfinite().all()
    expected = torch.log(torch.tensor(float(classes - 1)))  # a alone against the others; b needs nothing
    torch.testing.assert_close(parts["decoupled"], expected.expand(4), rtol=1e-3, atol=1e-6)


def test_proposition_2_the_decoupled_gradient_lifts_both_classes_and_knows_no_lambda():
    z = LOGITS.detach().clone().requires_grad_()
    different = CUT.labels != CUT.partner_labels
    gradients = [
        torch.autograd.grad(Decoupled()(z, CUT, weight, PLAIN).sum(), z)[0][different]
        for weight in (CUT.own_weight, 1 - CUT.own_weight)
    ]
    torch.testing.assert_close(*gradients, rtol=0, atol=0)
    p, own, partner = z.detach().softmax(1)[different], CUT.labels[different], CUT.partner_labels[different]
    p_own, p_partner = functional.take(p, own), functional.take(p, partner)
    expected = p * (1 / (1 - p_partner) + 1 / (1 - p_own))[:, None]
    expected.scatter_(1, own[:, None], (-1 + p_own / (1 - p_partner))[:, None])
    expected.scatter_(1, partner[:, None], (-1 + p_partner / (1 - p_own))[:, None])
    torch.testing.assert_close(gradients[0], expected)
    torch.testing.assert_close(gradients[0].sum(1), torch.zeros(len(p), dtype=torch.float64))
    assert (functional.take(gradients[0], own) <= 0).all()
    assert (functional.take(gradients[0], partner) <= 0).all()


@pytest.mark.parametrize("eta", [0.0, 0.1, 1.0, 10.0])
def test_the_minimiser_is_that_of_mixed_cross_entropy_for_every_eta(eta):
    """Free logits of one sample of 6 classes, the pair 0 and 1."""
    z = torch.zeros(1, 6, dtype=torch.float64, requires_grad=True)
    batch = label_batch(1, 2)._replace(labels=torch.tensor([0]), partner_labels=torch.tensor([1]))
    batch, loss = batch._replace(own_weight=torch.tensor([0.7])), dm(eta)
    optimizer = torch.optim.LBFGS([z], max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        value = loss(z, batch)
        value.backward()
        return value

    optimizer.step(closure)
    expected = torch.tensor([0.7, 0.3], dtype=torch.float64)
    torch.testing.assert_close(z.detach().softmax(1)[0, :2], expected, rtol=0, atol=5e-3)


def test_same_class_pairs_and_images_of_one_class_are_trained_as_ever():
    weight = torch.tensor([0.0, 9e-4, 1.1e-3, 0.5, 1 - 1.1e-3, 1 - 9e-4, 1.0, 0.5])
    labels = torch.zeros(8).long()
    partner_labels = torch.tensor([1] * 7 + [0])
    batch = label_batch(8, 2)._replace(labels=labels, partner_labels=partner_labels, own_weight=weight)
    value = dm().per_sample(LOGITS[:8], batch, weight)[1]["decoupled"]
    assert (value > 0).tolist() == [False, False, True, True, True, False, False, False]


@pytest.mark.parametrize("make", ALL_MIXERS)
def test_composes_with_every_mixer_and_lumix_changes_the_mixed_term_only(make):
    mixed = make()(images_of(12), labels_of(12), generator=stream())
    logits = random_logits(mixed.size, 12).float()
    draws = torch.rand(mixed.size, generator=stream(3))
    area, lumix = dm(), dm(rule=LUMixRule())
    plain = area.per_sample(logits, mixed, area.weights(logits, mixed))[1]
    perturbed = lumix.per_sample(logits, mixed, lumix.weights(logits, mixed, draws))[1]
    torch.testing.assert_close(plain["decoupled"], perturbed["decoupled"])
    assert (plain["decoupled"] > 0).any()


def test_one_and_two_are_the_ordinary_binary_targets():
    def value(term):
        return MixLoss(terms=(term,)).per_sample(LOGITS, BATCH, BATCH.own_weight)[0]

    one = RescaledBinaryCrossEntropy(1.0, 1.0, 1.0, 1.0)
    torch.testing.assert_close(value(one), value(BinaryCrossEntropy(target="soft", reduction="class_sum")))
    two = RescaledBinaryCrossEntropy(1.0, 0.0, 1.0, 0.0)
    torch.testing.assert_close(value(two), value(BinaryCrossEntropy(target="twohot", reduction="class_sum")))


def test_rescaled_targets_go_by_the_kind_of_mix_and_a_class_counts_once():
    weight = torch.tensor([0.2, 0.2, 0.6, 0.5, 1.0])
    kinds = torch.tensor([Kind.BOX, Kind.BLEND, Kind.MASK, Kind.BLEND, Kind.NONE], dtype=torch.uint8)
    batch = label_batch(5, 2)._replace(own_weight=weight, kind=kinds)
    batch = batch._replace(labels=torch.zeros(5).long(), partner_labels=torch.tensor([1, 1, 1, 0, 1]))
    own, partner = RescaledBinaryCrossEntropy().targets(batch, weight)
    torch.testing.assert_close(own, torch.tensor([0.2**0.8, 0.4, 0.6**0.8, 1.0, 1.0]))
    torch.testing.assert_close(partner[[0, 1, 2, 4]], torch.tensor([0.8**0.8, 1.0, 0.4**0.8, 0.0]))
    dense = torch.zeros(5, 4).scatter_(1, batch.partner_labels[:, None], partner[:, None])
    dense.scatter_(1, batch.labels[:, None], own[:, None])
    logits = random_logits(5, 4).float()
    loss = MixLoss(AreaRule(), (RescaledBinaryCrossEntropy(),)).per_sample(logits, batch, weight)[0]
    torch.testing.assert_close(loss, F.binary_cross_entropy_with_logits(logits, dense, reduction="none").sum(1))


def test_rescale_at_its_ends():
    weight = torch.tensor([0.0, 0.25, 0.5, 1.0])
    for t, xi, expected in ((0.5, 1, [0, 0.5, 1, 1]), (1, 0, [1, 1, 1, 1]), (2, 1, [0, 0.125, 0.25, 0.5])):
        torch.testing.assert_close(functional.rescale(weight, t, xi), torch.tensor(expected, dtype=torch.float32))
