"""The loss in one piece against the equations it is made of: values, every gradient, gradients of gradients."""

import pytest
import torch
from batches import label_batch, random_logits, stream

from lumix import Kind
from lumix import functional as equations
from lumix.losses import pair_loss

BATCH = label_batch(kind=Kind.BOX)  # the first pair is of one class
PAIR = (BATCH.labels, BATCH.partner_labels)
SAME = BATCH.labels == BATCH.partner_labels
PENALTIES = torch.rand(2, 12, generator=stream(4), dtype=torch.float64)


def by_equations(logits, weight, penalties, smoothing):
    log_p = equations.log_softmax(logits)
    pair = [labels.to(logits.device) for labels in PAIR]
    loss = equations.soft_cross_entropy(log_p, *pair, weight, smoothing)
    if penalties is None:
        return loss
    own, partner = (1 - equations.take(log_p, labels).exp() for labels in pair)
    return loss + penalties[0] * own + penalties[1] * partner


def in_one_piece(logits, weight, penalties, smoothing):
    return pair_loss(logits, *PAIR, weight, penalties, smoothing)[0]


def leaves(dtype=torch.float64):
    logits = random_logits().to(dtype).requires_grad_()
    return logits, BATCH.own_weight.double().requires_grad_(), PENALTIES.clone().requires_grad_()


@pytest.mark.parametrize("with_penalties", [True, False])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_values_and_all_gradients_are_those_of_the_equations(smoothing, with_penalties):
    upstream = torch.rand(12, generator=stream(5), dtype=torch.float64)
    found = []
    for function in (by_equations, in_one_piece):
        logits, weight, penalties = leaves()
        inputs = [logits, weight] + [penalties] * with_penalties
        loss = function(logits, weight, penalties if with_penalties else None, smoothing)
        found.append((loss, *torch.autograd.grad(loss, inputs, upstream)))
    for expected, actual in zip(*found, strict=True):
        torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_gradients_of_gradients(smoothing):
    """Penalties on the norm of a gradient need them; they must be right, not merely there."""
    second = []
    for function in (by_equations, in_one_piece):
        logits, weight, penalties = leaves()
        first = torch.autograd.grad(
            function(logits, weight, penalties, smoothing).sum(), (logits, weight), create_graph=True
        )
        second.append(torch.autograd.grad(sum(part.square().sum() for part in first), (logits, weight, penalties)))
    for expected, actual in zip(*second, strict=True):
        torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_low_precision_is_computed_in_float32_and_returned_in_its_own(dtype):
    logits, weight, penalties = (leaf.detach() for leaf in leaves(dtype))
    exact = by_equations(logits.double(), weight, penalties, 0.1)
    logits.requires_grad_()
    loss = in_one_piece(logits, weight.float(), penalties.float(), 0.1)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, exact.float(), rtol=1e-6, atol=1e-6)
    loss.sum().backward()
    assert logits.grad.dtype == dtype


def test_a_class_that_underflows_has_its_loss_and_no_nan():
    logits = torch.tensor([[200.0, -200.0, 0.0]], requires_grad=True)
    labels = torch.tensor([0])
    loss = pair_loss(logits, labels, labels + 1, torch.tensor([0.25]), None, 0.0)[0]
    assert loss.item() == 300.0
    loss.backward()
    assert logits.grad.tolist() == [[0.75, -0.75, 0.0]]


def test_a_second_backward_pass_finds_what_the_first_needed():
    logits, weight, penalties = leaves()
    loss = in_one_piece(logits, weight, penalties, 0.1).sum()
    first = torch.autograd.grad(loss, logits, retain_graph=True)[0]
    assert torch.equal(torch.autograd.grad(loss, logits)[0], first)


def test_logits_weights_and_upstream_gradient_are_left_as_they_are():
    """The backward pass writes over its own array alone."""
    logits, weight, penalties = leaves()
    upstream = torch.rand(12, generator=stream(5), dtype=torch.float64)
    tensors = logits, weight, penalties, upstream
    before = [tensor.detach().clone() for tensor in tensors]
    pair_loss(logits, *PAIR, weight, penalties, 0.1)[0].backward(upstream)
    assert all(torch.equal(tensor, copy) for tensor, copy in zip(tensors, before, strict=True))


def test_the_parts_add_up_and_give_no_gradient():
    logits, weight, penalties = leaves()
    loss, cross_entropy, regulariser = pair_loss(logits, *PAIR, weight, penalties, 0.1)
    assert torch.equal(loss, cross_entropy + regulariser)
    assert not cross_entropy.requires_grad
    assert not regulariser.requires_grad
    torch.testing.assert_close(cross_entropy, pair_loss(logits, *PAIR, weight, None, 0.1)[1])


@pytest.mark.gpu
def test_on_a_gpu_the_array_is_overwritten_only_where_the_graph_is_not_kept():
    """Its backward pass runs in a thread of its own."""
    logits = random_logits().cuda().requires_grad_()
    pair, weight = [labels.cuda() for labels in PAIR], BATCH.own_weight.double().cuda()
    loss = pair_loss(logits, *pair, weight, PENALTIES.cuda(), 0.1)[0].sum()
    kept = [torch.autograd.grad(loss, logits, retain_graph=True)[0] for _ in range(2)]
    last = torch.autograd.grad(loss, logits)[0]
    assert torch.equal(kept[0], kept[1])
    assert torch.equal(kept[0], last)
    expected = torch.autograd.grad(by_equations(logits, weight, PENALTIES.cuda(), 0.1).sum(), logits)[0]
    torch.testing.assert_close(last, expected)
