"""Whole training steps of AutoMix and SAMix on ResNet-18 at 224 pixels, as a multiple of CutMix's."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import count

import torch

from benchmarks.measure import Setting, Work, compare
from benchmarks.rows import Case, timed_case, within
from benchmarks.table6 import CARD, CPU_BATCH, GPU_BATCH, check_trains
from evaluation.throughput import training_step, undisturbed
from experiments.decoupled import LEARNING, TITLES, alpha_of, mixed
from experiments.scale import get_scale

NAME = "automix"
TITLE = "Training steps of mixers that learn"
PEERS = "CutMix, in the same process; the published cost is about 3 plain steps"
PASSES = (
    "two passes of the network forward and backward, one of its slow copy forward and back to the pixels, and three "
    "quarters of another forward are (6 + 2 + 0.75) / 3 = 2.92 plain steps"
)
SETTING, ROLE = "pytorch", "resnet18"


def cases(setting: Setting) -> Iterator[Case]:
    device, scale = torch.device(setting.device), get_scale("paper")
    batch = GPU_BATCH if setting.device == "cuda" else CPU_BATCH
    base = scale.base(SETTING, ROLE)
    bases = {"cutmix": base} | {name: scale.setting(SETTING).learning(base, name) for name in LEARNING}
    works: dict[str, Work] = {}
    with undisturbed(device):
        for name, run in bases.items():
            run = mixed(run, name, alpha_of(name, SETTING, ROLE, own=False))
            step, task = training_step(run, CARD, batch, "float32", device)
            numbers = count()
            works[TITLES[name]] = lambda step=step, numbers=numbers: step(next(numbers))  # type: ignore[misc]
            check_trains(works[TITLES[name]], task)
        timings = compare(works, replace(setting, rounds=min(setting.rounds, 7)))
    goals = [within(timings, TITLES["cutmix"], 2.6, TITLES[name], why=PASSES) for name in LEARNING]
    yield timed_case(f"ResNet-18, 224 px, batch {batch}, float32", timings, goals)
