"""Self-Tuning: its contrast and queues against plain loops, constants, schedules, resumption."""

import math
from functools import partial
from typing import Any

import pytest
import timm
import torch
from batches import stream
from test_tasks import BOTH, MIXING, RESNET, TUNED, a_task
from torch import Tensor, nn
from torch.nn import functional as F

import lumix
from lumix import ManifoldMix, TransMixRule
from lumix.mixers.base import NoMix
from lumix.semi import ClassQueues, Views, group_contrast
from lumix.semi import SelfTuning as Learner
from training.config import Data, Loss, Mix, Run
from training.models import build_model
from training.optim import Updater, build_optimizer, build_schedule
from training.parts import SelfTuning
from training.rng import step_generator

CLASSES, PLACES, FEATURES = 4, 3, 5
MIXED: dict[str, Any] = {"mix": Mix(choices=BOTH), "loss": MIXING["loss"]}


def a_run(**changes: Any) -> Run:
    return TUNED.replace(**{"data": Data("digits", 8, labels=40), "batch_size": 8, **changes})


def views_of(step: int, size: int = 8) -> tuple[Views, Tensor]:
    generator = stream(step)
    query, key, unlabelled_query, unlabelled_key = (torch.randn(size, 1, 8, 8, generator=generator) for _ in range(4))
    return Views((query, key), (unlabelled_query, unlabelled_key)), torch.randint(10, (size,), generator=generator)


class Loop:
    """What the engine's loop does, over the batches of `views_of`."""

    def __init__(self, run: Run) -> None:
        self.task = a_task(run)
        self.updater = Updater(build_optimizer(run.optim, self.task.parameter_groups()))
        self.schedule = build_schedule(run.optim, self.updater.optimizer, 2, 5)

    def step(self, step: int, parts: int = 1) -> Any:
        self.task.train()
        self.schedule.step_update(step)
        batch = self.task.prepare(*views_of(step), partial(step_generator, 0, 0, step))
        size = batch.size // parts
        slices = [batch.rows(slice(start, start + size)) for start in range(0, batch.size, size)]
        results = []

        def loss_of(part: Any) -> Tensor:
            results.append(self.task.step(part))
            return results[-1].loss / parts

        self.updater.update(loss_of, *slices)
        self.task.after_update(step)
        return batch, results


def plain_contrast(query: Tensor, key: Tensor, label: int, queue: list[list[Tensor]], temperature: float) -> Tensor:
    """KL of the uniform distribution over positives, for one query, as the paper writes it."""
    positives = [key, *queue[label]]
    negatives = [other for number, keys in enumerate(queue) if number != label for other in keys]
    scores = torch.stack([query @ other for other in [*positives, *negatives]]) / temperature
    target = torch.zeros(len(scores), dtype=scores.dtype)
    target[: len(positives)] = 1 / len(positives)
    return F.kl_div(scores.log_softmax(0), target, reduction="sum")


@pytest.mark.parametrize("temperature", [0.07, 1.0])
@pytest.mark.parametrize("counts", [(0, 0, 0, 0), (3, 3, 3, 3), (3, 0, 1, 2)])
def test_contrast_equals_a_plain_loop(counts: tuple[int, ...], temperature: float) -> None:
    def unit(*shape: int) -> Tensor:
        return F.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)

    generator = stream(3)
    queue, queries, keys = unit(CLASSES, PLACES, FEATURES), unit(6, FEATURES), unit(6, FEATURES)
    labels, filled = torch.tensor([0, 1, 2, 3, 1, 0]), torch.arange(PLACES) < torch.tensor(counts).unsqueeze(1)
    queries.requires_grad_()
    found = group_contrast(queries, keys, labels, queue, filled, temperature)
    lists = [list(queue[number, :count]) for number, count in enumerate(counts)]
    wanted = torch.stack(
        [plain_contrast(q, k, int(c), lists, temperature) for q, k, c in zip(queries, keys, labels, strict=True)]
    )
    torch.testing.assert_close(found, wanted)
    (gradient,) = torch.autograd.grad(found.sum(), queries, retain_graph=True)
    torch.testing.assert_close(gradient, torch.autograd.grad(wanted.sum(), queries)[0])
    assert bool(gradient.isfinite().all())


def test_contrast_is_float32_under_autocast() -> None:
    generator = stream()
    queries, keys = (F.normalize(torch.randn(4, FEATURES, generator=generator), dim=1) for _ in range(2))
    queue = F.normalize(torch.randn(CLASSES, PLACES, FEATURES, generator=generator), dim=2)
    arguments = queries, keys, torch.arange(4), queue, torch.ones(CLASSES, PLACES, dtype=torch.bool)
    plain = group_contrast(*arguments)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(group_contrast(*arguments), plain)


