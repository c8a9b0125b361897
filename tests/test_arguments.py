"""Arguments: used as their type says or refused in one sentence that names them; and Beta draws for every alpha."""

import dataclasses
import math
from typing import Annotated, Any, Literal

import numpy as np
import pytest
import torch
from batches import images_of, labels_of, stream
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import lumix
from lumix.inputs import Count, CountOrNone, Learnable, NotNegative, Positive, Range, Share, checked
from lumix.integrations.timm import Mixup as TimmMixup
from lumix.mixers.base import PlannedMixer
from lumix.random import draw_beta
from lumix.registry import PARTS
from training.config import Data, Mix, Model, Optim, Run

NETWORK = torch.nn.Conv2d(3, 4, 4, 4)
GIVEN: dict[Any, dict[str, Any]] = {
    lumix.AttentiveCutMix: {"network": NETWORK},
    lumix.Either: {"first": lumix.Mixup(), "second": lumix.CutMix()},
    PARTS["pretrained"].cls: {"model": "resnet18"},
}
CLASSES = [*(part.cls for part in PARTS.values()), lumix.Switch, lumix.Either]
FIELDS = [(cls, field.name) for cls in CLASSES for field in dataclasses.fields(cls)]
NO_NUMBERS = [math.inf, -math.inf, math.nan, 10**400, "0.5", "", None, True, (0.5,), 1j, np.array([0.5])]


def build(cls: Any, **changes: Any) -> Any:
    return cls(**{**GIVEN.get(cls, {}), **changes})


def refuses(make: Any, name: str) -> None:
    with pytest.raises(ValueError) as error:
        make()
    text = str(error.value)
    assert name in text
    assert "\n" not in text
    assert len(text) < 400


@pytest.mark.parametrize("hint", [float, int, Learnable, Positive, NotNegative, Share, Count, CountOrNone])
@pytest.mark.parametrize("value", NO_NUMBERS, ids=lambda value: repr(value)[:9])
def test_what_is_no_number_is_refused_by_name(hint, value):
    refuses(
        lambda: checked("alpha", value, hint), f"alpha must be a {'whole' if 'int' in str(hint) else 'finite'} numb"
    )


@pytest.mark.parametrize(
    ("hint", "good", "bad"),
    [
        (Positive, (5e-324, 1), (0, -1)),
        (NotNegative, (0, 3), (-1e-9,)),
        (Share, (0, 1, 0.5), (-0.1, 1.1)),
        (Count, (1, np.int64(3)), (0, 1.0)),
        (Annotated[float, Range(0, 9, open_low=True)], (9,), (9.1, 0)),
        (bool, (True,), (1, "False", None)),
        (str, ("a", ""), (1, None)),
        (Literal["a", "b"], ("a",), ("c", 1, ["a"])),
        (Annotated[str, ("a", "b")], ("b",), ("c",)),
        (int | None, (None, 4), (1.5, "4")),
        (Learnable, (torch.tensor(1.0), 2.0), (-1, None, torch.tensor(-1.0), torch.ones(2), torch.tensor(torch.nan))),
        (tuple[float, ...], ((1, 2), [0.5]), ((), "0.2", 0.2, ("0.2", 0.5), (math.nan,), {0.2: 0.5})),
        (tuple[float, float] | None, (None, (0, 1)), ((1,), (1, 2, 3))),
        (tuple[tuple[Any, Share], ...], ((), (("x", 1),)), ((("x", 2),), ("x",))),
    ],
)
def test_a_value_is_used_as_its_type_says_or_refused(hint, good, bad):
    for value in good:
        found = checked("name", value, hint)
        assert found is value or found == (tuple(value) if isinstance(value, list) else value)
    for value in bad:
        refuses(lambda value=value: checked("name", value, hint), "name")
    assert type(checked("name", np.float32(0.5), Share)) is type(checked("name", 1, Share)) is float


@pytest.mark.parametrize(("cls", "name"), FIELDS, ids=[f"{cls.__name__}.{name}" for cls, name in FIELDS])
def test_every_field_of_every_part_refuses_what_it_cannot_use_by_name(cls, name):
    for value in (object(), math.nan, {0.2: 0.5}):
        refuses(lambda value=value: build(cls, **{name: value}), name)


@pytest.mark.parametrize(("cls", "name"), [(c, n) for c, n in FIELDS if isinstance(getattr(c, n, None), float)])
@settings(deadline=None, max_examples=25)
@given(value=st.one_of(st.floats(), st.sampled_from([-1.0, -5e-324, 1.5, -1e30, 5e-324])))
def test_a_number_is_refused_by_name_or_gives_finite_images(cls, name, value):
    try:
        part = build(cls, **{name: value})
    except ValueError:
        refuses(lambda: build(cls, **{name: value}), name)
        return
    assert math.isfinite(value)
    if isinstance(part, lumix.Mixup | lumix.CutMix | lumix.Switch | lumix.FMix | lumix.ResizeMix | lumix.SaliencyMix):
        batch = part(images_of(4), labels_of(4), stream())
        assert batch.images.isfinite().all()
        assert ((batch.own_weight >= 0) & (batch.own_weight <= 1)).all()


