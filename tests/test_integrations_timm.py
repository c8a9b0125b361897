"""The drop-in against timm itself: equal draws give equal images and, bit for bit, equal dense targets."""

import inspect
import itertools
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
import timm.data.mixup as timm_mixup
import torch
from batches import other_defaults, stream
from timm.loss import SoftTargetCrossEntropy
from timm.utils import accuracy

from lumix import AreaRule, BetaLaw, BinaryCrossEntropy, CrossEntropy, Decoupled, Kind, LUMixRule, MixLoss, Regulariser
from lumix.integrations.timm import Criterion, Mixup
from lumix.mixers.paste import Draws, assign, box_around, visible_share
from lumix.random import draw_partners

CLASSES = 7
HEIGHT, WIDTH = 13, 9


@pytest.fixture
def recorded(monkeypatch):
    """Every NumPy draw that timm makes, in order, by function."""
    draws = defaultdict(list)
    for name in ("rand", "beta", "randint"):
        original = getattr(np.random, name)

        def record(*args, _name=name, _original=original, **keywords):
            draws[_name].append(_original(*args, **keywords))
            return draws[_name][-1]

        monkeypatch.setattr(np.random, name, record)
    return draws


@pytest.fixture(params=["legacy", "full"])
def box_rule(request, monkeypatch):
    """timm 1.0.31 draws full boxes; for the legacy rule it gets the functions that it had before."""

    def legacy_box(shape, lam, margin=0.0, count=None):
        ratio = np.sqrt(1 - lam)
        height, width = shape[-2:]
        half_h, half_w = int(height * ratio) // 2, int(width * ratio) // 2
        cy, cx = np.random.randint(0, height, size=count), np.random.randint(0, width, size=count)
        edges = (cy - half_h, height), (cy + half_h, height), (cx - half_w, width), (cx + half_w, width)
        return tuple(np.clip(edge, 0, length) for edge, length in edges)

    def legacy_minmax(shape, minmax, count=None):
        sides = [np.random.randint(int(n * minmax[0]), int(n * minmax[1]), size=count) for n in shape[-2:]]
        top, left = (np.random.randint(0, n - side, size=count) for n, side in zip(shape[-2:], sides, strict=True))
        return top, top + sides[0], left, left + sides[1]

    if request.param == "legacy":
        monkeypatch.setattr(timm_mixup, "rand_bbox", legacy_box)
        monkeypatch.setattr(timm_mixup, "rand_bbox_minmax", legacy_minmax)
    return request.param


def replay(recorded, theirs, size, box_rule):
    """The MixPlan of the draws that timm's Mixup `theirs` made for its last batch."""
    partner, group, count = draw_partners(size, theirs.mode, "flip", stream())
    rand, beta = ([torch.tensor(np.atleast_1d(v)) for v in recorded[name]] for name in ("rand", "beta"))
    integers = iter(recorded["randint"])
    both = theirs.mixup_alpha > 0 and theirs.cutmix_alpha > 0
    weight, mixes = torch.ones(count, dtype=torch.float64), torch.zeros(count, dtype=torch.bool)
    cuts = torch.full((count,), theirs.cutmix_alpha > 0)
    if theirs.mode == "batch":
        mixes = rand[0] < theirs.mix_prob
        if mixes:
            cuts = rand[1] < theirs.switch_prob if both else cuts
            weight = beta[0]
    else:
        cuts = rand[0] < theirs.switch_prob if both else cuts
        weight = torch.where(cuts, *beta) if both else beta[0]
        mixes = rand[-1] < theirs.mix_prob
    box = torch.zeros(count, 4, dtype=torch.int64)
    final = weight.clone()
    for i in (mixes & cuts & (weight != 1)).nonzero().flatten().tolist():
        if theirs.cutmix_minmax is not None:
            high, wide, top, left = (int(next(integers)) for _ in range(4))
            box[i] = torch.tensor([top, top + high, left, left + wide])
        else:
            centre = torch.tensor([[int(next(integers)), int(next(integers))]])
            box[i] = box_around(weight[i : i + 1], centre, HEIGHT, WIDTH, box_rule)
        if theirs.correct_lam or theirs.cutmix_minmax is not None:
            final[i] = visible_share(box[i : i + 1], HEIGHT, WIDTH)[0]
    assert next(integers, None) is None
    kind = torch.where(cuts, int(Kind.BOX), int(Kind.BLEND)).to(torch.uint8)
    return assign(Draws(final, kind, box), mixes, partner, group, frozenset({Kind.BLEND, Kind.BOX}))