def test_queues_hold_the_last_keys_of_each_class_first_in_first_out() -> None:
    queues, plain = ClassQueues(CLASSES, PLACES, FEATURES), [[] for _ in range(CLASSES)]  # type: ignore[var-annotated]
    generator = stream(1)
    states = set()
    for size in (1, 2, 5, 16, 3, 40):  # more keys of a class at once than there are places, too
        keys = torch.randn(size, FEATURES, generator=generator)
        labels = torch.randint(CLASSES - 1, (size,), generator=generator)  # the last class stays empty
        queues.enqueue(keys, labels)
        for key, label in zip(keys, labels, strict=True):
            plain[label].append(key)
        for number, every in enumerate(plain):
            kept = {place % PLACES: every[place] for place in range(len(every))}
            assert queues.filled[number].tolist() == [place in kept for place in range(PLACES)]
            assert all(torch.equal(queues.keys[number, place], key) for place, key in kept.items())
            states.add(len(kept))
    assert states == {0, 1, 2, 3}
    assert queues.taken.tolist() == [len(every) for every in plain]


def test_a_pseudo_label_is_what_the_network_says_and_keys_come_after_the_update() -> None:
    loop = Loop(a_run())
    learner = loop.task.learner
    views, labels = views_of(0)
    with torch.no_grad():
        said = learner.network.train()(views.unlabelled[0]).argmax(1)
    batch, _ = loop.step(0)
    assert torch.equal(batch.pseudo_labels, said)
    assert torch.equal(batch.labels, labels)
    keys, both = torch.cat([batch.keys, batch.unlabelled_keys]), torch.cat([labels, said])
    fresh = ClassQueues(10, PLACES, 6)
    fresh.enqueue(keys, both)
    assert torch.equal(learner.queues.keys, fresh.keys)
    assert torch.equal(learner.queues.taken, torch.bincount(both, minlength=10))
    torch.testing.assert_close(keys.norm(dim=1), torch.ones(16))


@pytest.mark.parametrize("changes", [{}, MIXED])
def test_only_the_query_network_and_projector_have_gradients(changes: dict[str, Any]) -> None:
    task = a_task(a_run(**changes)).train()
    batch = task.prepare(*views_of(0), partial(step_generator, 0, 0, 0))
    assert not any(tensor.requires_grad for tensor in (batch.keys, batch.unlabelled_keys, batch.pseudo_labels))
    task.learner.after_update(batch, 0.5)  # a queue that is empty has no negatives, hence no gradient
    task.step(batch).loss.backward()
    for name, parameter in task.learner.named_parameters():
        trains = name.startswith(("network.", "projector.", "mixed_head."))
        assert parameter.requires_grad == trains
        assert (parameter.grad is not None) == trains, name
    assert bool(task.learner.projector.weight.grad.abs().sum() > 0)


def test_the_slow_copy_follows_after_every_update() -> None:
    loop = Loop(a_run(task=SelfTuning(features=6, momentum=0.9)))
    learner = loop.task.learner
    pairs = (learner.slow_network, learner.network), (learner.slow_projector, learner.projector)
    wanted = [[p.clone() for p in slow.parameters()] for slow, _ in pairs]
    for step in range(3):
        loop.step(step)
        wanted = [
            [0.9 * old + 0.1 * new for old, new in zip(olds, fast.parameters(), strict=True)]
            for olds, (_, fast) in zip(wanted, pairs, strict=True)
        ]
    for olds, (slow, _) in zip(wanted, pairs, strict=True):
        torch.testing.assert_close(list(slow.parameters()), [nn.Parameter(o, requires_grad=False) for o in olds])


def test_the_loss_is_the_sum_of_its_terms() -> None:
    task = a_task(a_run(**MIXED)).train()
    batch = task.prepare(*views_of(0), partial(step_generator, 0, 0, 0))
    task.learner.after_update(batch, 1.0)
    result = task.step(batch)
    assert list(result.parts) == ["cross_entropy", "contrast", "contrast_unlabelled", "mixed", "mixed_unlabelled"]
    torch.testing.assert_close(result.loss, torch.stack(list(result.parts.values())).sum(0).mean())
    logits = task.learner.network(batch.images)
    torch.testing.assert_close(result.parts["cross_entropy"], F.cross_entropy(logits, batch.labels, reduction="none"))
    mixed = batch.mixed_unlabelled
    wanted, _ = task.learner.loss.per_sample(
        task.learner.network(mixed.batch.images), mixed.batch, mixed.batch.own_weight
    )
    torch.testing.assert_close(result.parts["mixed_unlabelled"], wanted)
    assert set(result.statistics()) >= {"loss", "lam_0", "lam", *result.parts}