@pytest.mark.parametrize(
    "name", ["mixup_alpha", "cutmix_alpha", "prob", "switch_prob", "label_smoothing", "num_classes"]
)
@pytest.mark.parametrize("value", [math.nan, "0.5", None, -1.0])
def test_the_drop_in_refuses_by_name(name, value):
    refuses(lambda: TimmMixup(**{name: value}), name)


@pytest.mark.parametrize(
    ("make", "remedy"),
    [
        (lambda: lumix.MixLoss(smoothing="0.1"), "smoothing must be a finite number"),
        (lambda: lumix.MixLoss(eta=None), "eta must be a finite number"),
        (lambda: lumix.MixLoss(lumix.AreaRule), r"rule .* not the class itself: use AreaRule\(\)"),
        (lambda: lumix.MixLoss(None, lumix.CrossEntropy()), r"terms .* use \[CrossEntropy\(\)\]"),
        (lambda: lumix.MixLoss(terms=[torch.nn.CrossEntropyLoss()]), "must be a loss term with a name"),
        (lambda: lumix.Switch(lumix.Mixup), r"mixup .* use Mixup\(\)"),
        (lambda: lumix.LUMixRule(law=lumix.BetaLaw), r"law .* use BetaLaw\(\)"),
        (lambda: lumix.Switch(lumix.Mixup(), lumix.ManifoldMix()), "cutmix .* use Either"),
        (lambda: TimmMixup(cutmix_minmax=0.2), "minmax must be a tuple"),
        (lambda: Optim(lr="1"), "Optim.lr must be a finite number"),
        (lambda: Data("digit", 8), "Data.name must be one of digits"),
        (lambda: Mix(((lumix.Mixup(), math.nan),)), r"Mix.choices\[0\]\[1\] must be a finite number"),
        (lambda: Run(Data("digits", 8), Model("a", "b"), Optim(0.1), epochs=[1]), "Run.epochs must be a whole number"),
    ],
)
def test_remedies(make, remedy):
    with pytest.raises(ValueError, match=remedy):
        make()


@pytest.mark.parametrize("generator", [None, 0, np.random.default_rng(0), torch.Generator])
def test_what_is_no_generator_is_refused_by_name(generator):
    rule, images, labels = lumix.LUMixRule(), images_of(4, height=8), labels_of(4)
    mixers = [build(part.cls) for part in PARTS.values() if part.kind == "mixer"]
    mixers += [lumix.Switch(), lumix.RandomShuffle(lumix.Mixup(), 4), lumix.Either(lumix.Mixup(), lumix.CutMix())]
    tries = [lambda mixer=mixer: mixer(images, labels, generator) for mixer in mixers if not hasattr(mixer, "patch")]
    tries += [lambda law=law: law.draw(3, generator) for law in (lumix.BetaLaw(), lumix.NormalLaw())]
    batch = lumix.CutMix()(images, labels, stream())
    for attempt in (*tries, lambda: lumix.MixLoss(rule)(torch.randn(4, 10), batch, generator)):
        with pytest.raises(ValueError, match="generator"):
            attempt()


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(PlannedMixer)])
@pytest.mark.parametrize("place", ["mixup", "cutmix"])
def test_settings_of_the_parts_of_a_switch_are_its_own_or_refused(name, place):
    value = {"mode": "elem", "pairing": "flip", "prob": 0.5, "inplace": True}[name]
    part = {"mixup": lumix.Mixup, "cutmix": lumix.CutMix}[place](**{name: value})
    with pytest.raises(ValueError, match=f"{name}={value!r} of {place} would not be used: give it to the switch"):
        lumix.Switch(**{place: part})
    if name == "prob":  # of both, two would multiply
        with pytest.raises(ValueError, match="give it to the switch"):
            lumix.Switch(**{place: part}, prob=value)
    else:
        lumix.Switch(**{place: part, name: value})


@pytest.mark.parametrize("alpha", [1e-5, 1e-3, 0.05, 0.0999, 0.1, 0.2, 1.0, 2.0, 100.0, 1e4])
def test_beta_draws_have_the_quantiles_of_scipy(alpha):
    count = 40_000
    draws = draw_beta(alpha, count, stream(3)).numpy()
    assert np.isfinite(draws).all()
    shares = np.array([1e-300, 1e-100, 1e-20, 1e-6, 0.01, 0.1, 0.3, 0.45, 0.5, 0.55, 0.7, 0.9, 0.99, 1 - 1e-9])
    expected = stats.beta.cdf(shares, alpha, alpha)
    found = (draws[:, None] <= shares).mean(0)
    assert np.abs(found - expected).max() < 5 * 0.5 / math.sqrt(count)
    inside, share = ((draws > 0.1) & (draws < 0.9)).mean(), expected[11] - expected[5]
    assert abs(inside - share) < 5 * math.sqrt(max(share, 1e-4) / count)


@settings(deadline=None, max_examples=60)
@given(alpha=st.floats(5e-324, 3e38, allow_subnormal=True), seed=st.integers(0, 100))
def test_beta_draws_lie_between_0_and_1_for_every_alpha(alpha, seed):
    draws = draw_beta(alpha, 64, stream(seed))
    assert ((draws >= 0) & (draws <= 1)).all()
