"""Terms in one piece against the plain terms: values, every gradient, gradients of gradients, dtypes and memory."""

import pytest
import torch
from batches import label_batch, random_logits, stream
from torch.autograd.functional import jacobian

from lumix import CrossEntropy, Decoupled, Kind, LUMixRule, MixLoss, Regulariser

BATCH = label_batch(kind=Kind.BOX)  # the first pair is of one class
TERMS = {
    "ce": lambda eta, smoothing: [CrossEntropy(smoothing)],
    "ce_r": lambda eta, smoothing: [CrossEntropy(smoothing), Regulariser(eta, smoothing)],
    "dm": lambda eta, smoothing: [CrossEntropy(smoothing), Decoupled(eta)],
    "dm_r": lambda eta, smoothing: [CrossEntropy(smoothing), Regulariser(eta, smoothing), Decoupled(0.3)],
}
each = pytest.mark.parametrize("terms", TERMS.values(), ids=TERMS)


def losses(terms, smoothing=0.1, eta=0.7):
    """The loss in one piece, and the sum of its terms."""
    pair = MixLoss(LUMixRule(), terms(eta, smoothing)), MixLoss(LUMixRule(), terms(eta, smoothing))
    assert pair[0]._in_one_piece
    pair[1]._in_one_piece = False
    return pair


def leaves(dtype=torch.float64):
    return random_logits().to(dtype).requires_grad_(), BATCH.own_weight.double().requires_grad_()


@each
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_values_gradients_and_their_gradients_are_those_of_the_terms(terms, smoothing):
    """Penalties on the norm of a gradient need the latter; they must be right, not merely there."""
    upstream, found = torch.rand(12, generator=stream(5), dtype=torch.float64), []
    for loss in losses(terms, smoothing, torch.tensor(0.7, dtype=torch.float64, requires_grad=True)):
        inputs = leaves()
        values, parts = loss.per_sample(inputs[0], BATCH, inputs[1])
        first = torch.autograd.grad(values, [*inputs, *loss.buffers()], upstream, create_graph=True)
        second = torch.autograd.grad(sum(part.square().sum() for part in first[:2]), inputs)
        found.append((values, *parts.values(), *first, *second))
    for expected, actual in zip(*found, strict=True):
        torch.testing.assert_close(actual, expected)


def test_a_class_that_underflows_has_its_loss_and_no_nan():
    logits = torch.tensor([[200.0, -200.0, 0.0]], requires_grad=True)
    batch = label_batch(1)._replace(labels=torch.tensor([0]), partner_labels=torch.tensor([1]))
    loss = MixLoss().per_sample(logits, batch, torch.tensor([0.25]))[0]
    assert loss.item() == 300.0
    loss.backward()
    assert logits.grad.tolist() == [[0.75, -0.75, 0.0]]


@each
def test_a_kept_graph_a_batched_backward_pass_and_the_callers_tensors_stay_whole(terms):
    """The backward pass writes over its own array alone, and only where nothing else will read it."""
    loss, _ = losses(terms)
    logits, weight = leaves()
    upstream = torch.rand(12, generator=stream(5), dtype=torch.float64)
    before = [tensor.detach().clone() for tensor in (logits, weight, upstream)]
    value = loss.per_sample(logits, BATCH, weight)[0]
    first = torch.autograd.grad(value, logits, upstream, retain_graph=True)[0]
    assert torch.equal(torch.autograd.grad(value, logits, upstream)[0], first)
    assert all(torch.equal(tensor, copy) for tensor, copy in zip((logits, weight, upstream), before, strict=True))
    both = [jacobian(lambda z: loss.per_sample(z, BATCH, weight)[0], logits, vectorize=v) for v in (True, False)]
    torch.testing.assert_close(*both)


@pytest.mark.gpu
@each
def test_on_a_gpu_the_array_is_overwritten_only_where_the_graph_is_not_kept(terms):
    """Its backward pass runs in a thread of its own."""
    loss, batch, logits = losses(terms)[0].cuda(), BATCH.to("cuda"), random_logits().cuda().requires_grad_()
    value = loss.per_sample(logits, batch, batch.own_weight)[0].sum()
    first = torch.autograd.grad(value, logits, retain_graph=True)[0]
    assert torch.equal(torch.autograd.grad(value, logits)[0], first)
