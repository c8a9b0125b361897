"""Ensembles: every member equals its run alone, whatever its method; interrupted ones go on; diverged ones drop out."""

import json

import pytest
import torch

from experiments import decoupled, methods
from experiments.scale import get_scale
from lumix.registry import get_part
from tests.engine import OFTEN, VIT, StopHere, small_run, stopped_after, weights
from training import ensemble, loop
from training.config import Execution, Mix, Run
from training.data import feeds
from training.ensemble import fit_many
from training.parts import AutoMix
from training.run_directory import RunError, Stopped

STILL = {**VIT, "drop_path_rate": 0.0}
BASE = small_run(epochs=9)  # 54 updates
BASE = BASE.replace(model=BASE.model.replace(arguments=STILL), optim=BASE.optim.replace(ema_decay=0.0))


def shrunk(run: Run) -> Run:
    """A run of mini scale on 100 images with 54 updates."""
    data = run.data.replace(train_size=100, share=1.0)
    return run.replace(data=data, optim=run.optim.replace(warmup_epochs=1), epochs=9, batch_size=16, median_last=2)


def of_table6(run: Run) -> list[Run]:
    """One run for each of the methods of Table 6."""
    return [
        methods.puzzle_mix(run),
        methods.attentive_cutmix(run),
        *(methods.in_place_of_cutmix(run, get_part(name).cls()) for name in ("saliencymix", "resizemix", "fmix")),
    ]


def different(base: Run) -> list[Run]:
    """Members that differ in all that may differ."""
    return [
        base,
        methods.lumix(base),
        methods.components(base, 0.2, 0.3, 0.5),
        methods.transmix(base),
        methods.binary(base),
        decoupled.decoupled(base, 0.5),
        decoupled.rescaled(base),
        base.replace(optim=base.optim.replace(lr=2e-3, weight_decay=0.0, clip_grad=0.1)),
        base.replace(mix=Mix()),
        methods.random_shuffle(base, 2),
        *of_table6(base),
    ]


def convolutional() -> list[Run]:
    """Members that are tiny ResNets: mixing in hidden layers, moving cells, SGD of different rates, LAMB."""
    base = shrunk(get_scale("mini").base("pytorch", "resnet18"))
    arguments = {**base.model.arguments, "global_pool": "fastavg"}  # timm's adaptive pooling has no rule of vmap
    base = base.replace(model=base.model.replace(norm="group", arguments=arguments))
    mixed = [decoupled.mixed(base, name, 1.0) for name in decoupled.METHODS]
    lamb = base.optim.replace(name="lamb", lr=5e-3, clip_grad=1.0)
    return [*mixed, decoupled.decoupled(mixed[2], 1.0), mixed[2], base.replace(optim=lamb)]


@pytest.fixture
def double(monkeypatch):
    """Networks and images in float64, where rounding is far below what is asked."""
    build, normalise = loop.initial_network, feeds.normalise
    monkeypatch.setattr(loop, "initial_network", lambda *a, **k: build(*a, **k).double())
    monkeypatch.setattr(feeds, "normalise", lambda *a: normalise(*a).double())


@pytest.mark.parametrize("runs", [different(BASE), convolutional()], ids=["vit", "resnet"])
def test_members_equal_runs_alone_after_50_updates(runs, double, tmp_path):
    runs, seeds = [run.replace(evaluate_every=9, median_last=1) for run in runs], range(len(runs))
    together = fit_many(runs, seeds, [tmp_path / f"together{seed}" for seed in seeds])
    for run, seed, found in zip(runs, seeds, together, strict=True):
        alone = loop.fit(run, seed, tmp_path / f"alone{seed}")
        mine, other = (weights(tmp_path / f"{way}{seed}") for way in ("together", "alone"))
        furthest = max(float((mine[name] - other[name]).abs().max()) for name in other)
        assert furthest <= 1e-10, (run.method, furthest)
        assert found["top1"] == alone["top1"]
        assert found["lambda"] == pytest.approx(alone["lambda"], abs=1e-9, nan_ok=True)
        assert found["stacked"] == len(runs)
        assert "stacked" not in alone


