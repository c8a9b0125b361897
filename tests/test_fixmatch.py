"""FixMatch, Pseudo-Label and MixMatch as tasks: losses against plain references, constants, resuming, two processes."""

import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from engine import check_resumed_equals_whole
from test_distributed import two_processes
from test_feeds import PLAIN, STRONG, a_feed, a_run
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.scale import get_scale
from lumix import CrossEntropy, CutMix, Decoupled, Mixup, TransMixRule
from lumix.registry import get_part, name_of
from lumix.semi import Views
from training import run_directory
from training.build import build_task
from training.config import Data, Execution, Loss, Mix, Model, Optim, Run
from training.loop import Training, fit
from training.models import build_model
from training.optim import build_schedule
from training.process import Process
from training.rng import step_generator

RESNET = Model("resnet18", "resnet18", {"channels": [4, 8, 8, 8], "layers": [1, 1, 1, 1], "cifar_stem": True})
MIXING: dict[str, Any] = {
    "mix": Mix(choices=((Mixup(), 0.5), (CutMix(), 0.5)), pairing="permutation"),
    "loss": Loss(terms=(CrossEntropy(), Decoupled(eta=0.5))),
}
WEAK = {"crop_padding": 1}
STREAMS = partial(step_generator, 0, 0, 0)


def a_task(run: Run, updates: int = 10) -> Any:
    network = build_model(run.model, 10, 1, 8, seed=0)
    return build_task(run, network, (0.3,), (0.4,), torch.device("cpu"), seed=0, updates=updates)


def first_batch(run: Run) -> tuple[Views, Tensor]:
    return next(iter(a_feed(run).train(0, 0)))


def gradients(task: Any) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in task.trainable_module.named_parameters()}


def semi(task: str, **arguments: Any) -> Run:
    return a_run(get_part(task).cls(**arguments), data=WEAK | (STRONG if task == "fixmatch" else {}), model=RESNET)


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


# ------------------------------------------------------------------------------------------------- FixMatch


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


def test_gradient_reaches_strong_views_that_are_trusted_and_no_others() -> None:
    run = semi("fixmatch", ratio=2, threshold=0.6)
    task, (views, labels) = plain_task(run), first_batch(run)
    weak, strong = (view.clone().requires_grad_() for view in views.unlabelled)
    task.step(task.prepare(Views(views.labelled, (weak, strong)), labels, STREAMS)).loss.backward()
    assert weak.grad is None
    assert strong.grad is not None
    with torch.no_grad():
        trusted = task.trainable_module(weak).softmax(1).amax(1) >= 0.6
    assert 0 < int(trusted.sum()) < len(trusted)
    assert torch.equal(strong.grad.flatten(1).abs().sum(1) > 0, trusted)


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


# ------------------------------------------------------------------------------------------------- others


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


@pytest.mark.parametrize(
    "run", [semi("mixmatch"), semi("fixmatch"), semi("pseudo_label")], ids=lambda r: name_of(r.task)
)
def test_what_would_be_ignored_is_refused(run: Run) -> None:
    with pytest.raises(ValueError, match="has losses of its own here"):
        a_task(run.replace(loss=Loss()))
    if name_of(run.task) == "mixmatch":
        with pytest.raises(ValueError, match=r"leave out Run\.mix"):
            a_task(run.replace(**MIXING))
    else:
        flipped = run.replace(**MIXING).replace(mix=MIXING["mix"].replace(pairing="flip"))
        with pytest.raises(ValueError, match=r"set Mix\.pairing to 'permutation'"):
            a_task(flipped)
        task, (views, labels) = a_task(run), first_batch(run)
        fewer = Views(views.labelled, tuple(view[:3] for view in views.unlabelled))
        with pytest.raises(ValueError, match="times as many"):
            task.prepare(fewer, labels, STREAMS)


