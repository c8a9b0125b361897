"""Laws of the run configuration: it survives its own JSON, refuses unknown keys, and equal runs have equal keys."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lumix
from lumix.registry import name_of, part_of, to_dict
from training.config import DATA_SETS, Data, Loss, Mix, Model, Optim, Run
from training.parts import Embedded, Pretrained

share = st.floats(0, 1)
positive = st.floats(1e-6, 10)
names = st.text(st.characters(codec="utf-8"), max_size=12)

subsets = st.tuples(st.integers(0, 10**6), st.just(1.0)) | st.tuples(st.just(0), st.floats(0.01, 1))
data = st.builds(
    lambda subset, **fields: Data(train_size=subset[0], share=subset[1], **fields),
    subset=subsets,
    name=st.sampled_from(DATA_SETS),
    image_size=st.integers(1, 512),
    flip=st.booleans(),
    crop_scale=share,
    erasing=share,
    repeats=st.integers(1, 5),
    test_crop=st.floats(0.1, 1),
)
models = st.builds(
    Model,
    role=names,
    name=names,
    arguments=st.dictionaries(
        names, st.one_of(st.integers(-(2**53), 2**53), share, st.booleans(), names, st.lists(st.integers(0, 9)))
    ),
    init=st.sampled_from(["timm", "small"]),
)
optims = st.builds(Optim, lr=positive, weight_decay=positive, clip_grad=positive, ema_decay=share)


def choices(*mixers):
    """No mixer, one alone, or a switch of two."""
    mixer = st.one_of(*mixers)
    two = st.tuples(mixer, mixer, st.floats(0.01, 0.99)).map(lambda t: ((t[0], t[2]), (t[1], 1 - t[2])))
    return st.one_of(st.just(()), mixer.map(lambda one: ((one, 1.0),)), two)


MINMAX = st.tuples(share, share).filter(lambda sides: sides[0] < sides[1])
blends = st.builds(lumix.Mixup, alpha=positive)
boxes = st.builds(lumix.CutMix, alpha=positive) | st.builds(lumix.CutMix, minmax=MINMAX)
frozen = st.builds(Embedded) | st.builds(Pretrained, model=names)
through_networks = st.builds(lumix.AttentiveCutMix, network=frozen, size=st.none() | st.integers(1, 512))
then = st.just(()) | st.tuples(st.builds(lumix.RandomShuffle, patch=st.integers(1, 64)))
mixes = st.builds(
    Mix, choices=choices(blends, boxes), pairing=st.sampled_from(["flip", "permutation"]), then=then
) | st.builds(Mix, choices=choices(blends, through_networks), then=then)

laws = (
    st.builds(lumix.BetaLaw, alpha=positive)
    | st.builds(lumix.NormalLaw, scale=positive)
    | st.builds(lumix.ConstantLaw, value=share)
)
rules = st.one_of(
    st.builds(lumix.AreaRule),
    st.builds(lumix.TransMixRule, share=share),
    st.builds(lumix.LUMixRule, r_r=st.floats(0, 0.5), r_s=st.floats(0, 0.5), law=laws, detach=st.booleans()),
)
bases = st.builds(lumix.CrossEntropy, smoothing=share) | st.builds(lumix.BinaryCrossEntropy, smoothing=share)
terms = st.tuples(bases) | st.tuples(bases, st.builds(lumix.Regulariser, eta=positive, smoothing=share))
losses = st.builds(Loss, rule=rules, terms=terms)
runs = st.builds(
    Run,
    data=data,
    model=models,
    optim=optims,
    mix=mixes,
    loss=losses,
    epochs=st.integers(1, 1000),
    batch_size=st.integers(1, 4096),
)


@given(runs)
def test_a_run_survives_its_json(run):
    again = Run.from_dict(json.loads(json.dumps(run.to_dict())))
    assert again == run
    assert again.to_dict() == run.to_dict()
    assert again.key == run.key


@given(runs, runs)
def test_keys_are_equal_exactly_where_runs_are(first, second):
    assert (first.key == second.key) == (first == second)
    assert first.key == first.replace().key


@given(runs, names)
def test_unknown_keys_are_refused_at_every_depth(run, name):
    for record in (run, run.data, run.optim, run.mix, run.loss):
        if name not in {field.name for field in dataclasses.fields(record)}:
            with pytest.raises(ValueError, match="has no field"):
                type(record).from_dict({**record.to_dict(), name: 1})
    if name not in {field.name for field in dataclasses.fields(run.loss)}:
        nested = run.to_dict()
        nested["loss"] = {**run.loss.to_dict(), name: 1}
        with pytest.raises(ValueError, match="Loss has no field"):
            Run.from_dict(nested)
    rule = run.loss.rule
    if name not in {"name", *part_of(rule).arguments}:
        nested = run.to_dict()
        nested["loss"] = {"rule": {**to_dict(rule), name: 1}}
        with pytest.raises(ValueError, match=f"{name_of(rule)} has no argument"):
            Run.from_dict(nested)
