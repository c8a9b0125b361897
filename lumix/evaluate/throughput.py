"""Training throughput (LUMix, Table 6): images per second of whole training steps, beside those of a baseline.

A step is mixing with all that it needs (saliency, mask, transport, another network), forward, label weights, loss,
backward and update, on synthetic uint8 images that lie on the device: no loading, no moving average, no logging. The
two contenders take turns in one process, so that what disturbs one disturbs the other.
"""

import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from lumix.evaluate.evaluation import Outcome
from lumix.train.config import Run
from lumix.train.data import normalise
from lumix.train.model import build_model
from lumix.train.optim import build_optimizer
from lumix.train.rng import step_generator
from lumix.train.task import MixTask, build_task

Step = Callable[[int], None]


def training_step(
    run: Run, card: Mapping[str, Any], batch: int, precision: str, device: torch.device
) -> tuple[Step, MixTask]:
    """A function of the step's number that takes one training step of `run`, and the task behind it.

    Args:
        card: "in_chans", "num_classes", "image_size", "mean" and "std" of the images, as in model.json.
        batch: images of a step.
        precision: "float32", "bfloat16" or "float16" (without loss scaling, which the weights here do not need).
    """
    network = build_model(run.model, card["num_classes"], card["in_chans"], card["image_size"], seed=0).to(device)
    if run.channels_last:
        network = network.to(memory_format=torch.channels_last)
    mean, std = tuple(card["mean"]), tuple(card["std"])
    task = build_task(run, network, mean, std, device, pretrained=False)
    optimizer = build_optimizer(run.optim, network)
    if run.compile:
        task.compile()
    task.train()
    generator = step_generator(0, 0, 0, "throughput", device)
    shape = (batch, card["in_chans"], card["image_size"], card["image_size"])
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator, device=device)
    labels = torch.randint(0, card["num_classes"], (batch,), generator=generator, device=device)

    def step(number: int) -> None:
        with torch.autocast(device.type, getattr(torch, precision), enabled=precision != "float32"):
            images = normalise(pixels, mean, std)
            if run.channels_last:
                images = images.contiguous(memory_format=torch.channels_last)
            mixed = task.mix(images, labels, generator=step_generator(0, 0, number, "mix"))
            draws = task.criterion.draw(mixed, step_generator(0, 0, number, "rule"))
            loss = task(mixed.images, mixed, draws=draws)["loss"]
        loss.backward()
        if run.optim.clip_grad:
            nn.utils.clip_grad_norm_(task.get_clip_parameters(), run.optim.clip_grad)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step, task


def take_turns(steps: Mapping[str, Step], rounds: int, per_round: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of `per_round` steps of each contender in each round; who begins changes from round to round."""
    names = list(steps)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            _wait(device)
            start = time.perf_counter()
            for number in range(turn * per_round, (turn + 1) * per_round):
                steps[name](number)
            _wait(device)
            seconds[name].append(time.perf_counter() - start)
    return seconds


def peak_memory(step: Callable[[], None], device: torch.device) -> int:
    """Largest number of bytes that torch holds during `step` above what it held before."""
    if device.type == "cuda":
        _wait(device)
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
    held, peak = 0, 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


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


def drive(
    model: nn.Module, card: Mapping[str, Any], arguments: Mapping[str, Any], device: torch.device | str
) -> Outcome:
    """Speed and memory of a run as a share of a baseline's; its trained weights play no part, only their shapes.

    Arguments: "run" and "baseline" as `Run.to_dict` gives them; "batch"; "precision"; "warmup" steps of each; "rounds"
    in turn of "steps" each.

    Values: "speed" and "memory" in percent of the baseline's (speed: the median over rounds; "speed_low", "speed_high":
    its quartiles), "images_per_second", "baseline_images_per_second", "peak_bytes", "baseline_peak_bytes",
    "parameters" in thousands.
    """
    device = torch.device(device)
    batch, precision = arguments["batch"], arguments["precision"]
    runs = {name: Run.from_dict(arguments[name]) for name in ("run", "baseline")}
    with undisturbed(device):
        steps = {name: training_step(run, card, batch, precision, device)[0] for name, run in runs.items()}
        take_turns(steps, 1, arguments["warmup"], device)
        # The numbers of warm-up steps count from 0 again: equal draws for both contenders is all that matters.
        seconds = take_turns(steps, arguments["rounds"], arguments["steps"], device)
        peaks = {name: _largest(step, arguments["steps"], device) for name, step in steps.items()}
    shares = [100 * base / own for own, base in zip(seconds["run"], seconds["baseline"], strict=True)]
    low, middle, high = statistics.quantiles(shares, n=4)
    images = batch * arguments["steps"]
    values = {
        "speed": middle,
        "speed_low": low,
        "speed_high": high,
        "memory": 100 * peaks["run"] / peaks["baseline"],
        "images_per_second": images / statistics.median(seconds["run"]),
        "baseline_images_per_second": images / statistics.median(seconds["baseline"]),
        "peak_bytes": float(peaks["run"]),
        "baseline_peak_bytes": float(peaks["baseline"]),
        "parameters": sum(parameter.numel() for parameter in model.parameters()) / 1000,
    }
    return Outcome(values, n_samples=2 * images * arguments["rounds"])


def _largest(step: Step, steps: int, device: torch.device) -> int:
    """Peak memory over some steps, as a method may not do the same at each."""

    def some() -> None:
        for number in range(steps):
            step(number)

    return peak_memory(some, device)
