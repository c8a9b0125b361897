"""The equations against dense, brute-force versions, and the identities of methods.md 2.3."""

import pytest
import torch
from batches import dense_target, label_batch, one_hot, random_logits, stream
from torch.nn import functional as F

from lumix import BetaLaw, Kind
from lumix import functional as equations

CLASSES = 5
BATCH = label_batch(kind=Kind.BOX)  # the first pair is of one class
PAIR = (BATCH.labels, BATCH.partner_labels)
SAME = BATCH.labels == BATCH.partner_labels
WEIGHT = BATCH.own_weight.double()
SMOOTHINGS = [0.0, 0.1]


def gradient(loss, logits):
    """d loss / d logits [B, C] of a loss [B], whose samples are independent."""
    return torch.autograd.grad(loss.sum(), logits)[0]


def leaf(seed=1):
    return random_logits(seed=seed).requires_grad_()


# ------------------------------------------------------------------------------------------------- label weights


def test_mix_weights_is_a_convex_combination_in_the_unit_interval():
    """Law 2, and equation 3 term by term."""
    generator = stream()
    area, random, predicted = torch.rand(3, 1000, generator=generator, dtype=torch.float64)
    for r_r, r_s in [(0.0, 0.0), (0.4, 0.1), (1.0, 0.0), (0.0, 1.0), (0.5, 0.5)]:
        mixed = equations.mix_weights(area, random, predicted, r_r, r_s)
        assert mixed.min() >= 0
        assert mixed.max() <= 1
        torch.testing.assert_close(mixed, area + r_r * (random - area) + r_s * (predicted - area))


def test_predicted_weight_is_the_ratio_of_softmax_probabilities():
    """Law 3, equations 4 and 5."""
    logits = random_logits()
    own, partner = (logits.softmax(1).gather(1, labels[:, None])[:, 0] for labels in PAIR)
    torch.testing.assert_close(equations.predicted_weight(logits, *PAIR), own / (own + partner))
    assert equations.predicted_weight(logits, *PAIR)[0] == 0.5  # one class


def test_predicted_weight_reads_double_softmax_and_sigmoid_scores():
    logits = random_logits(scale=5.0)
    twice, sigmoids = logits.softmax(1).softmax(1), logits.sigmoid()
    for scores, name in [(twice, "double_softmax"), (sigmoids, "sigmoid")]:
        own, partner = (scores.gather(1, labels[:, None])[:, 0] for labels in PAIR)
        torch.testing.assert_close(equations.predicted_weight(logits, *PAIR, name), own / (own + partner))


@pytest.mark.parametrize("scores", ["softmax", "double_softmax", "sigmoid"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_predicted_weight_of_huge_logits_is_finite_with_finite_gradients(scores, dtype):
    """Law 3: +-1e4 in any precision; half precision is computed in float32."""
    logits = torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0], [-1e4, -1e4, 0.0]], dtype=dtype, requires_grad=True)
    labels = torch.zeros(3, dtype=torch.int64)
    weight = equations.predicted_weight(logits, labels, labels + 1, scores)
    assert weight.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert ((weight >= 0) & (weight <= 1)).all()
    assert gradient(weight, logits).isfinite().all()
    if scores == "softmax":
        assert weight.tolist() == [1.0, 0.0, 0.5]  # a ratio of probabilities would be 0/0 in the third


# ------------------------------------------------------------------------------------------------- losses


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_soft_cross_entropy_is_that_of_the_dense_target(smoothing):
    logits = random_logits()
    dense = dense_target(BATCH, WEIGHT, CLASSES, smoothing)
    loss = equations.soft_cross_entropy(equations.log_softmax(logits), *PAIR, WEIGHT, smoothing)
    torch.testing.assert_close(loss, F.cross_entropy(logits, dense, reduction="none"))


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_pair_targets_are_the_entries_of_a_dense_target_that_sums_to_one(smoothing):
    """Law 2."""
    dense = dense_target(BATCH, WEIGHT, CLASSES, smoothing)
    own, partner = equations.pair_targets(*PAIR, WEIGHT, CLASSES, smoothing)
    torch.testing.assert_close(own, dense.gather(1, PAIR[0][:, None])[:, 0])
    torch.testing.assert_close(partner, dense.gather(1, PAIR[1][:, None])[:, 0])
    rest = torch.where(SAME, CLASSES - 1, CLASSES - 2) * smoothing / CLASSES
    total = own + torch.where(SAME, 0.0, partner) + rest
    torch.testing.assert_close(total, torch.ones_like(total))


def test_binary_cross_entropy_is_that_of_the_dense_target():
    logits = random_logits()
    generator = stream(8)
    own, partner, off = torch.rand(3, BATCH.size, generator=generator, dtype=torch.float64)
    partner = torch.where(SAME, own, partner)
    dense = off[:, None].expand_as(logits).clone()
    dense.scatter_(1, PAIR[0][:, None], own[:, None]).scatter_(1, PAIR[1][:, None], partner[:, None])
    expected = F.binary_cross_entropy_with_logits(logits, dense, reduction="none").sum(1)
    torch.testing.assert_close(
        equations.binary_cross_entropy(logits, *PAIR, torch.stack([own, partner]), off), expected
    )


