"""MixLoss against Algorithm 1 as printed, dense targets, timm's losses and finite differences."""

import copy
from dataclasses import dataclass
from functools import partial
from inspect import signature

import pytest
import timm.loss
import torch
from batches import algorithm_1, build_loss, dense_target, label_batch, one_hot, random_logits, stream
from timm.data.mixup import mixup_target
from torch.autograd.functional import jacobian
from torch.nn import functional as F

from lumix import (
    AreaRule,
    BinaryCrossEntropy,
    CrossEntropy,
    Decoupled,
    Kind,
    LUMixRule,
    MixLoss,
    Regulariser,
    RescaledBinaryCrossEntropy,
)

CLASSES = 5
BATCH = label_batch()
CUT = label_batch(kind=Kind.BOX)
LOGITS = random_logits()
LAM_R = torch.rand(12, generator=stream(7), dtype=torch.float64)
FULL = {"smoothing": 0.1, "eta": 1.0}


def exact(batch):
    """Float64 weights, so that nothing but the formula decides the digits."""
    return batch._replace(own_weight=batch.own_weight.double())


def value(loss, logits=LOGITS, batch=CUT, lam_r=LAM_R):
    """Loss [B] with given draws of lambda_r."""
    return loss.per_sample(logits, batch, loss.rule.weigh(logits, batch, lam_r))[0]


def gradient(loss, logits=LOGITS, batch=CUT, lam_r=LAM_R):
    logits = logits.detach().clone().requires_grad_()
    return torch.autograd.grad(value(loss, logits, batch, lam_r).sum(), logits)[0]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize(("r_r", "r_s"), [(0.4, 0.1), (0.5, 0.0), (0.0, 0.5), (1.0, 0.0), (0.0, 1.0)])
def test_value_and_gradient_are_those_of_algorithm_1(r_r, r_s, eta, smoothing):
    loss, batch = MixLoss(LUMixRule(r_r, r_s), smoothing=smoothing, eta=eta), exact(CUT)
    logits = LOGITS.clone().requires_grad_()
    printed = algorithm_1(logits, batch, LAM_R, r_r, r_s, eta, smoothing)
    torch.testing.assert_close(value(loss, logits, batch), printed)
    torch.testing.assert_close(gradient(loss, batch=batch), torch.autograd.grad(printed.sum(), logits)[0])


@pytest.mark.parametrize("kind", ["ce", "bce"])
@pytest.mark.parametrize("apply_to", ["cut", "both"])
def test_without_shares_and_regulariser_lumix_is_the_baseline_bit_for_bit(kind, apply_to):
    """Law 1."""
    logits, soft = LOGITS.float(), {"target": "soft"} if kind == "bce" else {}
    plain = build_loss(AreaRule(), kind=kind, **soft, smoothing=0.1)
    lumix = build_loss(LUMixRule(0.0, 0.0, apply_to=apply_to), kind=kind, **soft, smoothing=0.1, eta=0.0)
    assert torch.equal(lumix(logits, BATCH, stream()), plain(logits, BATCH))


