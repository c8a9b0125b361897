"""BinaryCrossEntropy, Table 11, against timm's loss and dense targets by brute force (I-17)."""

import pytest
import torch
from batches import build_loss, dense_target, label_batch, one_hot, random_logits, stream
from timm.data.mixup import mixup_target
from timm.loss import BinaryCrossEntropy
from torch.nn import functional as F

from lumix import AreaRule, Kind, LUMixRule

CLASSES = 5
CUT = label_batch(kind=Kind.BOX)
LOGITS = random_logits()
LAM_R = torch.rand(12, generator=stream(7), dtype=torch.float64)


def exact(batch):
    """Float64 weights, so that nothing but the formula decides the digits."""
    return batch._replace(own_weight=batch.own_weight.double())


def value(loss, batch):
    """Loss [B] with given draws of lambda_r."""
    return loss.per_sample(LOGITS, batch, loss.rule.weigh(LOGITS, batch, LAM_R))[0]


@pytest.mark.parametrize("threshold", [None, 0.2])
@pytest.mark.parametrize("reduction", ["mean", "class_sum"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_bce_is_timms_binary_cross_entropy(threshold, reduction, smoothing):
    batch, logits = label_batch(), LOGITS.float()
    batch = batch._replace(partner_labels=batch.labels.flip(0))
    dense = mixup_target(batch.labels, CLASSES, batch.own_weight[:, None], smoothing)
    theirs = BinaryCrossEntropy(smoothing, threshold, sum_classes=reduction == "class_sum")
    target = "soft" if threshold is None else "threshold"
    ours = build_loss(kind="bce", smoothing=smoothing, target=target, reduction=reduction)
    torch.testing.assert_close(ours(logits, batch), theirs(logits, dense))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("target_name", ["twohot", "threshold", "soft"])
@pytest.mark.parametrize("rule", [AreaRule(), LUMixRule(0.4, 0.1), LUMixRule(0.4, 0.1, apply_to="both")])
def test_target_names_are_those_of_brute_force(rule, target_name, smoothing):
    """I-17: perturbed samples keep soft targets; the others get 1 for what is visible, a threshold, or the mix."""
    batch = exact(label_batch(kind=None))
    weight = rule.weigh(LOGITS, batch, LAM_R) if isinstance(rule, LUMixRule) else batch.own_weight
    dense = dense_target(batch, weight, CLASSES, smoothing)
    own, partner = (one_hot(labels, CLASSES) for labels in (batch.labels, batch.partner_labels))
    if target_name == "twohot":
        visible = torch.maximum(own, partner * (batch.own_weight[:, None] < 1))
        other = visible * (1 - smoothing) + smoothing / CLASSES
    else:
        other = (dense > 0.2).double() if target_name == "threshold" else dense
    target = torch.where(rule.perturbs(batch)[:, None], dense, other)
    loss = build_loss(rule, kind="bce", target=target_name, smoothing=smoothing)
    expected = F.binary_cross_entropy_with_logits(LOGITS, target, reduction="none").mean(1)
    torch.testing.assert_close(loss.per_sample(LOGITS, batch, weight)[0], expected, rtol=1e-6, atol=1e-8)


def test_threshold_is_strict_for_both_classes():
    """0.25 is not above 0.25, on either side."""
    batch = label_batch(3, kind=Kind.BOX)._replace(labels=torch.zeros(3).long(), partner_labels=torch.ones(3).long())
    loss = build_loss(kind="bce", target="threshold", threshold=0.25, reduction="class_sum")
    logits = torch.full((3, 3), 3.0)
    values = loss.per_sample(logits, batch, torch.tensor([0.75, 0.7, 0.25]))[0]
    on, off = (F.binary_cross_entropy_with_logits(logits[0, 0], torch.tensor(t)) for t in (1.0, 0.0))
    torch.testing.assert_close(values, torch.stack([on + 2 * off, 2 * on + off, on + 2 * off]))


@pytest.mark.parametrize("score", ["softmax", "sigmoid"])
def test_regulariser_of_bce_reads_the_chosen_score(score):
    batch, rule = exact(CUT), LUMixRule(0.4, 0.1, scores=score)
    p = LOGITS.softmax(1) if score == "softmax" else LOGITS.sigmoid()
    dense = dense_target(batch, rule.weigh(LOGITS, batch, LAM_R), CLASSES)
    pair = torch.maximum(*(one_hot(labels, CLASSES) for labels in (batch.labels, batch.partner_labels)))
    settings = {"kind": "bce", "scores": score}
    extra = value(build_loss(rule, eta=2.0, **settings), batch) - value(build_loss(rule, **settings), batch)
    torch.testing.assert_close(extra, 2 * (dense * pair * (1 - p)).sum(1))