@pytest.mark.parametrize(
    ("role", "size"), [("deit_s", 16), ("deit_s", 8), ("swin_t", 8), ("resnet18", 16), ("rsb_a3", 8)]
)
def test_a_members_bits_depend_on_the_size_of_the_stack_alone(role, size, tmp_path):
    """Not on its companions, on its place, or on whether networks run idle."""
    kind = {"resnet18": "pytorch", "rsb_a3": "rsb_a3"}.get(role, "deit")
    base = get_scale("mini").base(kind, "resnet50" if kind == "rsb_a3" else role)
    optim = base.optim.replace(warmup_epochs=1)
    base = base.replace(data=base.data.replace(train_size=40, share=1.0), optim=optim, epochs=2, evaluate_every=2)
    base = base.replace(median_last=1)
    cutmix = decoupled.mixed(base, "cutmix", 1.0)
    mine = cutmix if base.optim.name == "lamb" else methods.lumix(cutmix)
    rates = [base.optim.replace(lr=2e-3, clip_grad=0.1), base.optim.replace(weight_decay=0.0)]
    others = [
        base,
        decoupled.mixed(base, "mixup", 1.0),
        decoupled.decoupled(cutmix, 0.5),
        decoupled.mixed(base, "fmix", 1.0),
        *(base.replace(optim=optim) for optim in rates),
    ]

    def trained(name, at, companions):
        runs, seeds = [companions[k % len(companions)] for k in range(size)], list(range(100, 100 + size))
        runs[at], seeds[at] = mine, 7
        return fit_many(runs, seeds, [tmp_path / name / str(k) for k in range(size)])[at]["checksum"]

    found = {trained("first", 2, others), trained("last", size - 1, others[::-1])}
    padded = fit_many([mine] * size, [7] * size, [tmp_path / "padded"] * size)
    assert [result["checksum"] for result in padded] == size * list(found)
    assert padded[0]["stacked"] == size


PAIR = [methods.lumix(BASE.replace(epochs=3)), BASE.replace(epochs=3)]  # 18 updates


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return fit_many(PAIR, [0, 1], [tmp_path_factory.mktemp("whole") for _ in range(2)])


def checksums(found: list) -> list[str]:
    return [result["checksum"] for result in found]


@pytest.mark.parametrize("at", [1, 9])
def test_killed_at_any_update_it_goes_on_bit_for_bit(at, whole, tmp_path):
    directories = [tmp_path / "c", tmp_path / "d"]
    with stopped_after(at, check_every=2, kind=ensemble.Ensemble):
        fit_many(PAIR, [0, 1], directories, OFTEN)
    resumed = fit_many(PAIR, [0, 1], directories, OFTEN)
    assert checksums(resumed) == checksums(whole)
    assert [result["lambda"] for result in resumed] == [result["lambda"] for result in whole]
    assert ("resumed" in (directories[0] / "log.txt").read_text()) == (at > 1)
    for directory in directories:
        lines = [json.loads(line)["epoch"] for line in (directory / "metrics.jsonl").read_text().splitlines()]
        assert lines == [1, 2, 3]


def test_killed_while_results_are_written_the_others_are_as_they_would_have_been(whole, tmp_path, monkeypatch):
    directories, write = [tmp_path / "c", tmp_path / "d"], loop.write_result

    def writing(state, feed, process, directory, stacked=0):
        if directory == directories[1]:
            raise StopHere
        return write(state, feed, process, directory, stacked)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "write_result", writing)
        with pytest.raises(StopHere):
            fit_many(PAIR, [0, 1], directories, OFTEN)
    before = (directories[0] / "result.json").read_bytes()
    assert checksums(fit_many(PAIR, [0, 1], directories)) == checksums(whole)
    assert (directories[0] / "result.json").read_bytes() == before
    assert not (directories[0] / ensemble.Ensemble.CHECKPOINT).exists()
    assert checksums(fit_many(PAIR, [0, 1], directories)) == checksums(whole)


def test_a_checkpoint_of_other_members_is_not_taken_up(tmp_path):
    directories = [tmp_path / "a", tmp_path / "b"]
    with pytest.raises(Stopped, match="can be continued"):
        fit_many(PAIR, [0, 1], directories, stop=lambda: True)
    assert all("stopped" in (directory / "log.txt").read_text() for directory in directories)
    others = [tmp_path / "a", tmp_path / "c"]
    found = fit_many(PAIR, [0, 2], others)
    assert "resumed" not in (tmp_path / "a" / "log.txt").read_text()
    assert checksums(found) == checksums(fit_many(PAIR, [0, 2], [tmp_path / "d", tmp_path / "e"]))


