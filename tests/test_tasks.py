"""Tasks in the engine: losses against plain references, resumed runs, processes, half precision, refusals."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from batches import stream
from engine import LUMIX, check_resumed_equals_whole, small_run, weights
from safetensors.torch import load_file
from test_distributed import check_resumed_pair_equals_whole
from test_feeds import PLAIN, STRONG, a_feed, a_run
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.methods import MIXUP
from lumix import CrossEntropy, CutMix, Decoupled, LUMixRule, ManifoldMix, Mixup, PuzzleMix, TransMixRule
from lumix.batch import Kind
from lumix.registry import get_part
from lumix.semi import Views
from training import run_directory
from training.build import build_task
from training.config import Execution, Loss, Mix, Model, Optim, Run
from training.loop import Training, fit
from training.mixed_accuracy import mix_as_in_training
from training.models import build_model
from training.optim import build_optimizer, build_schedule
from training.parts import AutoMix, Embedded, SAMix, SelfTuning
from training.process import Process
from training.rng import step_generator
from training.state import load_model

SMALL = {"channels": [4, 8, 8, 8], "layers": [1, 1, 1, 1]}
RESNET = Model("resnet50", "resnet18", SMALL)
STEMMED = RESNET.replace(arguments={**SMALL, "cifar_stem": True})
BOTH = ((Mixup(), 0.5), (CutMix(), 0.5))
MIXING: dict[str, Any] = {
    "mix": Mix(choices=BOTH, pairing="permutation"),
    "loss": Loss(terms=(CrossEntropy(), Decoupled(eta=0.5))),
}
STREAMS = partial(step_generator, 0, 0, 0)


def a_task(run: Run, seed: int = 0) -> Any:
    network = build_model(run.model, 10, 1, 8, seed=0)
    return build_task(run, network, (0.3,), (0.4,), torch.device("cpu"), seed=seed, updates=10)


def first_batch(run: Run) -> tuple[Views, Tensor]:
    return next(iter(a_feed(run).train(0, 0)))


def semi(task: str, **arguments: Any) -> Run:
    data = {"crop_padding": 1} | (STRONG if task == "fixmatch" else {})
    return a_run(get_part(task).cls(**arguments), data=data, model=STEMMED)


def beside_mixup(name: str, share: float = 0.5, **arguments: Any) -> Mix:
    """A rival in CutMix's place in the switch, on `share` of the batches."""
    return Mix(choices=((MIXUP, 1 - share), (get_part(name).cls(**arguments), share)))


FROZEN: dict[str, Any] = {"network": Embedded(), "size": None, "cells": 2}
LEARNS: dict[str, Any] = {"mix": Mix(), "optim": Optim(lr=5e-3, warmup_epochs=1)}
RIVALS: dict[str, dict[str, Any]] = {
    "saliencymix": {"mix": beside_mixup("saliencymix"), "loss": LUMIX},
    "puzzlemix": {"mix": beside_mixup("puzzlemix"), "model": RESNET},
    "attentivecutmix": {"mix": beside_mixup("attentivecutmix", **FROZEN), "loss": LUMIX},
    "resizemix": {"mix": beside_mixup("resizemix")},
    "fmix": {"mix": beside_mixup("fmix")},
    "manifoldmix": {"mix": beside_mixup("manifoldmix", share=0.9), "model": RESNET},
    "transmix": {"loss": Loss(rule=TransMixRule())},
    "attention on puzzlemix": {"mix": beside_mixup("puzzlemix"), "loss": LUMIX.replace(rule=LUMixRule(r_a=0.25))},
    "automix": {"task": AutoMix(share=0.8), "model": RESNET, "loss": MIXING["loss"], **LEARNS},
    "samix": {"task": SAMix(stage=0, mask_decays=True), "loss": Loss(rule=LUMixRule()), **LEARNS},
}
TUNED = a_run(
    SelfTuning(places=3, features=6),
    data={"crop_padding": 1},
    epoch_steps=6,
    epochs=2,
    batch_size=16,
    model=RESNET,
    optim=Optim(lr=0.01, name="sgd", min_lr=0.0),
    median_last=1,
)
RUNS = {name: small_run(epochs=2, **changes) for name, changes in RIVALS.items()} | {
    "fixmatch": semi("fixmatch", ratio=2, threshold=0.2).replace(**MIXING),
    "pseudo_label": semi("pseudo_label", threshold=0.2, ramp=1.0),
    "mixmatch": semi("mixmatch", ramp=1.0),
    "self_tuning": TUNED,
    "self_tuning that mixes": TUNED.replace(mix=Mix(choices=BOTH), loss=MIXING["loss"]),
}