def test_a_label_rule_that_reads_attention_is_refused() -> None:
    run = semi("fixmatch").replace(mix=MIXING["mix"], loss=PLAIN.replace(rule=TransMixRule()))
    vit = a_run().model
    with pytest.raises(ValueError, match="nothing records attention"):
        a_task(run.replace(model=vit))


# ------------------------------------------------------------------------------------------------- in the engine


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


@pytest.mark.parametrize(
    "run",
    [
        semi("fixmatch", ratio=2, threshold=0.2).replace(**MIXING),
        semi("pseudo_label", threshold=0.2, ramp=1.0),
        semi("mixmatch", ramp=1.0),
    ],
    ids=lambda run: name_of(run.task),
)
def test_a_resumed_run_equals_a_whole_one(run: Run, tmp_path: Path) -> None:
    result = check_resumed_equals_whole(run, tmp_path)
    lines = run_directory.read_metrics(tmp_path / "whole")
    assert len(lines) == 3
    if name_of(run.task) == "fixmatch":
        assert 0 < lines[-1]["trusted"] < 1
        assert 0 < result["lambda"]["lam_0"] < 1
        assert "mixed" in lines[-1]


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


def test_two_processes_train_as_one_task(tmp_path: Path) -> None:
    changes = {
        name: getattr(semi("fixmatch", ratio=2, threshold=0.2).replace(**MIXING), name)
        for name in ("data", "task", "mix", "loss", "model", "epochs", "epoch_steps", "batch_size", "optim")
    }
    results = two_processes(tmp_path, tmp_path / "whole", **changes)
    assert results[0] == results[1]
    assert (results[0]["steps"], results[0]["n_samples"]) == (12, 797)
    two_processes(tmp_path, tmp_path / "stopped", stop_at=9, **changes)
    resumed = two_processes(tmp_path, tmp_path / "stopped", **changes)
    assert resumed[0]["checksum"] == results[0]["checksum"]


def test_fixmatch_learns_more_than_its_labels_teach(tmp_path: Path) -> None:
    mini = get_scale("mini")
    run = mini.base("semi_cifar10", "wrn28_2")
    alone = mini.setting("semi_cifar10").learning(run, "mix")
    found = [fit(each, 1, tmp_path / each.key)["top1"]["last"] for each in (run, alone)]
    assert found[0] > found[1] + 2


def test_the_schedule_is_seven_sixteenths_of_a_cosine() -> None:
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.03)
    schedule = build_schedule(Optim(lr=0.03, min_lr=0.0, schedule="cosine_7_16"), optimizer, 4, 8)
    for step in (0, 1, 16, 31):
        schedule.step_update(step)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.03 * math.cos(7 * math.pi * step / (16 * 32)))


@pytest.mark.parametrize(
    ("name", "setting"), [("paper", "semi_cifar10"), ("paper", "semi_cifar100"), ("lab", "semi_cifar100")]
)
def test_published_recipes_take_a_step(name: str, setting: str) -> None:
    """With two labelled images in a batch; networks, views and optimizer are those of the recipe."""
    scale = get_scale(name)
    role = "wrn28_2" if setting == "semi_cifar10" else "wrn28_8"
    run = scale.base(setting, role).replace(batch_size=2)
    shown = run.replace(data=Data("shapes", 16, labels=10, strong=run.data.strong, cutout=run.data.cutout))
    (views, labels), *_ = a_feed(shown.replace(epoch_steps=1)).train(0, 0)
    assert len(views.unlabelled[0]) == 14
    network = build_model(run.model, 10, 3, 32, seed=0)
    task: Any = build_task(run, network, (0.5,) * 3, (0.5,) * 3, torch.device("cpu"), updates=run.epochs * 1024)
    task.train()
    loss = task.step(task.prepare(views, labels, STREAMS)).loss
    loss.backward()
    assert bool(loss.isfinite())
    assert all(parameter.grad is not None for parameter in task.trainable_module.parameters())
    assert (run.optim.name, run.epochs * run.epoch_steps) == ("sgd", 2**20 if name == "paper" else 2**15)