CASES = {
    "mixup": {"mixup_alpha": 0.8},
    "cutmix": {"mixup_alpha": 0.0, "cutmix_alpha": 1.0},
    "uncorrected": {"mixup_alpha": 0.0, "cutmix_alpha": 1.0, "correct_lam": False},
    "switch": {"mixup_alpha": 0.8, "cutmix_alpha": 1.0, "prob": 0.8, "switch_prob": 0.6},
    "minmax": {"mixup_alpha": 0.3, "cutmix_minmax": (0.2, 0.9)},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
def test_images_and_dense_targets_equal_timms(recorded, box_rule, case, mode):
    keywords = CASES[case] | {"mode": mode, "num_classes": CLASSES, "label_smoothing": 0.1}
    theirs, ours = timm_mixup.Mixup(**keywords), Mixup(**keywords, box_rule=box_rule)
    kinds = set()
    np.random.seed(len(case))
    for trial in range(30):
        generator = stream(trial)
        images = torch.randn(6, 3, HEIGHT, WIDTH, generator=generator)
        labels = torch.randint(CLASSES, (6,), generator=generator)
        recorded.clear()
        their_images, their_target = theirs(images.clone(), labels)
        plan = replay(recorded, theirs, 6, box_rule)
        our_images, our_target = ours.apply(images, labels, plan)
        if plan.kind[0] == Kind.BLEND or mode != "batch":  # rounded once, not twice
            torch.testing.assert_close(our_images, their_images, rtol=1e-6, atol=1e-6)
        else:
            assert torch.equal(our_images, their_images)
        assert torch.equal(our_target, their_target)
        kinds |= set(plan.kind.tolist())
    expected = {"mixup": {Kind.BLEND}, "switch": {Kind.BLEND, Kind.BOX}, "minmax": {Kind.BLEND, Kind.BOX}}
    assert kinds - {Kind.NONE} == expected.get(case, {Kind.BOX})  # the comparison has seen what it is about


@pytest.mark.parametrize(("smoothing", "mode"), list(itertools.product([0.0, 0.1], ["batch", "elem"])))
def test_criterion_without_lumix_is_timms_soft_target_cross_entropy(smoothing, mode):
    mixup = Mixup(0.8, 1.0, mode=mode, num_classes=CLASSES, label_smoothing=smoothing, seed=3)
    criterion = Criterion(MixLoss(AreaRule(), smoothing=smoothing))
    for _ in range(8):
        _, target = mixup(*a_batch())
        logits = torch.randn(6, CLASSES)
        torch.testing.assert_close(criterion(logits, target), SoftTargetCrossEntropy()(logits, target))


def a_batch(size=6, seed=0):
    generator = stream(seed)
    images = torch.randn(size, 3, HEIGHT, WIDTH, generator=generator)
    return images, torch.randint(CLASSES, (size,), generator=generator)


def test_micro_batches_give_the_loss_of_the_whole_batch():
    """Gradient accumulation: slices of one target, their losses averaged."""
    _, target = Mixup(0.8, 1.0, mode="elem", num_classes=CLASSES)(*a_batch())
    logits, criterion = torch.randn(6, CLASSES), Criterion(MixLoss(smoothing=0.1))
    parts = torch.stack([criterion(logits[i : i + 2], target[i : i + 2]) for i in (0, 2, 4)])
    torch.testing.assert_close(parts.mean(), criterion(logits, target))


def test_criterion_takes_plain_labels_in_validation_and_refuses_them_in_training():
    logits, labels = torch.randn(6, CLASSES), torch.arange(6)
    criterion = Criterion(MixLoss(LUMixRule(), smoothing=0.1, eta=1.0))
    loss = criterion(logits.half(), labels)
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(logits.half().float(), labels))
    with pytest.raises(ValueError, match=r"does not say what was mixed.*mix training batches"):
        criterion(logits.requires_grad_(), labels)
    with torch.no_grad():
        criterion(logits, labels)


def test_criterion_applies_lumix_with_draws_from_the_mixers_stream():
    mixup = Mixup(0.0, 1.0, num_classes=CLASSES, generator=stream(5))
    _, target = mixup(*a_batch())
    logits, loss = torch.randn(6, CLASSES), MixLoss(LUMixRule(law=BetaLaw(2.0)), smoothing=0.1, eta=1.0)
    state = mixup.generator.get_state()
    expected = loss(logits, target.batch, stream().set_state(state))
    assert torch.equal(Criterion(loss)(logits, target), expected)
    assert not torch.equal(mixup.generator.get_state(), state)


@pytest.mark.parametrize(
    "loss",
    [
        MixLoss(LUMixRule()),
        MixLoss(LUMixRule(), eta=1.0),
        MixLoss(smoothing=0.1),
        MixLoss(terms=[BinaryCrossEntropy()]),
    ],
)
def test_a_dense_target_is_refused_where_something_would_be_lost(loss):
    with pytest.raises(
        ValueError, match=r"tensor of shape \[6, 7\].*mix training batches with lumix\.integrations\.timm\.Mixup"
    ):
        Criterion(loss)(torch.randn(6, CLASSES), torch.rand(6, CLASSES).softmax(1))


def test_a_dense_target_is_soft_cross_entropy_where_nothing_is_lost():
    logits, dense = torch.randn(6, CLASSES), torch.rand(6, CLASSES).softmax(1)
    torch.testing.assert_close(Criterion(MixLoss())(logits, dense), SoftTargetCrossEntropy()(logits, dense))