@pytest.mark.parametrize("name", RUNS)
def test_stopped_and_resumed_equals_undisturbed(name: str, tmp_path: Path) -> None:
    run = RUNS[name]
    assert all(mixer in run.key for mixer in run.mix.names)
    result = check_resumed_equals_whole(run, tmp_path)
    network = build_model(run.model, 10, 1, 8, seed=0)  # alone, without what learns beside it
    network.load_state_dict(weights(tmp_path / "whole"))
    assert result["parameters"] == sum(p.numel() for p in network.parameters())
    beside, task = tmp_path / "whole" / "learner.safetensors", a_task(run)
    assert beside.exists() == hasattr(task, "learner")
    if beside.exists():  # all of it is there again, its masks too
        own = {f"network.{key}": value for key, value in network.state_dict().items()}
        task.learner.load_state_dict({**own, **load_file(beside)})
        assert beside.read_bytes() == (tmp_path / "stopped" / beside.name).read_bytes()
    line = run_directory.read_metrics(tmp_path / "whole")[-1]
    if name == "fixmatch":
        assert 0 < line["trusted"] < 1
        assert {"mixed", "lam_0"} <= set(line)
    if name.startswith("self_tuning"):
        assert {"cross_entropy", "contrast", "contrast_unlabelled"} <= set(line)
        assert ("lam" in line) == ("mixes" in name)


@pytest.mark.parametrize("name", ["puzzlemix", "saliencymix", "transmix", "samix"])
def test_half_precision_trains(name: str, tmp_path: Path) -> None:
    """The network with strides sees 64 pixels: at 1 x 1 oneDNN leaves gradients of such weights unwritten (FAQ)."""
    run = RUNS[name].replace(precision="bfloat16")
    run = run.replace(data=run.data.replace(image_size=64)) if name == "puzzlemix" else run
    fit(run, 0, tmp_path, Execution(microbatch=4 if name == "samix" else 0))
    assert all(bool(value.isfinite().all()) for value in weights(tmp_path).values())


@pytest.mark.parametrize("name", ["puzzlemix", "attention on puzzlemix", "automix", "fixmatch", "self_tuning"])
def test_two_processes_agree(name: str, tmp_path: Path) -> None:
    """Extra passes and hooks leave DDP in order; a resumed pair takes up one state, so what is remembered is equal.

    So are the statistics of batch norms: the scores of both are those of the exported weights.
    """
    result = check_resumed_pair_equals_whole(tmp_path, RUNS[name], 9)
    assert (result["steps"], result["n_samples"]) == (12, 797)
    network, test = load_model(tmp_path / "whole"), a_feed(RUNS[name]).test()
    with torch.no_grad():
        losses = torch.cat([F.cross_entropy(network(images), labels, reduction="none") for images, labels in test])
    assert result["loss"]["last"] == pytest.approx(losses.mean().item(), rel=1e-5)


IMAGES = torch.randn(20, 1, 8, 8, generator=stream())
LABELS = torch.arange(20) % 10


@pytest.mark.parametrize("size", [20, 10, 7])
def test_the_number_of_microbatches_never_changes_the_label_weights(size: int) -> None:
    task = a_task(small_run()).eval()  # without stochastic depth, which draws anew for each part
    batch = task.prepare(IMAGES.clone(), LABELS, partial(step_generator, 0, 0, 3))
    whole, parts = task.step(batch), [task.step(batch.rows(slice(i, i + size))) for i in range(0, 20, size)]
    for name in ("lam", "loss"):
        together = torch.cat([part.record[name] for part in parts])
        torch.testing.assert_close(together, whole.record[name])
    shares = [len(part.record["loss"]) / 20 for part in parts]
    torch.testing.assert_close(sum(s * p.loss for s, p in zip(shares, parts, strict=True)), whole.loss)
    assert (whole.record["lam"] != whole.record["lam_0"]).any()