@pytest.mark.parametrize("kind", ["ce", "bce"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_huge_logits_give_finite_losses_and_gradients(kind, dtype):
    """Law 3."""
    logits = (1e4 * LOGITS.sign()).to(dtype)
    for batch in (BATCH, CUT):
        loss = build_loss(LUMixRule(apply_to="both"), kind=kind, **FULL)
        assert value(loss, logits, batch).isfinite().all()
        assert gradient(loss, logits, batch).isfinite().all()


@pytest.mark.parametrize("kind", ["ce", "bce"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32_also_under_autocast(kind, dtype):
    loss, half = build_loss(LUMixRule(), kind=kind, **FULL), LOGITS.to(dtype)
    expected = loss(half.float(), BATCH, stream())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = loss(half.requires_grad_(), BATCH, stream())
    assert actual.dtype == torch.float32
    torch.testing.assert_close(actual, expected)
    actual.backward()
    assert half.grad.dtype == dtype


@pytest.mark.parametrize("kind", ["ce", "bce"])
def test_only_perturbed_samples_differ_from_the_baseline(kind):
    """Law 9: Mixup samples under apply_to="cut", and unmixed ones always, have the ordinary loss and no R."""
    plain = build_loss(kind=kind, smoothing=0.1)
    baseline = plain.per_sample(LOGITS, BATCH, BATCH.own_weight)[0]
    for apply_to, untouched in [("cut", BATCH.kind != Kind.BOX), ("both", BATCH.kind == Kind.NONE)]:
        values = value(build_loss(LUMixRule(apply_to=apply_to), kind=kind, **FULL), batch=BATCH)
        torch.testing.assert_close(values[untouched], baseline[untouched], rtol=1e-7, atol=0)
        assert (values[~untouched] != baseline[~untouched]).all()


def test_and_reading_leaves_the_regulariser_to_same_class_pairs():
    """Law 10, I-5."""
    rule = LUMixRule()
    without, literal, either = (
        value(build_loss(rule, eta=eta, reading=reading)) for eta, reading in [(0.0, "or"), (1.0, "and"), (1.0, "or")]
    )
    assert torch.equal(literal[1:], without[1:])
    assert literal[0] > without[0]
    assert (either > without).all()
    assert ((either - without) <= 1).all()


@dataclass(frozen=True)
class Entropy:
    """A toy term, of the active samples only."""

    weight: float
    name: str = "entropy"

    def __call__(self, logits, batch, own_weight, active):
        log_p = logits.log_softmax(-1)
        return torch.where(active, -self.weight * (log_p.exp() * log_p).sum(-1), 0.0)


@pytest.mark.parametrize("kind", ["ce", "bce"])
@pytest.mark.parametrize("eta", [0.0, 0.7])
@pytest.mark.parametrize("scores", ["softmax", "sigmoid"])
def test_the_parts_sum_to_the_loss_and_carry_no_gradient(kind, eta, scores):
    loss, logits = build_loss(LUMixRule(), kind, smoothing=0.1, eta=eta, scores=scores), LOGITS.clone().requires_grad_()
    total, parts = loss.per_sample(logits, exact(BATCH), BATCH.own_weight.double())
    assert list(parts) == ["cross_entropy" if kind == "ce" else "binary_cross_entropy"] + ["regulariser"] * (eta != 0)
    assert total.requires_grad
    assert not any(part.requires_grad for part in parts.values())
    torch.testing.assert_close(sum(parts.values()), total.detach())


def test_a_term_of_ones_own_is_added_and_named():
    rule, weight = LUMixRule(), CUT.own_weight
    both = MixLoss(rule, [CrossEntropy(0.1), Regulariser(0.5, 0.1), Entropy(0.3)])
    total, parts = both.per_sample(LOGITS, BATCH, weight)
    known, _ = MixLoss(rule, smoothing=0.1, eta=0.5).per_sample(LOGITS, BATCH, weight)
    alone, _ = MixLoss(rule, [Entropy(0.3)]).per_sample(LOGITS, BATCH, weight)
    assert list(parts) == ["cross_entropy", "regulariser", "entropy"]
    assert torch.equal(parts["entropy"], alone)
    assert (alone[BATCH.kind != Kind.BOX] == 0).all()
    torch.testing.assert_close(total, known + alone)
    assert both.smoothing == {0.1}
    assert MixLoss(rule, [Entropy(0.3)]).smoothing == {0.0}


WEIGHTS = torch.rand(2, CLASSES, generator=stream(11)).double() + 0.1


def dense_of(term, weight):
    """The mixed target [B, C] of a term whose targets are those of CUT."""
    targets = term.targets(CUT, weight) if isinstance(term, RescaledBinaryCrossEntropy) else None
    if targets is None:
        return dense_target(CUT, weight, CLASSES, term.smoothing)
    dense = torch.zeros(12, CLASSES, dtype=torch.float64).scatter_(1, CUT.partner_labels[:, None], targets[1][:, None])
    return dense.scatter_(1, CUT.labels[:, None], targets[0][:, None])


@pytest.mark.parametrize("weight", [None, WEIGHTS[0]])
@pytest.mark.parametrize("pos_weight", [None, WEIGHTS[1]])
@pytest.mark.parametrize(
    "make",
    [
        partial(CrossEntropy, 0.1),
        partial(BinaryCrossEntropy, 0.1, "soft", reduction="class_sum"),
        RescaledBinaryCrossEntropy,
        Regulariser,
        Decoupled,
    ],
)
def test_class_weights_are_those_of_torch_for_every_term(make, weight, pos_weight):
    options = {"weight": weight} | ({"pos_weight": pos_weight} if "pos_weight" in signature(make).parameters else {})
    term, own = make(**options), CUT.own_weight.double()
    loss = MixLoss(LUMixRule(), [term])
    found = loss.per_sample(LOGITS, CUT, own)[0]
    if isinstance(term, CrossEntropy):
        expected = F.cross_entropy(LOGITS, dense_of(term, own), weight, reduction="none")
    elif isinstance(term, BinaryCrossEntropy | RescaledBinaryCrossEntropy):
        options["pos_weight"] = pos_weight
        expected = F.binary_cross_entropy_with_logits(LOGITS, dense_of(term, own), reduction="none", **options).sum(1)
    else:  # linear in the weights of the pair
        factor = torch.ones(CLASSES) if weight is None else weight
        each = [MixLoss(LUMixRule(), [make(weight=one)]) for one in torch.eye(CLASSES).double()]
        expected = sum(f * one.per_sample(LOGITS, CUT, own)[0] for f, one in zip(factor, each, strict=True))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)
    assert len(loss.state_dict()) == sum(value is not None for value in options.values() if value is not pos_weight) + (
        pos_weight is not None and hasattr(term, "pos_weight")
    )
    torch._dynamo.reset()  # it compiles a line of code 8 times at most
    compiled = torch.compile(lambda z: loss.per_sample(z, CUT, own)[0], fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(LOGITS), found)


@pytest.mark.parametrize("wrong", [3, "ab", [[1.0, 2.0]], [1.0, -1.0], [1.0, float("nan")], torch.arange(5), {}])
def test_what_is_no_class_weight_is_refused(wrong):
    with pytest.raises(ValueError, match=r"CrossEntropy\.weight must be \[C\] numbers"):
        CrossEntropy(weight=wrong)
    with pytest.raises(ValueError, match="cross_entropy weighs 3 classes, the logits have 5"):
        MixLoss(None, [CrossEntropy(weight=[1, 2, 3])])(LOGITS, CUT)


@pytest.mark.parametrize("offset", [1e3, -1e4])
@pytest.mark.parametrize("terms", [(CrossEntropy(0.1), Regulariser()), (CrossEntropy(), Decoupled())])
@pytest.mark.parametrize("whole", [True, False])
def test_an_offset_of_all_logits_changes_no_value(offset, terms, whole):
    """Beyond the rounding of the logits themselves."""
    shifted = random_logits(12, CLASSES).float() + offset
    loss = MixLoss(LUMixRule(), terms)
    loss._in_one_piece = whole
    found = loss.per_sample(shifted, CUT, CUT.own_weight)[1]
    exact = loss.per_sample(shifted.double() - offset, CUT, CUT.own_weight.double())[1]
    for name, value in found.items():
        torch.testing.assert_close(value.double(), exact[name], rtol=1e-5, atol=2e-6)


def test_weights_that_leave_the_unit_interval_give_finite_losses():
    for weight in (-3.0, 4.0):
        own = torch.full((12,), weight)
        for terms in ([RescaledBinaryCrossEntropy()], [CrossEntropy(), Decoupled()], [BinaryCrossEntropy()]):
            logits = LOGITS.float().requires_grad_()
            loss = MixLoss(LUMixRule(), terms).per_sample(logits, CUT, own)[0]
            assert loss.isfinite().all()
            assert torch.autograd.grad(loss.sum(), logits)[0].isfinite().all()


@pytest.mark.parametrize("threshold", [None, 0.2])
@pytest.mark.parametrize("reduction", ["mean", "class_sum"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_bce_is_timms_binary_cross_entropy(threshold, reduction, smoothing):
    batch, logits = label_batch(), LOGITS.float()
    batch = batch._replace(partner_labels=batch.labels.flip(0))
    dense = mixup_target(batch.labels, CLASSES, batch.own_weight[:, None], smoothing)
    theirs = timm.loss.BinaryCrossEntropy(smoothing, threshold, sum_classes=reduction == "class_sum")
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
    extra = value(build_loss(rule, eta=2.0, **settings), batch=batch) - value(build_loss(rule, **settings), batch=batch)
    torch.testing.assert_close(extra, 2 * (dense * pair * (1 - p)).sum(1))


TERMS = {
    "ce": lambda eta, smoothing: [CrossEntropy(smoothing)],
    "ce_r": lambda eta, smoothing: [CrossEntropy(smoothing), Regulariser(eta, smoothing)],
    "dm": lambda eta, smoothing: [CrossEntropy(smoothing), Decoupled(eta)],
    "dm_r": lambda eta, smoothing: [CrossEntropy(smoothing), Regulariser(eta, smoothing), Decoupled(0.3)],
}
each = pytest.mark.parametrize("terms", TERMS.values(), ids=TERMS)


def losses(terms, smoothing=0.1, eta=0.7):
    """The loss in one piece, which writes over its own array, and the sum of its terms."""
    pair = MixLoss(LUMixRule(), terms(eta, smoothing)), MixLoss(LUMixRule(), terms(eta, smoothing))
    assert pair[0]._in_one_piece
    pair[1]._in_one_piece = False
    return pair


def leaves(dtype=torch.float64):
    return random_logits().to(dtype).requires_grad_(), CUT.own_weight.double().requires_grad_()


@each
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_values_gradients_and_their_gradients_are_those_of_the_terms(terms, smoothing):
    """Penalties on the norm of a gradient need the latter; they must be right, not merely there."""
    upstream, found = torch.rand(12, generator=stream(5), dtype=torch.float64), []
    for loss in losses(terms, smoothing, torch.tensor(0.7, dtype=torch.float64, requires_grad=True)):
        inputs = leaves()
        values, parts = loss.per_sample(inputs[0], CUT, inputs[1])
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
    value = loss.per_sample(logits, CUT, weight)[0]
    first = torch.autograd.grad(value, logits, upstream, retain_graph=True)[0]
    assert torch.equal(torch.autograd.grad(value, logits, upstream)[0], first)
    assert all(torch.equal(tensor, copy) for tensor, copy in zip((logits, weight, upstream), before, strict=True))
    both = [jacobian(lambda z: loss.per_sample(z, CUT, weight)[0], logits, vectorize=v) for v in (True, False)]
    torch.testing.assert_close(*both)


@pytest.mark.gpu
@each
def test_on_a_gpu_the_array_is_overwritten_only_where_the_graph_is_not_kept(terms):
    """Its backward pass runs in a thread of its own."""
    loss, batch, logits = losses(terms)[0].cuda(), CUT.to("cuda"), random_logits().cuda().requires_grad_()
    value = loss.per_sample(logits, batch, batch.own_weight)[0].sum()
    first = torch.autograd.grad(value, logits, retain_graph=True)[0]
    assert torch.equal(torch.autograd.grad(value, logits)[0], first)


def test_forward_is_the_mean_over_samples_with_the_rules_draws():
    loss = MixLoss(LUMixRule(), **FULL)
    weight = loss.weights(LOGITS, BATCH, loss.draw(BATCH, stream(3)))
    expected = loss.per_sample(LOGITS, BATCH, weight)[0].mean()
    assert torch.equal(loss(LOGITS, BATCH, stream(3)), expected)
    assert not torch.equal(loss(LOGITS, BATCH, stream(4)), expected)


@pytest.mark.parametrize(
    "make",
    [
        lambda value: MixLoss(LUMixRule(), eta=value),
        lambda value: MixLoss(LUMixRule(r_r=value)),
        lambda value: MixLoss(None, [CrossEntropy(), Decoupled(value)]),
    ],
)
@pytest.mark.parametrize("learnt", [True, False])
def test_tensors_in_the_parts_are_the_losss_own(make, learnt):
    """Listed, saved, moved and copied with it; what is learnt gets its gradient."""
    value = torch.tensor(0.4)
    loss = make(torch.nn.Parameter(value) if learnt else value)
    assert len(list(loss.parameters())) == learnt
    assert len(loss.state_dict()) == 1
    for other in (loss, copy.deepcopy(loss)):
        other(LOGITS, CUT, stream()).backward() if learnt else None
        assert all(parameter.grad is not None for parameter in other.parameters())
    moved = loss.to(torch.float64)(LOGITS, CUT, stream())
    torch.testing.assert_close(moved, make(value.double())(LOGITS, CUT, stream()), rtol=1e-6, atol=1e-6)
    swapped = torch.func.functional_call(
        loss, {name: torch.tensor(0.1).double() for name in loss.state_dict()}, (LOGITS, CUT, stream())
    )
    tenth = make(torch.tensor(0.1).double())
    torch.testing.assert_close(swapped, tenth(LOGITS, CUT, stream()))
    loss.load_state_dict(
        {name: value.clone() for name, value in make(torch.tensor(0.1)).state_dict().items()}, assign=True
    )
    torch.testing.assert_close(loss(LOGITS, CUT, stream()), swapped, rtol=1e-6, atol=1e-6)
    loss.to(torch.float64)
    held = [v for part in (loss.rule, *loss.terms) for v in vars(part).values() if isinstance(v, torch.Tensor)]
    assert [tensor.dtype for tensor in held] == [torch.float64]


@pytest.mark.parametrize("apply_to", ["cut", "both"])
@pytest.mark.parametrize("kind", ["ce", "bce"])
def test_rule_and_loss_compile_as_one_graph(kind, apply_to):
    loss = build_loss(LUMixRule(apply_to=apply_to), kind=kind, **FULL)
    compiled = torch.compile(lambda logits: value(loss, logits, BATCH), fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(LOGITS), value(loss, batch=BATCH))


@pytest.mark.parametrize("kind", ["ce", "bce"])
@pytest.mark.parametrize("field", ["labels", "partner_labels"])
def test_labels_out_of_range_are_named(kind, field):
    labels = torch.where(torch.arange(12) == 3, 9, BATCH.labels)
    batch = BATCH._replace(**{field: labels})
    for rule in (AreaRule(), LUMixRule()):
        with pytest.raises(ValueError, match=r"labels must lie in 0 \.\. 4 for logits of 5 classes, not \d \.\. 9"):
            build_loss(rule, kind=kind)(LOGITS, batch, stream())


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MixLoss(eta=-1.0), r"eta must be at least 0, not -1\.0"),
        (lambda: MixLoss(terms=[CrossEntropy()], eta=1.0), r"give smoothing=0\.0 and eta=1\.0 to them"),
        (lambda: MixLoss(terms=[CrossEntropy()], smoothing=0.1), r"give smoothing=0\.1 and eta=0\.0 to them"),
        (lambda: MixLoss(terms=[]), r"at least one term.* not \[\]"),
        (lambda: MixLoss(terms=[CrossEntropy(), CrossEntropy(0.1)]), "terms of different names"),
    ],
)
def test_bad_settings_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_logits_of_another_batch_are_refused():
    with pytest.raises(ValueError, match=r"logits must be \[B, C\] with B = 12, not of shape \[3, 5\]"):
        MixLoss()(LOGITS[:3], BATCH)
    with pytest.raises(ValueError, match=r"pass a torch\.Generator"):
        MixLoss(LUMixRule())(LOGITS, BATCH)
