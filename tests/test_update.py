"""One update of the weights: what every training loop here shares, and the statistics that it leaves."""

import copy
from functools import partial

import pytest
import torch
from engine import small_run
from torch import Tensor, nn

from training.build import build_task
from training.config import Optim
from training.models import build_model
from training.optim import Updater, build_optimizer, build_updater
from training.process import Process
from training.rng import step_generator
from training.state import Statistics
from training.tasks.mixed import MixTask

CPU = torch.device("cpu")
IMAGES = torch.randn(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(20) % 10


def layer() -> nn.Linear:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Linear(3, 2)


def squared(network: nn.Module, rows: Tensor) -> Tensor:
    return network(rows).square().sum()


def rows(count: int = 6) -> Tensor:
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(1))


def task_of(run_changes: dict[str, object] | None = None) -> MixTask:
    run = small_run(**(run_changes or {}))
    network = build_model(run.model, 10, 1, 8, seed=0)
    return build_task(run, network, (0.3,), (0.4,), CPU)


# ------------------------------------------------------------------------------------------------- updates


def test_an_update_is_backward_and_step() -> None:
    network, other = layer(), layer()
    squared(other, rows()).backward()
    torch.optim.SGD(other.parameters(), lr=0.1).step()
    Updater(torch.optim.SGD(network.parameters(), lr=0.1)).update(partial(squared, network), rows())
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), other.parameters(), strict=True))
    assert all(parameter.grad is None for parameter in network.parameters())


def test_parts_add_up_and_only_the_last_synchronises() -> None:
    network, other, entered = layer(), layer(), []

    class NoSync:
        def __enter__(self) -> None:
            entered.append(network.weight.grad is not None)

        def __exit__(self, *error: object) -> None: ...

    updater = Updater(torch.optim.SGD(network.parameters(), lr=0.1), no_sync=NoSync)
    updater.update(partial(squared, network), *rows().split(2))
    Updater(torch.optim.SGD(other.parameters(), lr=0.1)).update(partial(squared, other), rows())
    torch.testing.assert_close(network.weight, other.weight)
    assert entered == [False, True]


def test_the_gradient_is_clipped_as_one() -> None:
    network = layer()
    before = copy.deepcopy(network)
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    Updater(optimizer, clip_grad=0.01, clip_parameters=network.parameters).update(partial(squared, network), rows())
    moved = [a - b for a, b in zip(network.parameters(), before.parameters(), strict=True)]
    assert torch.cat([move.flatten() for move in moved]).norm().item() == pytest.approx(0.01, rel=1e-3)


def test_losses_are_computed_in_the_precision_asked_for() -> None:
    network, seen = layer(), []

    def loss_of(part: Tensor) -> Tensor:
        seen.append(network(part).dtype)
        return squared(network, part).float()

    for precision in ("float32", "bfloat16"):
        Updater(torch.optim.SGD(network.parameters(), lr=0.1), precision=precision).update(loss_of, rows())
    assert seen == [torch.float32, torch.bfloat16]
    assert network.weight.dtype == torch.float32


# ------------------------------------------------------------------------------------------------- steps of a task


@pytest.mark.parametrize("size", [20, 10, 7])
def test_the_number_of_microbatches_never_changes_the_label_weights(size: int) -> None:
    task = task_of().eval()  # without stochastic depth, which draws anew for each part
    batch = task.prepare(IMAGES.clone(), LABELS, partial(step_generator, 0, 0, 3))
    whole, parts = task.step(batch), [task.step(batch.rows(slice(i, i + size))) for i in range(0, 20, size)]
    for name in ("lam", "loss"):
        together = torch.cat([part.record[name] for part in parts])
        torch.testing.assert_close(together, whole.record[name])
    shares = [len(part.record["loss"]) / 20 for part in parts]
    torch.testing.assert_close(sum(s * p.loss for s, p in zip(shares, parts, strict=True)), whole.loss)
    assert (whole.record["lam"] != whole.record["lam_0"]).any()