def test_a_step_is_random_only_through_its_streams() -> None:
    task, asked = a_task(small_run()).eval(), []

    def streams(name: str) -> torch.Generator:
        asked.append(name)
        return step_generator(0, 0, 3, name)

    first, second = (task.step(task.prepare(IMAGES.clone(), LABELS, streams)) for _ in range(2))
    assert torch.equal(first.loss, second.loss)
    assert asked == ["mix", "rule"] * 2


def test_the_average_of_the_weights_is_what_is_evaluated() -> None:
    task, (views, labels) = a_task(semi("fixmatch", ratio=2)), first_batch(semi("fixmatch", ratio=2))
    task.train()
    optimizer = torch.optim.SGD(task.trainable_module.parameters(), lr=0.1)
    average = {name: value.clone() for name, value in task.trainable_module.state_dict().items()}
    for step in range(5):
        task.step(task.prepare(views, labels, STREAMS)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        task.after_update(step)
        new = task.trainable_module.state_dict()
        decay = 0.9 if step > 1 else 0.0  # timm's average begins at the weights after the second update
        average = {name: decay * old + (1 - decay) * new[name] for name, old in average.items()}
    reported = task.reported_model().state_dict()
    for name, parameter in task.trainable_module.named_parameters():
        torch.testing.assert_close(reported[name], average[name])
        assert not torch.equal(reported[name], parameter)


def gradients(task: Any) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in task.trainable_module.named_parameters()}