def test_the_weight_of_mixed_unlabelled_images_rises_by_half_a_cosine() -> None:
    task = a_task(a_run(**MIXED)).train()
    batch = task.prepare(*views_of(0), partial(step_generator, 0, 0, 0))

    def part(progress: float) -> Tensor:
        task.learner.progress.fill_(progress)
        return task.step(batch).parts["mixed_unlabelled"]

    whole = part(1.0)
    assert bool((whole > 0).all())
    assert torch.equal(part(0.0), torch.zeros(8))
    for progress in (0.25, 0.5):
        torch.testing.assert_close(part(progress), whole * (1 - math.cos(math.pi * progress)) / 2)
    for step in range(10):
        task.after_update(step)
    assert float(task.learner.progress) == 1


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
def test_labelled_images_are_mixed_with_the_unlabelled_ones_of_their_row(mode: str) -> None:
    """Images of constants, so that a mixed one tells its two sources and their shares."""
    pair_mixer = lumix.Mixup(1.0, mode=mode, pairing="flip", inplace=True)
    learner = Learner(build_model(a_run().model, 10, 1, 8, seed=0), NoMix(), pair_mixer, features=6)
    labelled, unlabelled = (torch.arange(8.0) + shift for shift in (1, 101))
    first, second = (x.view(8, 1, 1, 1).expand(8, 1, 8, 8).clone() for x in (labelled, unlabelled))
    views, orders = Views((first, first), (second, second)), set()
    for seed in range(8):
        batch = learner.prepare(views, torch.arange(8), stream(seed))
        assert batch.mixed_unlabelled is not None
        mixed = batch.mixed_unlabelled.batch
        labelled_is_own = mixed.partner >= 8  # the second half of those that were mixed are the unlabelled ones
        share = torch.where(labelled_is_own, mixed.own_weight, 1 - mixed.own_weight)
        torch.testing.assert_close(mixed.images[:, 0, 0, 0], share * labelled + (1 - share) * unlabelled)
        own, other = mixed.labels, mixed.partner_labels
        assert torch.equal(torch.where(labelled_is_own, own, other), torch.arange(8))
        assert torch.equal(torch.where(labelled_is_own, other, own), batch.pseudo_labels)
        assert mode == "elem" or bool((share >= 0.5).all())
        assert torch.equal(views.labelled[0][:, 0, 0, 0], labelled)
        orders |= set(labelled_is_own.tolist())
    assert orders == {True, False}


def test_microbatches_give_the_gradients_of_the_whole() -> None:
    run = a_run(**MIXED).replace(model=RESNET.replace(norm="group"))
    whole, parts = Loop(run), Loop(run)
    for step in range(3):
        whole.step(step)
        parts.step(step, parts=4)
    found, wanted = (loop.task.checkpoint()["state_dict"] for loop in (parts, whole))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_network_of_another_precision_is_learnt_with(dtype: torch.dtype) -> None:
    learner, (views, labels) = Learner(build_model(a_run().model, 10, 1, 8, seed=0).to(dtype)), views_of(0)
    batch = learner.prepare(views.each(lambda view: view.to(dtype)), labels)
    learner(batch).backward()
    learner.after_update(batch, 0.5)
    assert learner(batch).loss.isfinite()


def test_what_would_be_ignored_is_refused() -> None:
    with pytest.raises(ValueError, match="has no classifier"):
        Learner(timm.create_model("resnet10t", num_classes=0))
    with pytest.raises(ValueError, match="records no attention for"):
        a_task(a_run(loss=Loss(rule=TransMixRule())))
    views, labels = views_of(0)
    fewer = Views(views.labelled, tuple(view[:6] for view in views.unlabelled))
    with pytest.raises(ValueError, match="take as many unlabelled images as labelled ones"):
        a_task(a_run()).prepare(fewer, labels, partial(step_generator, 0, 0, 0))
    with pytest.raises(ValueError, match="queries and keys, not 2 and 1"):
        a_task(a_run()).prepare(Views(views.labelled, fewer.unlabelled[:1]), labels, partial(step_generator, 0, 0, 0))
    with pytest.raises(ValueError, match=r"give Data\.labels, the number of labelled ones"):
        a_run(data=Data("digits", 8))
    for outside in (-100, 10):
        with pytest.raises(ValueError, match=rf"labels must be in 0 \.\. 9, not .*{outside}.* unlabelled views"):
            a_task(a_run()).prepare(views, torch.full_like(labels, outside), partial(step_generator, 0, 0, 0))
    hidden = a_task(a_run(mix=Mix(choices=((ManifoldMix(layers=("layer1",)), 1.0),))))
    with pytest.raises(ValueError, match="a batch that is mixed inside the network cannot be split"):
        hidden.prepare(views, labels, partial(step_generator, 0, 0, 0))
