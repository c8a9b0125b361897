"""Arguments of every part: numbers finite and in range, flags, choices and parts of the right kind, or one sentence."""

import dataclasses
import inspect
import math
from typing import Any

import numpy as np
import pytest
import torch
from batches import images_of, labels_of, stream
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import lumix
from lumix import Mixup
from lumix.integrations.timm import Mixup as TimmMixup
from lumix.random import draw_beta
from lumix.registry import PARTS
from training.config import Data, Mix, Model, Optim, Run

NETWORK = torch.nn.Conv2d(3, 4, 4, 4)
GIVEN = {
    lumix.AttentiveCutMix: {"network": NETWORK},
    lumix.RandomShuffle: {"mixer": lumix.Mixup()},
    lumix.Either: {"first": lumix.Mixup(), "second": lumix.CutMix()},
}
CLASSES = [part.cls for part in PARTS.values() if part.kind not in ("network", "task")]
CLASSES += [lumix.Switch, lumix.Either, lumix.MixLoss, TimmMixup]


def arguments_of(kind: type) -> list[tuple[Any, str]]:
    """(class, argument) of those with a default that is a number, a flag or a word."""
    signature = inspect.signature(kind)
    known = [
        (p.name, p.default) for p in signature.parameters.values() if isinstance(p.default, bool | int | float | str)
    ]
    return [(kind, name) for name, _ in known if not (kind is TimmMixup and name in ("seed", "multi_label"))]


def build(kind: Any, **changes: Any) -> Any:
    return kind(**{**GIVEN.get(kind, {}), **changes})


def default_of(kind: Any, name: str) -> Any:
    return inspect.signature(kind).parameters[name].default


ARGUMENTS = [pair for kind in CLASSES for pair in arguments_of(kind)]
NUMBERS = [(kind, name) for kind, name in ARGUMENTS if type(default_of(kind, name)) in (int, float)]
IDS = [f"{kind.__module__.split('.')[-1]}.{name}" for kind, name in ARGUMENTS]
NO_NUMBERS = [
    math.inf,
    -math.inf,
    math.nan,
    10**400,
    "0.5",
    "",
    None,
    True,
    (0.5,),
    1j,
    object(),
    np.array([0.5]),
    torch.tensor(0.5),
]
EXTREMES = [-1.0, -5e-324, 1.5, -(10**30)]


def sentence(error: Any, name: str) -> None:
    text = str(error.value)
    assert name in text
    assert "\n" not in text
    assert len(text) < 400


@pytest.mark.parametrize(("kind", "name"), ARGUMENTS, ids=IDS)
@pytest.mark.parametrize("value", NO_NUMBERS, ids=lambda value: type(value).__name__)
def test_values_of_another_kind_are_refused_by_name(kind, name, value):
    usual = default_of(kind, name)
    learnt = kind in (lumix.LUMixRule, lumix.Regulariser, lumix.Decoupled, lumix.MixLoss) and name in (
        "eta",
        "r_r",
        "r_s",
    )
    no_size = (kind, name, value) == (lumix.AttentiveCutMix, "size", None) if value is None else False
    if (learnt and isinstance(value, torch.Tensor)) or no_size or (isinstance(usual, bool) and isinstance(value, bool)):
        build(kind, **{name: value})
        return
    with pytest.raises(ValueError) as error:
        build(kind, **{name: value})
    sentence(error, name)


@pytest.mark.parametrize(("kind", "name"), NUMBERS)
@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_a_number_is_used_or_refused_by_name(kind, name, data):
    """Whatever number: a sentence, or a part that gives finite images and losses."""
    number = st.floats() if type(default_of(kind, name)) is float else st.integers(-(2**40), 2**40)
    value = data.draw(st.one_of(number, st.sampled_from(EXTREMES)))
    refusal = ""
    try:
        part = build(kind, **{name: value})
    except ValueError as error:
        refusal = str(error)
    if refusal:
        assert name in refusal
        return
    assert math.isfinite(value)
    if isinstance(part, lumix.Mixup | lumix.CutMix | lumix.Switch | lumix.FMix | lumix.ResizeMix | lumix.SaliencyMix):
        batch = part(images_of(4), labels_of(4), stream())
        assert batch.images.isfinite().all()
        assert ((batch.own_weight >= 0) & (batch.own_weight <= 1)).all()