class WithoutNorm(nn.Module):
    """A network whose logits of an image do not depend on the batch: a plain reference can take images apart."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(4 * images.flatten(1))


def plain_task(run: Run) -> Any:
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(1)
        network = WithoutNorm()
    return build_task(run, network, (0.3,), (0.4,), torch.device("cpu"), seed=0, updates=10)


@pytest.mark.parametrize("threshold", [0.0, 0.6, 1.0])
def test_the_loss_is_fixmatchs(threshold: float) -> None:
    run = semi("fixmatch", ratio=2, threshold=threshold, weight=0.5)
    task, (views, labels) = plain_task(run), first_batch(run)
    network = task.trainable_module
    result = task.step(task.prepare(views, labels, STREAMS))
    weak, strong = views.unlabelled
    probabilities, guesses = network(weak).softmax(1).max(1)
    trusted = (probabilities >= threshold).float()
    wanted = F.cross_entropy(network(views.labelled[0]), labels)
    each = F.cross_entropy(network(strong), guesses.detach(), reduction="none")
    wanted = wanted + 0.5 * (trusted * each).mean()
    torch.testing.assert_close(result.loss, wanted)
    found = torch.autograd.grad(result.loss, list(network.parameters()))
    torch.testing.assert_close(found, torch.autograd.grad(wanted, list(network.parameters())))
    torch.testing.assert_close(result.record["loss"].mean(), result.loss.detach())
    torch.testing.assert_close(result.record["trusted"].nanmean(), trusted.mean())
    assert (0 < trusted.mean() < 1) == (threshold == 0.6)


def test_where_the_run_mixes_the_mixed_loss_of_all_known_images_is_added() -> None:
    run = semi("fixmatch", ratio=2, threshold=0.6).replace(**MIXING)
    task, (views, labels) = plain_task(run), first_batch(run)
    before = [view.clone() for view in (*views.labelled, *views.unlabelled)]
    batch = task.prepare(views, labels, STREAMS)
    assert all(torch.equal(a, b) for a, b in zip(before, (*views.labelled, *views.unlabelled), strict=True))
    mixed = batch.mixed.batch
    assert mixed.size == len(batch.known) < batch.size == 24
    assert torch.equal(mixed.labels, batch.labels)
    assert torch.equal(mixed.partner_labels, batch.labels[mixed.partner])
    result = task.step(batch)
    network, known = task.trainable_module, len(batch.known)
    plain = F.cross_entropy(network(batch.known), batch.labels, reduction="none")
    added, _ = task.criterion.per_sample(network(mixed.images), mixed, mixed.own_weight)
    factors = torch.tensor([1 / 8] * 8 + [1 / 16] * (known - 8))
    torch.testing.assert_close(result.loss, (factors * (plain + added)).sum())
    torch.testing.assert_close(result.parts["mixed"][:known], added.detach())
    assert {"lam_0", "trusted", "loss"} <= result.record.keys()


@pytest.mark.parametrize("changes", [{}, MIXING])
@pytest.mark.parametrize("task", ["fixmatch", "pseudo_label", "mixmatch"])
def test_parts_of_a_batch_give_the_gradient_of_the_whole(task: str, changes: dict[str, Any]) -> None:
    if task == "mixmatch" and changes:
        pytest.skip("MixMatch mixes by itself")
    run = semi(task, **({} if task == "mixmatch" else {"threshold": 0.6})).replace(**changes)
    learner, (views, labels) = plain_task(run), first_batch(run)
    learner.done = 4
    batch = learner.prepare(views, labels, STREAMS)
    learner.step(batch).loss.backward()
    whole = gradients(learner)
    learner.zero_grad()
    for start in range(0, batch.size, 5):
        part = batch.rows(slice(start, start + 5))
        (learner.step(part).loss * part.size / batch.size).backward()
    for name, value in gradients(learner).items():
        torch.testing.assert_close(value, whole[name])


def test_the_weight_of_pseudo_labels_rises_over_a_share_of_the_run() -> None:
    run = semi("pseudo_label", threshold=0.0, weight=2.0, ramp=0.4)
    task, (views, labels) = plain_task(run), first_batch(run)
    network = task.trainable_module
    supervised = F.cross_entropy(network(views.labelled[0]), labels)
    logits = network(views.unlabelled[0])
    guessed = F.cross_entropy(logits, logits.argmax(1))
    for done, weight in ((0, 0.0), (1, 0.5), (2, 1.0), (4, 2.0), (9, 2.0)):
        if done:
            task.after_update(done - 1)
        torch.testing.assert_close(task.step(task.prepare(views, labels, STREAMS)).loss, supervised + weight * guessed)


def test_the_loss_is_mixmatchs() -> None:
    run = semi("mixmatch", weight=10.0)
    task, (views, labels) = plain_task(run), first_batch(run)
    network = task.trainable_module
    task.done = 2  # of 10 updates: half of the ramp
    batch = task.prepare(views, labels, STREAMS)
    assert not batch.targets.requires_grad
    torch.testing.assert_close(batch.targets.sum(1), torch.ones(24))
    result = task.step(batch)
    logits = network(batch.images)
    supervised = F.cross_entropy(logits[:8], batch.targets[:8])
    guessed = ((logits[8:].softmax(1) - batch.targets[8:]) ** 2).mean()
    torch.testing.assert_close(result.loss, supervised + 5.0 * guessed)
    torch.testing.assert_close(result.parts["squared_error"].nanmean(), guessed.detach())
    assert result.parts["cross_entropy"].isnan().sum() == 16


@pytest.mark.parametrize("microbatch", [0, 8])
def test_a_microbatch_counts_labelled_images(microbatch: int, tmp_path: Path) -> None:
    """That of the whole share of a device is the whole batch, with its unlabelled images."""
    run = semi("fixmatch", ratio=2)
    training = Training(run, 0, tmp_path, Execution(microbatch=microbatch), Process.current("cpu"))
    sizes = []
    with pytest.MonkeyPatch.context() as patch:
        step = training.task.step
        patch.setattr(training.task, "step", lambda part: sizes.append(part.size) or step(part))
        training.step(*first_batch(run))
    assert sizes == [24]


@pytest.mark.parametrize(
    ("run", "rates"),
    [
        (RUNS["automix"].replace(task=AutoMix(block_lr=0.01, block_min_lr=0.002)), {0: 0.01, 9: 0.002}),
        (TUNED, {0: 1.0, 9: 0.01}),
    ],
    ids=["automix", "self_tuning"],
)
def test_a_part_has_learning_rates_of_its_own(run: Run, rates: dict[int, float]) -> None:
    run = run.replace(optim=Optim(lr=0.1, name="momentum", min_lr=0.001))
    task = a_task(run)
    learner = task.learner
    part = learner.block if hasattr(learner, "block") else learner.network.get_classifier()
    own = {id(p) for p in part.parameters()}
    optimizer = build_optimizer(run.optim, task.parameter_groups())
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert trained == {id(p) for p in learner.parameters() if p.requires_grad}
    schedule = build_schedule(run.optim, optimizer, 2, 5)
    for step, rate in rates.items():
        schedule.step_update(step)
        for group in optimizer.param_groups:
            wanted = rate if id(group["params"][0]) in own else {0: 0.1, 9: 0.001}[step]
            assert group["lr"] == pytest.approx(wanted)
    assert task.reported_model() is learner.network


@pytest.mark.parametrize("name", ["automix", "self_tuning"])
def test_initial_weights_depend_on_the_seed_alone(name: str) -> None:
    run, before = RUNS[name], torch.get_rng_state()
    first, second, other = (a_task(run, seed).learner.state_dict() for seed in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(value, second[key]) for key, value in first.items())
    assert not all(torch.equal(value, other[key]) for key, value in first.items())


@pytest.mark.parametrize("name", ["mixup", "automix"])
def test_mixed_test_images_are_counted_and_change_nothing(name: str, tmp_path: Path) -> None:
    run = RUNS.get(name, small_run(epochs=2, mix=Mix(choices=((Mixup(), 1.0),))))
    plain, counted = fit(run, 0, tmp_path / "plain"), fit(run.replace(count_mixed=True), 0, tmp_path / "counted")
    assert counted["checksum"] == plain["checksum"]
    assert counted["top1"] == plain["top1"]
    assert "top1_mixed" not in plain
    assert 0 <= counted["top2_mixed"]["last"] <= counted["top1_mixed"]["last"] <= 100


@pytest.mark.parametrize("name", ["automix", "self_tuning that mixes"])
def test_test_images_are_mixed_with_the_next_ones_by_weights_of_their_own(name: str) -> None:
    task = a_task(RUNS[name])
    images, labels = torch.rand(40, 1, 8, 8), torch.arange(40) % 10
    before = {name: value.clone() for name, value in task.learner.state_dict().items()}
    batch = mix_as_in_training(task, images, labels, stream())
    assert torch.equal(batch.partner, torch.arange(40).roll(-1))
    assert len(batch.own_weight.unique()) > 20
    assert name != "automix" or {int(kind) for kind in batch.kind.unique()} == {int(Kind.BLEND), int(Kind.MASK)}
    assert all(torch.equal(value, before[name]) for name, value in task.learner.state_dict().items())


def test_what_would_be_ignored_is_refused(tmp_path: Path) -> None:
    for name in ("mixmatch", "fixmatch", "pseudo_label"):
        with pytest.raises(ValueError, match="has losses of its own here"):
            a_task(semi(name).replace(loss=Loss()))
    with pytest.raises(ValueError, match=r"leave out Run\.mix"):
        a_task(semi("mixmatch").replace(**MIXING))
    with pytest.raises(ValueError, match=r"set Mix\.pairing to 'permutation'"):
        a_task(semi("fixmatch").replace(mix=Mix(choices=BOTH)))
    task, (views, labels) = a_task(semi("fixmatch")), first_batch(semi("fixmatch"))
    with pytest.raises(ValueError, match="times as many"):
        task.prepare(Views(views.labelled, tuple(view[:3] for view in views.unlabelled)), labels, STREAMS)
    attention = semi("fixmatch").replace(mix=MIXING["mix"], loss=PLAIN.replace(rule=TransMixRule()))
    with pytest.raises(ValueError, match="nothing records attention"):
        a_task(attention.replace(model=a_run().model))
    with pytest.raises(ValueError, match=r"takes the place of Run\.mix"):
        a_task(small_run(task=AutoMix(), model=RESNET))
    for run in (small_run(task=AutoMix(), model=RESNET, mix=Mix()), TUNED.replace(optim=Optim(lr=0.1, ema_decay=0.9))):
        with pytest.raises(ValueError, match=r"leave Optim\.ema_decay, which is 0.9, at 0"):
            a_task(run)
    for mixer in (ManifoldMix(("layer1",)), PuzzleMix()):
        with pytest.raises(ValueError, match=r"given, or mixes inside the network: leave Run\.count_mixed off"):
            mix_as_in_training(a_task(small_run(mix=Mix(choices=((mixer, 1.0),)))), IMAGES, LABELS, stream())
    with pytest.raises(ValueError, match="cannot be split"):
        fit(RUNS["manifoldmix"], 0, tmp_path / "a", Execution(microbatch=4))
    with pytest.raises(ValueError, match="ResNet has no class token"):
        fit(RUNS["transmix"].replace(model=RESNET), 0, tmp_path / "b")
