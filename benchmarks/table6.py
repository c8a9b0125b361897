"""Row 6: whole training steps of Table 6's methods on DeiT-S and ResNet-50 at 224 pixels, as a share of CutMix's speed.

The steps are those of the throughput protocol (`evaluation.throughput`): the method on every batch, synthetic
images. A GPU gets the protocol's batch of 128 in float32 and bfloat16; the CPU a small one, as a step of 128 takes a
minute there.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import count

import torch

from benchmarks.measure import Setting, Timings, Work, compare
from benchmarks.rows import Case, Goal, timed_case
from evaluation.throughput import on_every_batch, training_step, undisturbed
from experiments.lumix_table06_rivals.table import BACKBONES, LACKING, METHODS
from experiments.scale import get_scale

NAME = "table6"
TITLE = "Training steps of Table 6's methods"
PEERS = "CutMix, in the same process; the paper's own ratios on a V100: SaliencyMix 0.98, Puzzle-Mix 0.43, LUMix 1.00"
CARD = {
    "in_chans": 3,
    "num_classes": 1000,
    "image_size": 224,
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
}
TARGETS = {"LUMix": 0.99, "SaliencyMix": 0.98, "Puzzle-Mix": 0.55}
GPU_TARGETS = {**TARGETS, "LUMix": 0.995}
CPU_BATCH, GPU_BATCH = 4, 128
SPREAD = "a step lasts a second here, and its CPU time varies by some percent from round to round"


def cases(setting: Setting) -> Iterator[Case]:
    precisions = ("float32", "bfloat16") if setting.device == "cuda" else ("float32",)
    for role, backbone in BACKBONES:
        for precision in precisions:
            yield steps_of(role, backbone, precision, setting)


def steps_of(role: str, backbone: str, precision: str, setting: Setting) -> Case:
    device = torch.device(setting.device)
    batch = GPU_BATCH if setting.device == "cuda" else CPU_BATCH
    base = get_scale("paper").base("deit", role)
    rivals: dict[str, Work] = {}
    with undisturbed(device):
        for id, name, method, _, ours, _ in METHODS:
            if (role, id) in LACKING or (ours and id != "attentivecutmix"):
                continue
            step, task = training_step(on_every_batch(method(base)), CARD, batch, precision, device)
            numbers = count()
            rivals[name] = lambda step=step, numbers=numbers: step(next(numbers))  # type: ignore[misc]
            check_trains(rivals[name], task)
        # A step takes a second on the CPU: fewer rounds do.
        timings = compare(rivals, replace(setting, rounds=min(setting.rounds, 7)))
    title = f"{backbone}, 224 px, batch {batch}, {precision}"
    targets = GPU_TARGETS if setting.device == "cuda" else TARGETS
    goals = [share(timings, name, targets.get(name)) for name in rivals if name != "CutMix"]
    return timed_case(title, timings, goals)


def share(timings: Timings, name: str, target: float | None) -> Goal:
    """Speed of a method as a share of CutMix's."""
    return Goal(f"speed of {name} as a share of CutMix's", timings.ratio("CutMix", name), target, unit="", why=SPREAD)


def check_trains(work: Work, task: torch.nn.Module) -> None:
    """A step that changes nothing, or to no number, is no training step."""
    before = [parameter.detach().clone() for parameter in task.parameters() if parameter.requires_grad]
    work()
    after = [parameter for parameter in task.parameters() if parameter.requires_grad]
    moved = sum(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert moved > len(after) / 2, f"a step moved {moved} of {len(after)} parameters"
    assert all(bool(parameter.isfinite().all()) for parameter in after), "a step made a parameter not finite"
