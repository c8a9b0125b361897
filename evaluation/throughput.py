"""Training throughput (LUMix, Table 6): images per second of whole training steps, beside those of a baseline.

A step is all from mixing to the update, on synthetic uint8 images that lie on the device: no loading, no moving
average, no logging. Both take turns in one process: what disturbs one disturbs the other.
"""

import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import accumulate
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from evaluation.evaluation import Outcome, trained_run
from evaluation.images import Card, Device
from training.build import build_task
from training.config import Run
from training.data.sets import normalise
from training.models import build_model
from training.optim import build_updater
from training.rng import step_generator
from training.tasks.mixed import Task

Step = Callable[[int], None]


def training_step(run: Run, card: Card, batch: int, precision: str, device: torch.device) -> tuple[Step, Task]:
    """A function of a step's number that takes a training step of `run` with `batch` images, and the task behind it."""
    network = build_model(run.model, card["num_classes"], card["in_chans"], card["image_size"], seed=0).to(device)
    mean, std = tuple(card["mean"]), tuple(card["std"])
    run = run.replace(precision=precision, optim=run.optim.replace(ema_decay=0.0, ema_reported=False))
    task = build_task(run, network, mean, std, device, pretrained=False)
    updater = build_updater(run, task)
    task.train()
    generator = step_generator(0, 0, 0, "throughput", device)
    shape = (batch, card["in_chans"], card["image_size"], card["image_size"])
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator, device=device)
    labels = torch.randint(0, card["num_classes"], (batch,), generator=generator, device=device)

    def step(number: int) -> None:
        with updater.autocast():
            mixed = task.prepare(normalise(pixels, mean, std), labels, partial(step_generator, 0, 0, number))
        updater.update(lambda part: task.step(part).loss, mixed)

    return step, task


def on_every_batch(run: Run) -> Run:
    """The run with the last of its mixing choices on every batch, as published speeds imply, not on some of them."""
    return run.replace(mix=run.mix.replace(choices=tuple((spec, 1.0) for spec, _ in run.mix.choices[-1:])))


def take_turns(steps: Mapping[str, Step], rounds: int, per_round: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of `per_round` steps of each contender in each round; who begins changes from round to round."""
    names = list(steps)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    wait = partial(torch.cuda.synchronize, device) if device.type == "cuda" else lambda: None
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            wait()
            start = time.perf_counter()
            for number in range(turn * per_round, (turn + 1) * per_round):
                steps[name](number)
            wait()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def peak_memory(step: Callable[[], Any], device: torch.device) -> int:
    """Largest number of bytes that torch holds during `step` above what it held before."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        return int(torch.cuda.max_memory_allocated(device) - before)
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or the profiler reports each start, and that there is no GPU
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        step()
    assert recorded.profiler is not None
    assert recorded.profiler.kineto_results is not None
    events = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns()))
    return max(held, default=0)


@contextmanager
def undisturbed(device: torch.device) -> Iterator[None]:
    """Gradients on, TF32 off, and the global random state afterwards as it was before."""
    tf32 = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.enable_grad():
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        try:
            yield
        finally:
            torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = tf32


def drive(model: nn.Module, card: Card, arguments: Mapping[str, Any], device: Device) -> Outcome:
    """Speed and memory of a run as a share of a baseline's; its trained weights play no part, only their shapes.

    Arguments: "baseline", the run beside it; "every_batch", whether methods act on every batch; "batch"; "precision" in
    place of the runs'; "warmup" steps of each; "rounds" in turn of "steps" each. Values: "speed", "memory" in percent
    of the baseline's (medians; "speed_low", "speed_high": quartiles), their parts, "parameters" in thousands.
    """
    device, batch = torch.device(device), arguments["batch"]
    steps: dict[str, Step] = {}
    with undisturbed(device):
        for name, found in (("run", card["run"]), ("baseline", trained_run(arguments["baseline"]["directory"]))):
            run = Run.from_dict(found)
            run = on_every_batch(run) if arguments["every_batch"] else run
            steps[name] = training_step(run, card, batch, arguments["precision"], device)[0]
        take_turns(steps, 1, arguments["warmup"], device)
        seconds = take_turns(steps, arguments["rounds"], arguments["steps"], device)
        # Over some steps, as a method may not do the same at each.
        run_peak, base_peak = (
            peak_memory(partial(take_turns, {name: step}, 1, arguments["steps"], device), device)
            for name, step in steps.items()
        )
    shares = [100 * base / own for own, base in zip(seconds["run"], seconds["baseline"], strict=True)]
    low, middle, high = statistics.quantiles(shares, n=4)
    images = batch * arguments["steps"]
    values = {
        "speed": middle,
        "speed_low": low,
        "speed_high": high,
        "memory": 100 * run_peak / base_peak,
        "images_per_second": images / statistics.median(seconds["run"]),
        "baseline_images_per_second": images / statistics.median(seconds["baseline"]),
        "peak_bytes": run_peak,
        "baseline_peak_bytes": base_peak,
        "parameters": sum(parameter.numel() for parameter in model.parameters()) / 1000,
    }
    return Outcome(values, n_samples=2 * images * arguments["rounds"])