@pytest.mark.parametrize(("kind", "name"), NUMBERS)
def test_numpy_scalars_are_numbers(kind, name):
    usual = default_of(kind, name)
    for scalar in (np.float64, np.float32) if type(usual) is float else (np.int64, np.int32):
        part = build(kind, **{name: scalar(usual)})
        if isinstance(part, lumix.Mixup | lumix.CutMix | lumix.Switch | lumix.FMix):
            assert part(images_of(4), labels_of(4), stream()).images.isfinite().all()
        if isinstance(part, lumix.MixLoss | lumix.LUMixRule | lumix.Regulariser | lumix.CrossEntropy):
            batch = lumix.CutMix()(images_of(4), labels_of(4), stream())
            logits = torch.randn(4, 10, generator=stream(), requires_grad=True)
            loss = part if isinstance(part, lumix.MixLoss) else lumix.MixLoss(*parts_of(part))
            loss(logits, batch, stream()).backward()
            assert logits.grad is not None


def parts_of(part: Any) -> tuple[Any, ...]:
    return (part,) if isinstance(part, lumix.Rule) else (None, [part])


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda v: lumix.CutMix(minmax=v), "minmax"),
        (lambda v: lumix.PuzzleMix(std=v), "std"),
        (lambda v: lumix.SaliencyMix(mean=v), "mean"),
        (lambda v: lumix.SaliencyMix(std=v), "std"),
        (lambda v: lumix.ManifoldMix(layers=v), "layers"),
        (lambda v: TimmMixup(cutmix_minmax=v), "minmax"),
        (lambda v: lumix.MixLoss(rule=v), "rule"),
        (lambda v: lumix.MixLoss(terms=v), "terms"),
        (lambda v: lumix.LUMixRule(law=v), "law"),
        (lambda v: lumix.RandomShuffle(v), "mixer"),
        (lambda v: lumix.Switch(v), "mixup"),
        (lambda v: lumix.Switch(cutmix=v), "cutmix"),
        (lambda v: lumix.Either(v, lumix.Mixup()), "first"),
        (lambda v: lumix.Either(lumix.Mixup(), v), "second"),
        (lambda v: lumix.AttentiveCutMix(v), "network"),
    ],
)
@pytest.mark.parametrize(
    "value", ["0.2", 0.2, True, ("0.2", 0.5), (math.nan, 0.5), (), (None, None), {0.2: 0.5}, [[0.2], 0.5]]
)
def test_sequences_and_parts_of_another_kind_are_refused_by_name(make, name, value):
    with pytest.raises(ValueError) as error:
        make(value)
    sentence(error, "loss" if value == () and name == "terms" else name)


@pytest.mark.parametrize(
    ("make", "remedy"),
    [
        (lambda: lumix.MixLoss(lumix.AreaRule), r"rule .* not the class itself: use AreaRule\(\)"),
        (lambda: lumix.MixLoss(None, lumix.CrossEntropy()), r"terms .* use \[CrossEntropy\(\)\]"),
        (lambda: lumix.Switch(lumix.Mixup), r"mixup .* use Mixup\(\)"),
        (lambda: lumix.LUMixRule(law=lumix.BetaLaw), r"law .* use BetaLaw\(\)"),
        (lambda: lumix.CutMix(correct_lam="False"), "correct_lam must be True or False, not 'False'"),
        (lambda: lumix.Switch(lumix.Mixup(), lumix.ManifoldMix()), "cutmix .* use Either"),
    ],
)
def test_remedies(make, remedy):
    with pytest.raises(ValueError, match=remedy):
        make()


