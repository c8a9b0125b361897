"""Rows of whole training steps: mixers that learn, an ensemble of tiny networks, and scale small.

Steps at 224 pixels are those of the throughput protocol (`evaluation.throughput`): the method on every batch, synthetic
images. A GPU gets the protocol's batch of 128; the CPU a small one, as a step of 128 takes a minute there.
"""

import tempfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.measure import Line, Setting, Skipped, Work, compare, faster, number, times, within
from evaluation.throughput import peak_memory, training_step, undisturbed
from experiments.decoupled import LEARNING, TITLES, alpha_of, mixed
from experiments.methods import lumix
from experiments.registry import get_table
from experiments.scale import get_scale
from experiments.scales import mini
from training.config import Execution, Run
from training.ensemble import Ensemble
from training.loop import Training
from training.process import Process

CARD = {"in_chans": 3, "num_classes": 1000, "image_size": 224}
CARD |= {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
PASSES = (
    "two passes of the network forward and backward, one of its slow copy forward and back to the pixels, and three "
    "quarters of another forward are (6 + 2 + 0.75) / 3 = 2.92 plain steps"
)
STACKED = (
    "forward and backward pass of the stack take two thirds of the step, bound by the arithmetic of one core; the "
    "other third is each member's own, its mixing and its optimizer"
)


def check_trains(work: Work, task: torch.nn.Module) -> None:
    """A step that changes nothing, or to no number, is no training step."""
    before = [parameter.detach().clone() for parameter in task.parameters() if parameter.requires_grad]
    work()
    after = [parameter for parameter in task.parameters() if parameter.requires_grad]
    moved = sum(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert moved > len(after) / 2, f"a step moved {moved} of {len(after)} parameters"
    assert all(bool(parameter.isfinite().all()) for parameter in after), "a step made a parameter not finite"


def training(run: Run, folder: Path, device: str = "cpu", seed: int = 0) -> Training:
    return Training(run, seed, folder / str(seed), Execution(device=device), Process.current(device))


# ------------------------------------------------------------------------------------------------- AutoMix and SAMix


def automix(setting: Setting) -> Iterator[Line]:
    """ResNet-18 at 224 pixels, as a multiple of CutMix's step; LUMix on CutMix beside them."""
    device, scale = torch.device(setting.device), get_scale("paper")
    batch, kind, role = 128 if setting.device == "cuda" else 4, "pytorch", "resnet18"
    base = scale.base(kind, role)
    runs = {"cutmix": base} | {name: scale.setting(kind).learning(base, name) for name in LEARNING}
    runs = {TITLES[name]: mixed(run, name, alpha_of(name, kind, role, own=False)) for name, run in runs.items()}
    runs["LUMix on CutMix"] = lumix(runs[TITLES["cutmix"]])
    works: dict[str, Work] = {}
    with undisturbed(device):
        for title, run in runs.items():
            step, task = training_step(run, CARD, batch, "float32", device)
            numbers = count()
            works[title] = lambda step=step, numbers=numbers: step(next(numbers))  # type: ignore[misc]
            check_trains(works[title], task)
        timings = compare(works, setting.few(7))
    case = f"ResNet-18, 224 px, batch {batch}, float32"
    yield from times(case, timings)
    for name in LEARNING:
        yield within(case, timings, TITLES["cutmix"], 2.6, TITLES[name], why=PASSES)
    yield within(case, timings, TITLES["cutmix"], who="LUMix on CutMix")


# ------------------------------------------------------------------------------------------------- ensemble


def ensemble(setting: Setting) -> Iterator[Line]:
    members, device = 200 if setting.device == "cuda" else 20, torch.device(setting.device)
    for title, role, target in (("ViT", "deit_s", 2.5), ("residual net", "wrn28_8", 4.0)):
        run = lumix(mini.run(role))
        with tempfile.TemporaryDirectory() as folder, undisturbed(device):
            alone, stacked = (
                [training(run, Path(folder, way), setting.device, seed) for seed in range(members)]
                for way in ("alone", "together")
            )
            together = Ensemble(stacked)
            one, every = steps_alone(alone), step_together(together)
            check_equal(one, every, alone, together)
            timings = compare({"one by one": one, "lumix": every}, setting.few(7))
            memory = peak_memory(every, device) / members / peak_memory(steps_alone(alone[:1]), device)
        case = f"{members} of mini's {title}, batch {run.batch_size}"
        yield from times(case, timings)
        yield faster(case, timings, "one by one", 20 if device.type == "cuda" else target, why=STACKED, quick=1.3)
        yield number(case, "memory of a member's step, of a step alone", [memory])


def steps_alone(trainings: list[Training]) -> Callable[[], None]:
    """A step of each, always of the first batch."""
    batches = [next(iter(training.feed.train(0, 0))) for training in trainings]

    def work() -> None:
        for training, (images, labels) in zip(trainings, batches, strict=True):
            training.step(images.clone(), labels)  # which mixers may overwrite

    return work


def step_together(ensemble: Ensemble) -> Callable[[], None]:
    """The same steps as one ensemble."""
    batches = [next(iter(training.feed.train(0, 0))) for training in ensemble.members]

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


# ------------------------------------------------------------------------------------------------- scale small


def small(setting: Setting) -> Iterator[Line]:
    """A step of scale small beside the plainest loop that trains the same network with CutMix."""
    if setting.device != "cpu":
        raise Skipped("scale small is one for CPUs")
    cells = get_table("lumix_photographs", get_scale("small")).cells
    runs = {
        "lumix, CutMix": cells["cutmix", "top1"],
        "lumix, LUMix on CutMix": cells["lumix", "top1"],
        "lumix, CutMix, float32": cells["cutmix", "top1"].replace(precision="float32"),
        "plain loop": cells["cutmix", "top1"],
    }
    with tempfile.TemporaryDirectory() as folder, undisturbed(torch.device("cpu")):
        try:
            trainings = {name: training(run, Path(folder, name)) for name, run in runs.items()}
        except ValueError as missing:
            raise Skipped(str(missing)) from None
        plain = trainings.pop("plain loop")
        rivals: dict[str, Work] = {name: step_of(one) for name, one in trainings.items()}
        rivals |= {"plain loop": plain_step(plain), "forward and backward pass": passes(plain)}
        check_trains(rivals["lumix, CutMix"], trainings["lumix, CutMix"].task.reported_model())
        check_trains(rivals["plain loop"], plain.task.reported_model())
        timings = compare(rivals, setting.few(9, seconds=0.5))
    case = "ResNet of 1.2 M parameters, 100 photographs at 16 px, bfloat16"
    yield from times(case, timings)
    for name, target in (("lumix, CutMix", 0.97), ("lumix, LUMix on CutMix", float("nan"))):
        share = timings["plain loop"] / timings[name]
        yield number(case, f"speed of {name} as a share of the plain loop's", share, target, unit="")
    yield number(case, "speed-up by bfloat16", timings["lumix, CutMix, float32"] / timings["lumix, CutMix"])
    share = timings["forward and backward pass"] / timings["lumix, CutMix"]
    yield number(case, "share of forward and backward pass in the step of lumix, CutMix", share, 0.85, unit="")


def batches(one: Training) -> Iterator[tuple[Any, Tensor]]:
    for epoch in count():
        yield from one.feed.train(epoch, 0)


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
