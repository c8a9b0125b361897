"""One update of the weights, the statistics that it leaves, optimizers and schedules."""

import copy
import math
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from training.config import Optim
from training.optim import Updater, build_optimizer, build_schedule, parameter_groups
from training.process import Process
from training.state import Statistics

CPU = torch.device("cpu")


def layer() -> nn.Linear:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Linear(3, 2)


def squared(network: nn.Module, rows: Tensor) -> Tensor:
    return network(rows).square().sum()


def rows(count: int = 6) -> Tensor:
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(1))


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


def test_statistics_are_means_of_what_counts() -> None:
    found = Statistics(Process(0, 1, CPU))
    assert found.means() == {}
    nan = float("nan")
    found.add({"loss": torch.tensor([1.0, 2.0]), "cut": torch.tensor([True, False]), "none": torch.tensor([nan, nan])})
    found.add({"loss": torch.tensor([6.0]), "cut": torch.tensor([False]), "none": torch.tensor([nan])})
    assert found.means() == {"loss": 3.0, "cut": pytest.approx(1 / 3), "none": None}
    taken = Statistics(Process(0, 1, CPU))
    taken.restore(found.to_dict())
    assert taken.means() == found.means()
    taken.reset(taken.names)
    assert taken.means() == dict.fromkeys(("loss", "cut", "none"))


def test_another_process_carries_no_sums_on() -> None:
    found = Statistics(Process(0, 1, CPU))
    found.add({"loss": torch.tensor([1.0, 2.0])})
    second = Statistics(Process(1, 1, CPU))
    second.restore(found.to_dict())
    assert second.names == ["loss"]
    assert not second.sums.any()


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


@pytest.mark.parametrize("decay", [0.0, 0.02])
def test_lamb_over_a_stack_is_timms_on_each_network(decay: float) -> None:
    networks, optim = [layer() for _ in range(3)], Optim(lr=0.01, name="lamb", weight_decay=decay)
    alike = list(zip(*(network.parameters() for network in networks), strict=True))
    stack = [torch.stack([p.detach().flatten() for p in each]) for each in alike]
    together = build_optimizer(optim, [{"params": stack}], stacked=True)
    optimizers = [build_optimizer(optim, [{"params": list(network.parameters())}]) for network in networks]
    for _ in range(4):
        for scale, network, optimizer in zip((0.01, 1.0, 100.0), networks, optimizers, strict=True):
            optimizer.zero_grad()
            (scale * squared(network, rows())).backward()
        for part, each in zip(stack, alike, strict=True):
            part.grad = torch.stack([p.grad.flatten() for p in each])
        for optimizer in (together, *optimizers):
            optimizer.step()
    for part, each in zip(stack, alike, strict=True):
        torch.testing.assert_close(part, torch.stack([p.detach().flatten() for p in each]), rtol=1e-5, atol=1e-7)


def test_decay_is_of_weights_or_of_all() -> None:
    network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    for decayed, free in (("weights", 3), ("all", 0)):
        optim = Optim(lr=0.1, name="momentum", weight_decay=1e-4, decayed=decayed)  # type: ignore[arg-type]
        groups = build_optimizer(optim, parameter_groups(network)).param_groups
        assert sum(len(group["params"]) for group in groups if group["weight_decay"] == 0) == free
        assert sum(len(group["params"]) for group in groups if group["weight_decay"] == 1e-4) == 4 - free


def test_a_floor_of_its_own_leaves_the_warm_up_as_it_is() -> None:
    """All groups rise from the same rate to their peaks; the floor, here above the run's, is where one ends."""
    optimizer = torch.optim.SGD([{"params": layer().parameters(), "lr": peak} for peak in (1e-3, 1e-2)], lr=1.0)
    optimizer.param_groups[1]["min_lr"] = 1e-4
    schedule = build_schedule(Optim(lr=1e-3, warmup_epochs=2, min_lr=1e-5), optimizer, 5, 4)
    for step, rates in {0: (1e-6, 1e-6), 4: (5.005e-4, 5.0005e-3), 8: (1e-3, 1e-2), 19: (1e-5, 1e-4)}.items():
        schedule.step_update(step)
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(rates)


def test_the_schedule_is_seven_sixteenths_of_a_cosine() -> None:
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.03)
    schedule = build_schedule(Optim(lr=0.03, min_lr=0.0, schedule="cosine_7_16"), optimizer, 4, 8)
    for step in (0, 1, 16, 31):
        schedule.step_update(step)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.03 * math.cos(7 * math.pi * step / (16 * 32)))
