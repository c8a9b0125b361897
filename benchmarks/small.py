"""Scale small's training step beside the plainest loop that trains the same network with CutMix."""

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.measure import Setting, Work, compare
from benchmarks.rows import Case, Goal, Skipped, timed_case
from benchmarks.table6 import check_trains
from evaluation.throughput import undisturbed
from experiments.registry import get_table
from experiments.scale import get_scale
from training.config import Execution, Run
from training.loop import Training
from training.process import Process

NAME = "small"
TITLE = "A training step of scale small"
PEERS = "the plainest loop: CutMix by hand, autocast, cross entropy, backward pass, torch's SGD; augmentation as here"
PLAIN, CUTMIX, LUMIX, PASSES = "plain loop", "lumix, CutMix", "lumix, LUMix on CutMix", "forward and backward pass"
FLOAT32 = "lumix, CutMix, float32"
ROWS = {CUTMIX: "cutmix", LUMIX: "lumix"}  # of dm_with_lumix


def cases(setting: Setting) -> Iterator[Case]:
    if setting.device != "cpu":
        raise Skipped("scale small is one for CPUs")
    cells = get_table("dm_with_lumix", get_scale("small")).cells
    with tempfile.TemporaryDirectory() as folder, undisturbed(torch.device("cpu")):
        try:
            ours = {name: training(cells[cell, "top1"], Path(folder, cell)) for name, cell in ROWS.items()}
            plain = training(cells["cutmix", "top1"], Path(folder, "plain"))
        except ValueError as missing:
            raise Skipped(str(missing)) from None
        rivals: dict[str, Work] = {name: step_of(one) for name, one in ours.items()}
        float32 = training(cells["cutmix", "top1"].replace(precision="float32"), Path(folder, "float32"))
        rivals |= {PLAIN: plain_step(plain), PASSES: passes(plain), FLOAT32: step_of(float32)}
        check_trains(rivals[CUTMIX], ours[CUTMIX].task.reported_model())
        check_trains(rivals[PLAIN], plain.task.reported_model())
        timings = compare(rivals, replace(setting, rounds=min(setting.rounds, 9), seconds=0.5))
    goals = [
        Goal(f"speed of {CUTMIX} as a share of the {PLAIN}'s", timings.ratio(PLAIN, CUTMIX), 0.97, unit=""),
        Goal(f"speed of {LUMIX} as a share of the {PLAIN}'s", timings.ratio(PLAIN, LUMIX), unit=""),
        Goal("speed-up by bfloat16", timings.ratio(FLOAT32, CUTMIX)),
        Goal(f"share of {PASSES} in the step of {CUTMIX}", timings.ratio(PASSES, CUTMIX), 0.85, unit=""),
    ]
    yield timed_case("ResNet of 1.2 M parameters, 100 photographs at 16 px, bfloat16", timings, goals)


def training(run: Run, folder: Path) -> Training:
    return Training(run, 0, folder, Execution(), Process.current("cpu"))


def batches(one: Training) -> Iterator[tuple[Any, Tensor]]:
    epoch = 0
    while True:
        yield from one.feed.train(epoch, 0)
        epoch += 1


def step_of(one: Training) -> Work:
    """An update with all that the loop does for it, images included."""
    found = batches(one)

    def work() -> None:
        one.step(*next(found))
        one.state.update += 1

    return work


def plain_step(one: Training) -> Work:
    """The same by hand, with the network and the images of a training."""
    found, network = batches(one), one.task.reported_model()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)

    def work() -> None:
        images, labels = next(found)
        lam, height, width = float(torch.rand(())), *images.shape[2:]  # Beta(1, 1)
        side = (1 - lam) ** 0.5
        y, x = int(torch.randint(height, ())), int(torch.randint(width, ()))
        top, bottom = max(0, int(y - side * height / 2)), min(height, int(y + side * height / 2))
        left, right = max(0, int(x - side * width / 2)), min(width, int(x + side * width / 2))
        partner = torch.randperm(len(images))
        images[:, :, top:bottom, left:right] = images[partner, :, top:bottom, left:right]
        lam = 1 - (bottom - top) * (right - left) / (height * width)
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(images.to(memory_format=torch.channels_last))
        loss = lam * F.cross_entropy(logits, labels) + (1 - lam) * F.cross_entropy(logits, labels[partner])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return work


def passes(one: Training) -> Work:
    """Forward and backward pass of one batch, and nothing else."""
    images, labels = next(batches(one))
    images, network = images.to(memory_format=torch.channels_last), one.task.reported_model()

    def work() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(images)
        F.cross_entropy(logits, labels).backward()
        network.zero_grad()

    return work
