"""The throughput protocol: whole training steps, honest memory, equal draws, and nothing of the process disturbed."""

import pytest
import torch
from torch import nn

from evaluation import throughput
from evaluation.evaluation import PROTOCOLS
from experiments import methods
from experiments.scale import get_scale
from training.run_directory import write_json

CPU = torch.device("cpu")
CARD = {"in_chans": 1, "num_classes": 10, "image_size": 8, "mean": (0.3,), "std": (0.38,)}
BASE = get_scale("mini").base("deit", "deit_s")
COUNTS = {"batch": 10, "precision": "float32", "warmup": 1, "rounds": 3, "steps": 1}


@pytest.mark.parametrize("method", [methods.lumix, methods.puzzle_mix, methods.attentive_cutmix, methods.transmix])
def test_every_method_is_measured_beside_its_baseline_and_the_process_stays_as_it_was(method, tmp_path):
    write_json(tmp_path / "config.json", {"key": BASE.key, "seed": 0, "run": BASE.to_dict()})
    arguments = {"baseline": {"key": BASE.key, "directory": tmp_path}, "every_batch": True, **COUNTS}
    model = nn.Linear(3, 4, bias=False)
    state, switches = torch.get_rng_state(), (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32)
    found = throughput.drive(model, CARD | {"run": method(BASE).to_dict()}, arguments, CPU)
    assert torch.equal(torch.get_rng_state(), state)
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32) == switches
    values = found.values
    assert found.n_samples == 2 * 10 * 3
    assert values["speed_low"] <= values["speed"] <= values["speed_high"]
    assert all(values[name] > 0 for name in values)
    assert values["parameters"] == 0.012
    assert set(values) == {*PROTOCOLS["throughput"].measured, "parameters"}
    assert values["memory"] == pytest.approx(100 * values["peak_bytes"] / values["baseline_peak_bytes"])


def test_on_every_batch_the_last_of_the_mixing_choices_is_left():
    assert throughput.on_every_batch(BASE).mix == BASE.mix.replace(choices=((methods.CUTMIX, 1.0),))
    only = methods.without_cutmix(BASE)
    assert throughput.on_every_batch(only) == only
    assert throughput.on_every_batch(methods.puzzle_mix(BASE)).mix.names == ("puzzlemix",)


def test_a_step_trains_and_steps_of_one_number_draw_alike():
    """What is mixed, and so how long a step takes, is the same for both contenders and in every repetition."""
    weights = []
    for number in (3, 3, 4):
        step, task = throughput.training_step(methods.lumix(BASE), CARD, 10, "float32", CPU)
        before = [parameter.detach().clone() for parameter in task.parameters()]
        step(number)
        moved = [not torch.equal(a, b) for a, b in zip(before, task.parameters(), strict=True)]
        assert sum(moved) > len(moved) / 2
        assert all(parameter.grad is None for parameter in task.parameters())
        weights.append(torch.cat([parameter.flatten() for parameter in task.parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_peak_memory_counts_what_lives_at_once():
    megabyte = 2**18  # float32 numbers

    def step():
        first = torch.ones(megabyte)
        second = first + 1
        del first
        third = second + 1
        del second, third
        torch.ones(megabyte)

    assert throughput.peak_memory(step, CPU) == pytest.approx(2 * 2**20, rel=0.01)
