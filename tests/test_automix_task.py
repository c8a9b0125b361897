"""AutoMix and SAMix in the engine: resumed runs end in the same weights, with rates of their own."""

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from engine import check_resumed_equals_whole, small_run
from test_distributed import two_processes

from lumix import CrossEntropy, Decoupled, LUMixRule, Mixup
from lumix.batch import Kind
from training.build import build_task
from training.config import Execution, Loss, Mix, Model, Optim, Run
from training.loop import fit
from training.models import build_model
from training.optim import build_optimizer, build_schedule
from training.parts import AutoMix, SAMix

RESNET = Model("resnet50", "resnet18", {"channels": [4, 8, 8, 8], "layers": [1, 1, 1, 1]})
DM_CE = Loss(terms=(CrossEntropy(), Decoupled()))
TASKS: dict[str, dict[str, Any]] = {
    "automix": {"task": AutoMix(share=0.8), "model": RESNET, "loss": DM_CE},
    "samix": {"task": SAMix(stage=0, mask_decays=True), "loss": Loss(rule=LUMixRule())},
}


def a_run(name: str, **changes: Any) -> Run:
    return small_run(epochs=2, mix=Mix(), optim=Optim(lr=5e-3, warmup_epochs=1), **TASKS[name] | changes)


@pytest.mark.parametrize("name", TASKS)
def test_stopped_and_resumed_equals_undisturbed(name: str, tmp_path: Path) -> None:
    run = a_run(name)
    assert name in run.key
    whole = check_resumed_equals_whole(run, tmp_path)
    assert fit(run, 1, tmp_path / "other")["checksum"] != whole["checksum"]


def test_what_is_exported_is_the_network_alone(tmp_path: Path) -> None:
    run = a_run("automix")
    result = fit(run, 0, tmp_path / "r")
    network = build_model(run.model, 10, 1, 8, seed=0)
    network.load_state_dict(safetensors.torch.load_file(tmp_path / "r" / "model.safetensors"))
    assert result["parameters"] == sum(p.numel() for p in network.parameters())


def test_half_precision_and_microbatches_train(tmp_path: Path) -> None:
    fit(a_run("samix", precision="bfloat16"), 0, tmp_path / "r", Execution(microbatch=4))
    weights = safetensors.torch.load_file(tmp_path / "r" / "model.safetensors")
    assert all(bool(value.isfinite().all()) for value in weights.values())


def test_two_processes_agree(tmp_path: Path) -> None:
    changes = {"mix": Mix(), "optim": Optim(lr=5e-3), **TASKS["automix"]}
    first, second = two_processes(tmp_path, tmp_path / "both", epochs=2, **changes)
    assert "error" not in first
    assert first["checksum"] == second["checksum"]


def a_task(run: Run) -> Any:
    network = build_model(run.model, 10, 1, 8, seed=0)
    return build_task(run, network, (0.3,), (0.4,), torch.device("cpu"), seed=0, updates=10)


def test_the_mask_generator_has_learning_rates_of_its_own() -> None:
    spec = AutoMix(block_lr=0.01, block_min_lr=0.002)
    run = a_run("automix", task=spec).replace(optim=Optim(lr=0.1, name="momentum", min_lr=0.0))
    task = a_task(run)
    optimizer = build_optimizer(run.optim, task.parameter_groups())
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert trained == {id(p) for p in task.learner.parameters() if p.requires_grad}
    schedule = build_schedule(run.optim, optimizer, 2, 5)
    block = {id(p) for p in task.learner.block.parameters()}
    for step, (network_rate, block_rate) in {0: (0.1, 0.01), 9: (0.0, 0.002)}.items():
        schedule.step_update(step)
        for group in optimizer.param_groups:
            wanted = block_rate if id(group["params"][0]) in block else network_rate
            assert group["lr"] == pytest.approx(wanted)


def test_initial_weights_depend_on_the_seed_alone() -> None:
    run = a_run("automix")
    torch.manual_seed(1)
    first = a_task(run).learner.state_dict()
    torch.manual_seed(2)
    before = torch.get_rng_state()
    second = a_task(run).learner.state_dict()
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_what_would_be_ignored_is_refused() -> None:
    with pytest.raises(ValueError, match=r"takes the place of Run\.mix"):
        a_task(small_run(task=AutoMix(), model=RESNET))
    with pytest.raises(ValueError, match=r"leave Optim\.ema_decay, which is 0.9, at 0"):
        a_task(small_run(task=AutoMix(), model=RESNET, mix=Mix()))


@pytest.mark.parametrize("changes", [{}, TASKS["automix"]])
def test_mixed_test_images_are_counted_and_change_nothing(changes: dict[str, Any], tmp_path: Path) -> None:
    run = small_run(epochs=2, mix=Mix(choices=((Mixup(), 1.0),)) if not changes else Mix(), optim=Optim(lr=5e-3))
    run = run.replace(**changes)
    plain, counted = fit(run, 0, tmp_path / "plain"), fit(run.replace(count_mixed=True), 0, tmp_path / "counted")
    assert counted["checksum"] == plain["checksum"]
    assert counted["top1"] == plain["top1"]
    assert "top1_mixed" not in plain
    assert 0 <= counted["top2_mixed"]["last"] <= counted["top1_mixed"]["last"] <= 100


def test_test_images_are_mixed_with_the_next_ones_by_weights_of_their_own() -> None:
    task = a_task(a_run("automix"))
    images, labels = torch.rand(40, 1, 8, 8), torch.arange(40) % 10
    before = {name: value.clone() for name, value in task.learner.state_dict().items()}
    batch = task.mix_test(images, labels, torch.Generator().manual_seed(0))
    assert torch.equal(batch.partner, torch.arange(40).roll(-1))
    assert len(batch.own_weight.unique()) == 40
    assert {int(kind) for kind in batch.kind.unique()} == {int(Kind.BLEND), int(Kind.MASK)}
    assert all(torch.equal(value, before[name]) for name, value in task.learner.state_dict().items())