def test_a_checkpoint_of_a_stack_of_another_size_is_not_taken_up(tmp_path):
    directories = [tmp_path / "a", tmp_path / "b"]
    with pytest.raises(Stopped):
        fit_many(PAIR, [0, 1], directories, stop=lambda: True)
    found = fit_many(PAIR * 2, [0, 1] * 2, directories * 2)  # the optimizer would read beyond its moments
    assert "resumed" not in (tmp_path / "a" / "log.txt").read_text()
    assert checksums(found) == checksums(fit_many(PAIR * 2, [0, 1] * 2, [tmp_path / "c", tmp_path / "d"] * 2))


def test_one_directory_is_for_one_run_and_seed(tmp_path):
    with pytest.raises(RunError, match="give each of them a directory of its own"):
        fit_many(PAIR, [0, 1], [tmp_path, tmp_path])


def test_a_member_that_diverges_is_dropped_and_the_others_go_on(tmp_path, monkeypatch):
    wild = PAIR[1].replace(optim=PAIR[1].optim.replace(name="momentum", lr=1e30, clip_grad=0.0, warmup_epochs=0))
    # Filled up to 16, for members of smaller stacks may round otherwise when one of them is gone.
    runs, seeds = [PAIR[0], wild, *[PAIR[1]] * 14], [0, 1, *[2] * 14]
    found = fit_many(runs, seeds, [tmp_path / str(seed) for seed in seeds])
    assert isinstance(found[1], RunError)
    assert str(found[1]).startswith(f"the loss of {wild.key} seed 1 is not finite at update")
    assert "failed: " in (tmp_path / "1" / "log.txt").read_text()
    assert not (tmp_path / "1" / "result.json").exists()
    assert not (tmp_path / "0" / ensemble.Ensemble.CHECKPOINT).exists()
    tame = fit_many([PAIR[0], *[PAIR[1]] * 15], seeds, [tmp_path / f"tame{seed}" for seed in seeds])
    assert [found[0]["checksum"], found[2]["checksum"]] == [tame[0]["checksum"], tame[2]["checksum"]]


def test_where_all_diverge_it_says_so(tmp_path):
    wild = PAIR[1].replace(optim=PAIR[1].optim.replace(name="momentum", lr=1e30, clip_grad=0.0, warmup_epochs=0))
    with pytest.raises(RunError, match="not finite at update"):
        fit_many([wild, wild], [0, 1], [tmp_path / "a", tmp_path / "b"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 4}, "has epochs 4, not 3: train it in another ensemble"),
        ({"batch_size": 8}, "has batch_size 8, not 16"),
        ({"task": AutoMix()}, "automix trains several networks at once"),
        ({"model": small_run().model}, "has model"),
    ],
)
def test_runs_that_do_not_go_together_are_refused(changes, message, tmp_path):
    other = PAIR[1].replace(**changes)
    with pytest.raises(RunError, match=message):
        fit_many([PAIR[0], other], [0, 1], [tmp_path / "a", tmp_path / "b"])


def test_networks_that_cannot_be_stacked_are_refused(tmp_path):
    drops = small_run(optim=BASE.optim, model=small_run().model.replace(arguments={**VIT, "depth": 2}))
    with pytest.raises(RunError, match="drops at random"):
        fit_many([drops, drops], [0, 1], [tmp_path / "a", tmp_path / "b"])
    base = convolutional()[0]
    normalises = base.replace(model=base.model.replace(norm=""))
    with pytest.raises(RunError, match=r"of ResNetV2 is batch normalisation.*set Model.norm to 'group'"):
        fit_many([normalises, normalises], [0, 1], [tmp_path / "c", tmp_path / "d"])


def test_what_is_stacked_is_the_networks_own(tmp_path):
    """Each network stays whole: what its parameters hold is its slice, before and after an update."""
    trainings = [
        loop.Training(run, seed, tmp_path, Execution(), loop.Process.current("cpu")) for seed, run in enumerate(PAIR)
    ]
    before = [{n: p.clone() for n, p in t.task.trainable_module.named_parameters()} for t in trainings]
    together = ensemble.Ensemble(trainings)
    for training, parameters in zip(trainings, before, strict=True):
        assert all(torch.equal(p, parameters[n]) for n, p in training.task.trainable_module.named_parameters())
    together.step({place: next(t.feed.train(0, 0)) for place, t in enumerate(trainings)})
    for place, training in enumerate(trainings):
        for name, parameter in training.task.trainable_module.named_parameters():
            assert torch.equal(parameter, together.networks.parameters[name][place])
            assert not torch.equal(parameter, before[place][name]) or name.endswith("bias")