def test_a_step_is_random_only_through_its_streams() -> None:
    task, asked = task_of().eval(), []

    def streams(name: str) -> torch.Generator:
        asked.append(name)
        return step_generator(0, 0, 3, name)

    first, second = (task.step(task.prepare(IMAGES.clone(), LABELS, streams)) for _ in range(2))
    assert torch.equal(first.loss, second.loss)
    assert asked == ["mix", "rule"] * 2


def test_after_an_update_the_average_follows_and_is_what_is_reported() -> None:
    optim = small_run().optim.replace(ema_reported=True)
    task = task_of({"optim": optim})
    updater = build_updater(small_run(optim=optim), task)
    raw, average = task.trainable_module, task.reported_model()
    before = [parameter.clone() for parameter in average.parameters()]
    updater.update(lambda part: task.step(part).loss, task.prepare(IMAGES, LABELS, partial(step_generator, 0, 0, 0)))
    assert all(torch.equal(a, b) for a, b in zip(before, average.parameters(), strict=True))
    task.after_update(2)  # after updates 0 and 1 the average is set to the weights
    for old, now, trained in zip(before, average.parameters(), raw.parameters(), strict=True):
        torch.testing.assert_close(now, 0.9 * old + 0.1 * trained)


def test_a_checkpoint_restores_networks_and_average() -> None:
    task, other = task_of(), task_of()
    with torch.no_grad():
        for parameter in task.parameters():
            parameter.add_(1)
    other.restore(copy.deepcopy(task.checkpoint()))
    assert all(torch.equal(a, b) for a, b in zip(task.parameters(), other.parameters(), strict=True))


# ------------------------------------------------------------------------------------------------- statistics


def test_statistics_are_means_of_what_counts() -> None:
    found = Statistics(Process(0, 1, CPU))
    assert found.means() == {}
    nan = float("nan")
    found.add({"loss": torch.tensor([1.0, 2.0]), "cut": torch.tensor([True, False]), "none": torch.tensor([nan, nan])})
    found.add({"loss": torch.tensor([6.0]), "cut": torch.tensor([False]), "none": torch.tensor([nan])})
    assert found.means() == {"loss": 3.0, "cut": pytest.approx(1 / 3), "none": None}
    taken = Statistics(Process(0, 1, CPU))
    taken.load(found.state())
    assert taken.means() == found.means()
    taken.reset(taken.names)
    assert taken.means() == dict.fromkeys(("loss", "cut", "none"))


def test_another_process_carries_no_sums_on() -> None:
    found = Statistics(Process(0, 1, CPU))
    found.add({"loss": torch.tensor([1.0, 2.0])})
    second = Statistics(Process(1, 1, CPU))
    second.load(found.state())
    assert second.names == ["loss"]
    assert not second.sums.any()


# ------------------------------------------------------------------------------------------------- optimizers


def stepped(optimizer: torch.optim.Optimizer, network: nn.Module, steps: int) -> nn.Module:
    for _ in range(steps):
        Updater(optimizer).update(partial(squared, network), rows())
    return network


@pytest.mark.parametrize(("name", "nesterov"), [("momentum", False), ("sgd", True)])
def test_momentum_is_plain_and_sgd_is_nesterovs(name: str, nesterov: bool) -> None:
    network, other = layer(), layer()
    optim = Optim(lr=0.01, name=name, weight_decay=1e-2)
    ours = build_optimizer(optim, [{"params": list(network.parameters())}])
    torchs = torch.optim.SGD(other.parameters(), lr=0.01, weight_decay=1e-2, momentum=0.9, nesterov=nesterov)
    stepped(ours, network, 3)
    stepped(torchs, other, 3)
    torch.testing.assert_close(network.state_dict(), other.state_dict())


def test_lamb_moves_each_matrix_in_proportion_to_its_size() -> None:
    network, before = layer(), layer()
    groups = [{"params": [network.weight]}]
    stepped(build_optimizer(Optim(lr=0.01, name="lamb", weight_decay=0.02), groups), network, 1)
    moved = (network.weight - before.weight).norm() / before.weight.norm()
    assert moved.item() == pytest.approx(0.01, rel=1e-3)
    assert torch.equal(network.bias, before.bias)