@pytest.mark.parametrize("generator", [None, 0, np.random.default_rng(0), "cpu", torch.Generator])
def test_what_is_no_generator_is_refused_by_name(generator):
    batch = lumix.CutMix()(images_of(4), labels_of(4), stream())
    rule = lumix.LUMixRule()
    makers = [lumix.Mixup(), lumix.CutMix(), lumix.Switch(), lumix.FMix(), lumix.ResizeMix(), lumix.SaliencyMix()]
    makers += [
        lumix.RandomLambda(patch=4),
        lumix.RandomShuffle(lumix.Mixup(), 4),
        lumix.ManifoldMix(),
        lumix.PuzzleMix(),
    ]
    makers += [lumix.AttentiveCutMix(NETWORK), lumix.Either(lumix.Mixup(), lumix.CutMix())]
    tries = [lambda mixer=mixer: mixer(images_of(4, height=8), labels_of(4), generator) for mixer in makers]
    tries += [
        lambda law=law: law.draw(3, generator) for law in (lumix.BetaLaw(), lumix.NormalLaw(), lumix.ConstantLaw())
    ]
    for attempt in (
        *tries,
        lambda: rule.draw(batch, generator),
        lambda: lumix.MixLoss(rule)(torch.randn(4, 10), batch, generator),
    ):
        with pytest.raises(ValueError, match="generator"):
            attempt()


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(lumix.mixers.base.PlannedMixer)])
@pytest.mark.parametrize("place", ["mixup", "cutmix"])
def test_settings_of_the_parts_of_a_switch_are_its_own_or_refused(name, place):
    value = {"mode": "elem", "pairing": "flip", "prob": 0.5, "inplace": True}[name]
    part = {"mixup": lumix.Mixup, "cutmix": lumix.CutMix}[place](**{name: value})
    with pytest.raises(ValueError, match=f"{name}={value!r} of {place} would not be used: give it to the switch"):
        lumix.Switch(**{place: part})
    if name == "prob":  # of both, two would multiply
        with pytest.raises(ValueError, match="give it to the switch"):
            lumix.Switch(**{place: part}, prob=value)
        with pytest.raises(ValueError, match="give it to the switch"):
            lumix.Switch(**{place: lumix.Mixup(prob=0.0)}, prob=0.5)
    else:
        lumix.Switch(**{place: part, name: value})


# ------------------------------------------------------------------------------------------------- Beta


@pytest.mark.parametrize("alpha", [1e-5, 1e-4, 1e-3, 0.01, 0.05, 0.0999, 0.1, 0.2, 0.5, 1.0, 2.0, 10.0, 100.0, 1e4])
def test_beta_draws_have_the_quantiles_of_scipy(alpha):
    count = 40_000
    draws = draw_beta(alpha, count, stream(3)).numpy()
    assert np.isfinite(draws).all()
    shares = np.array(
        [1e-300, 1e-100, 1e-20, 1e-6, 0.01, 0.1, 0.3, 0.45, 0.49, 0.5, 0.51, 0.55, 0.7, 0.9, 0.99, 1 - 1e-9]
    )
    expected = stats.beta.cdf(shares, alpha, alpha)
    found = (draws[:, None] <= shares).mean(0)
    assert np.abs(found - expected).max() < 5 * 0.5 / math.sqrt(count)
    inside = (draws > 0.1) & (draws < 0.9)
    assert abs(inside.mean() - (expected[13] - expected[5])) < 5 * math.sqrt(
        max(expected[13] - expected[5], 1e-4) / count
    )


@settings(deadline=None, max_examples=60)
@given(alpha=st.floats(5e-324, 3e38, allow_subnormal=True), seed=st.integers(0, 100))
def test_beta_draws_lie_between_0_and_1_for_every_alpha(alpha, seed):
    draws = draw_beta(alpha, 64, stream(seed))
    assert ((draws >= 0) & (draws <= 1)).all()


def test_beta_draws_of_ordinary_alphas_are_the_ratio_of_gammas():
    gamma = torch._standard_gamma(torch.full((2, 8), 0.2, dtype=torch.float64), generator=stream())
    assert torch.equal(draw_beta(0.2, 8, stream()), gamma[0] / gamma.sum(0))


# ------------------------------------------------------------------------------------------------- configuration


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, "1", None, [1]])
@pytest.mark.parametrize(
    "make",
    [
        lambda v: Optim(lr=v),
        lambda v: Data("digits", 8, share=v),
        lambda v: Mix(((Mixup(), v),)),
        lambda v: Run(Data("digits", 8), Model("deit_s", "deit_small_patch16_224"), Optim(0.1), epochs=v),
    ],
)
def test_configurations_hold_finite_numbers(make, value):
    with pytest.raises(ValueError, match=r"(lr|share|choices\[0\]\[1\]|epochs) must be a (finite|whole) number, not"):
        make(value)