def pair_scores(logits):
    return tuple(logits.softmax(1).gather(1, labels[:, None])[:, 0] for labels in PAIR)


def regulariser(scores, targets, same):
    """R [B] of equation 7."""
    return (targets * equations.indicator(same) * (1 - torch.stack(scores))).sum(0)


# ------------------------------------------------------------------------------------------------- identities of 2.3


def lumix_cross_entropy(logits, lam_r, r_r, r_s, smoothing=0.0, detach=True):
    predicted = equations.predicted_weight(logits, *PAIR)
    weight = equations.mix_weights(WEIGHT, 1 - lam_r, predicted.detach() if detach else predicted, r_r, r_s)
    return equations.soft_cross_entropy(equations.log_softmax(logits), *PAIR, weight, smoothing)


def cross_entropy(logits, own_weight):
    return equations.soft_cross_entropy(equations.log_softmax(logits), *PAIR, own_weight)


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_gradient_splits_into_area_random_and_either_class_parts(smoothing):
    """Law 4, identity (a): the lambda_s part is the negative log-likelihood of "either class"."""
    logits, r_r, r_s = leaf(), 0.4, 0.1
    lam_r = torch.rand(BATCH.size, generator=stream(3), dtype=torch.float64)
    actual = gradient(lumix_cross_entropy(logits, lam_r, r_r, r_s, smoothing), logits)
    own, partner = (log_p.gather(1, labels[:, None])[:, 0] for labels in PAIR for log_p in [logits.log_softmax(1)])
    either = -torch.logaddexp(own, partner)
    parts = (
        (1 - r_r - r_s) * gradient(cross_entropy(logits, WEIGHT), logits)
        + r_r * gradient(cross_entropy(logits, 1 - lam_r), logits)
        + r_s * gradient(either, logits)
    )
    uniform = gradient(-logits.log_softmax(1).mean(1), logits)
    expected = (1 - smoothing) * parts + smoothing * uniform
    torch.testing.assert_close(actual[~SAME], expected[~SAME])


def test_expected_gradient_over_lambda_r_is_that_of_its_mean():
    """Identity (b), Law 5: exact in expectation because the loss is linear in lambda_r; here by Monte Carlo."""
    draws, logits = 4000, leaf()
    lam_r = BetaLaw(2.0).draw(draws * BATCH.size, stream(3)).double().view(draws, BATCH.size)
    gradients = torch.stack([gradient(lumix_cross_entropy(logits, lam, 0.4, 0.1), logits) for lam in lam_r])
    mean = gradient(lumix_cross_entropy(logits, torch.full_like(WEIGHT, 0.5), 0.4, 0.1), logits)
    error = gradients.std(0) / draws**0.5
    assert ((gradients.mean(0) - mean).abs() <= 4.5 * error + 1e-12).all()
    assert (gradients.std(0)[~SAME].amax(1) > 0.01).all()  # there was noise to average


def test_without_detach_the_class_ahead_is_raised_further():
    """Identity (d): the extra gradient is r_s lam_s (1 - lam_s) dL/dlam along e[y2] - e[y1]."""
    logits, r_s, eta, smoothing = leaf(), 0.3, 0.7, 0.1

    def loss(detach):
        predicted = equations.predicted_weight(logits, *PAIR)
        predicted = predicted.detach() if detach else predicted
        weight = equations.mix_weights(WEIGHT, WEIGHT, predicted, 0.0, r_s)
        targets = equations.pair_targets(*PAIR, weight, CLASSES, smoothing)
        base = equations.soft_cross_entropy(equations.log_softmax(logits), *PAIR, weight, smoothing)
        return base + eta * regulariser(pair_scores(logits), targets, SAME)

    extra = gradient(loss(False), logits) - gradient(loss(True), logits)
    own, partner = (p.detach() for p in pair_scores(logits))
    lam_s = partner / (own + partner)
    slope = (1 - smoothing) * (own.log() - partner.log() + eta * (own - partner))
    direction = one_hot(PAIR[1], CLASSES) - one_hot(PAIR[0], CLASSES)
    expected = (r_s * lam_s * (1 - lam_s) * slope)[:, None] * direction
    torch.testing.assert_close(extra[~SAME], expected[~SAME])


# ------------------------------------------------------------------------------------------------- transforms, errors


def test_unknown_readings_are_named():
    with pytest.raises(ValueError, match="scores must be 'softmax', 'double_softmax' or 'sigmoid', not 'logits'"):
        equations.predicted_weight(random_logits(), *PAIR, "logits")
    with pytest.raises(ValueError, match="reading must be 'or' or 'and', not 'xor'"):
        equations.indicator(SAME, "xor")
