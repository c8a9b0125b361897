"""Training many tiny networks as one ensemble beside one after another, a step of each."""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import Setting, Spread, compare
from benchmarks.rows import Case, Goal, faster, timed_case
from evaluation.throughput import peak_memory, undisturbed
from experiments.methods import lumix
from experiments.scales import mini
from training.config import Execution, Run
from training.ensemble import Ensemble
from training.loop import Training
from training.process import Process

NAME = "ensemble"
TITLE = "A step of many networks as one ensemble"
PEERS = "the same networks, images and draws, one after another"
MEMBERS, GPU_MEMBERS = 20, 200
ALONE, TOGETHER = "one by one", "lumix"
WHY = (
    "forward and backward pass of the stack take two thirds of the step, bound by the arithmetic of one core; the "
    "other third is each member's own, its mixing and its optimizer"
)


def cases(setting: Setting) -> Iterator[Case]:
    count = GPU_MEMBERS if setting.device == "cuda" else MEMBERS
    for title, role, target in (("ViT", "deit_s", 2.5), ("residual net", "wrn28_8", 4.0)):
        run = lumix(mini.run(role))
        with tempfile.TemporaryDirectory() as folder, undisturbed(torch.device(setting.device)):
            alone = members(run, count, Path(folder, "alone"), setting.device)
            together = Ensemble(members(run, count, Path(folder, "together"), setting.device))
            one, every = steps_alone(alone), step_together(together)
            check_equal(one, every, alone, together)
            timings = compare({ALONE: one, TOGETHER: every}, replace(setting, rounds=min(setting.rounds, 7)))
            device = torch.device(setting.device)
            memory = peak_memory(every, device) / count / peak_memory(steps_alone(alone[:1]), device)
        goals = [
            faster(timings, ALONE, 20.0 if setting.device == "cuda" else target, TOGETHER, why=WHY, quick=1.3),
            Goal("memory of a member's step, of a step alone", Spread.of([memory])),
        ]
        yield timed_case(f"{count} of mini's {title}, batch {run.batch_size}", timings, goals)


def members(run: Run, count: int, folder: Path, device: str) -> list[Training]:
    """So many seeds of a run, at their beginning."""
    execution, process = Execution(device=device), Process.current(device)
    return [Training(run, seed, folder / str(seed), execution, process) for seed in range(count)]


def first_batches(trainings: list[Training]) -> list[tuple[Any, Any]]:
    return [next(iter(training.feed.train(0, 0))) for training in trainings]


def steps_alone(trainings: list[Training]) -> Callable[[], None]:
    """A step of each, always of the first batch."""
    batches = first_batches(trainings)

    def work() -> None:
        for training, (images, labels) in zip(trainings, batches, strict=True):
            training.step(images.clone(), labels)  # which mixers may overwrite

    return work


def step_together(ensemble: Ensemble) -> Callable[[], None]:
    """The same as one ensemble."""
    batches = first_batches(ensemble.members)

    def work() -> None:
        ensemble.update = 0
        ensemble.step({place: (images.clone(), labels) for place, (images, labels) in enumerate(batches)})

    return work


def check_equal(one: Callable[[], None], every: Callable[[], None], alone: list[Training], together: Ensemble) -> None:
    """A step leads to the same weights; by how much float32 rounds otherwise, the tests measure in float64."""
    one()
    every()
    for single, member in zip(alone, together.members, strict=True):
        weights = dict(member.task.reported_model().named_parameters())
        for name, parameter in single.task.reported_model().named_parameters():
            torch.testing.assert_close(weights[name], parameter, rtol=1e-3, atol=1e-4)