def test_an_accuracy_of_a_mixed_target_is_refused_and_a_reshaped_one_is_a_tensor():
    target = Mixup(0.8, 1.0, num_classes=CLASSES)(*a_batch())[1]
    with pytest.raises(TypeError, match=r"dense, \[B, C\]: use target\.argmax\(1\)"):
        accuracy(torch.randn(len(target), CLASSES), target)
    assert type(target.reshape(-1)) is torch.Tensor


def test_seed_decides_everything_and_global_state_is_left_alone():
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    mixers, batch = [Mixup(0.8, 1.0, num_classes=CLASSES, seed=seed) for seed in (4, 4, 5)], a_batch()
    first, other = mixers[0](*batch), mixers[2](*batch)
    with other_defaults():
        second = mixers[1](*batch)
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert not torch.equal(first[0], other[0])
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)


def test_mixup_enabled_off_gives_smoothed_unmixed_targets_as_timm():
    theirs, ours = (kind(0.8, 1.0, num_classes=CLASSES) for kind in (timm_mixup.Mixup, Mixup))
    theirs.mixup_enabled = ours.mixup_enabled = False
    images, labels = a_batch()
    their_images, their_target = theirs(images.clone(), labels)
    our_images, our_target = ours(images, labels)
    assert torch.equal(our_images, their_images)
    assert torch.equal(our_target, their_target)
    assert set(our_target.batch.kind.tolist()) == {Kind.NONE}


def test_keywords_have_timms_names_order_and_defaults():
    theirs = inspect.signature(timm_mixup.Mixup.__init__).parameters
    ours = inspect.signature(Mixup.__init__).parameters
    positional = [name for name, p in ours.items() if p.kind is not inspect.Parameter.KEYWORD_ONLY]
    assert positional == list(theirs)
    assert {name: ours[name].default for name in positional} == {name: p.default for name, p in theirs.items()}


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"multi_label": True}, "multi_label=True is not supported"),
        ({"mixup_alpha": 0.0}, "nothing to mix"),
        ({"mode": "half"}, "mode must be one of batch, pair, elem, not 'half'"),
        ({"prob": 1.5}, "prob must lie between 0 and 1, not 1.5"),
        ({"cutmix_alpha": 1.0, "box_rule": "new"}, "box_rule must be one of legacy, full, not 'new'"),
        ({"cutmix_minmax": (0.5, 0.2)}, "minmax must be two shares"),
        ({"label_smoothing": -0.1}, "label_smoothing must lie between 0 and 1"),
    ],
)
def test_bad_keywords_are_refused(keywords, message):
    with pytest.raises(ValueError, match=message):
        Mixup(**keywords)


def test_bad_batches_are_refused():
    images, labels = a_batch()
    mixup = Mixup(num_classes=CLASSES)
    with pytest.raises(ValueError, match=r"labels must lie in 0 \.\. 6 for num_classes=7, not 0 \.\. 7"):
        mixup(images, torch.tensor([0, 1, 7, 2, 3, 4]))
    with pytest.raises(ValueError, match="not -1"):
        mixup(images, labels - labels.min() - 1)
    with pytest.raises(ValueError, match="even batch, not 5 images"):
        mixup(images[:5], labels[:5])


def test_criterion_refuses_a_mixer_set_up_differently():
    _, target = Mixup(num_classes=CLASSES, label_smoothing=0.1)(*a_batch())
    with pytest.raises(ValueError, match=r"label_smoothing=0\.1, MixLoss smoothing=0\.0"):
        Criterion(MixLoss())(torch.randn(6, CLASSES), target)
    for terms in itertools.permutations([CrossEntropy(0.1), Decoupled(), Regulariser(smoothing=0.1)]):
        assert Criterion(MixLoss(terms=terms))(torch.randn(6, CLASSES), target).isfinite()
        wrong = [replace(term, smoothing=0.0) if isinstance(term, CrossEntropy) else term for term in terms]
        with pytest.raises(ValueError, match=r"MixLoss smoothing=0\.0 and 0\.1"):
            Criterion(MixLoss(terms=wrong))(torch.randn(6, CLASSES), target)
    with pytest.raises(ValueError, match="num_classes=7, the logits have 8"):
        Criterion(MixLoss(smoothing=0.1))(torch.randn(6, 8), target)


@pytest.mark.gpu
def test_on_a_gpu_nothing_waits_for_the_device():
    images, labels = (tensor.to("cuda") for tensor in a_batch())
    mixup = Mixup(0.8, 1.0, mode="elem", num_classes=CLASSES)
    torch.cuda.set_sync_debug_mode("error")
    try:
        mixed, target = mixup(images, labels)
        loss = Criterion(MixLoss(LUMixRule(), smoothing=0.1, eta=1.0))(torch.zeros(6, CLASSES, device="cuda"), target)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert mixed.device.type == loss.device.type == "cuda"
    assert loss.isfinite()
