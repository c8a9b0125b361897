"""What a run leaves: its state in a checkpoint, statistics of its epochs, exported weights, and result.json."""

import hashlib
import io
import pickle
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from training import run_directory
from training.config import Model, Run
from training.data.feeds import Feed
from training.mixed_accuracy import NAMES
from training.models import build_model
from training.process import Process
from training.run_directory import RunError, read_json, write_atomically, write_json

LAMBDA = ("lam_0", "lam", "perturbation", "share_cut")
SAVED = ("update", "metrics", "train_seconds", "epoch_seconds", "code")  # of a `State`, beside networks and statistics
DIGEST = hashlib.sha256().digest_size

# ------------------------------------------------------------------------------------------------- statistics


class Statistics:
    """Means by name over samples of all updates, microbatches and processes; values that are NaN do not count.

    They are summed on the device without waiting for it.
    """

    def __init__(self, process: Process) -> None:
        self.process = process
        self.names: list[str] = []
        self.sums = torch.zeros(2, 0)

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Count in values [B] of any dtype; the names are those of the first call."""
        names = self.names or list(values)
        self.add_sums(names, sums_of([values[name] for name in names])[0])

    def add_sums(self, names: list[str], sums: Tensor) -> None:
        """Count in what `sums_of` gives for the values of these names, which are those of the first call."""
        if not self.names:
            self.reset(names)
        self.sums += sums

    def reset(self, names: list[str]) -> None:
        """Forget all values."""
        self.names = names
        self.sums = torch.zeros(2, len(names), dtype=torch.float64, device=self.process.device)

    def means(self) -> dict[str, float | None]:
        """The mean under each name, None where nothing counted; a call of all processes."""
        sums, counts = self.process.sum(self.sums).tolist()
        return {n: s / count if count else None for n, s, count in zip(self.names, sums, counts, strict=True)}

    def to_dict(self) -> dict[str, Any]:
        """Names, and sums over all processes, for a checkpoint; a call of all processes."""
        return {"names": self.names, "sums": self.process.sum(self.sums).cpu()}

    def restore(self, saved: dict[str, Any]) -> None:
        """Go on from what `to_dict` gave, which one process carries on for all."""
        self.reset(saved["names"])
        if self.process.rank == 0:
            self.sums += saved["sums"].to(self.sums.device)


def sums_of(values: list[Tensor], parts: int = 1) -> Tensor:
    """Sums and counts [parts, 2, K] float64 of K values [B] of any dtype, over each of so many equal parts of B."""
    stacked = torch.stack([value.double() for value in values]).unflatten(1, (parts, -1))
    return torch.stack([stacked.nansum(-1), (~stacked.isnan()).sum(-1)]).movedim(-1, 0)


def scores_of(evaluator: Any, process: Process) -> dict[str, Any]:
    """Loss, top-1 and top-5 that timm's evaluator counted, each image once over all processes, which all call it."""
    scores = evaluator.compute(distributed=process.distributed)
    samples = int(process.sum(evaluator.counts)[0])
    return {"top1": scores["top1"], "top5": scores["top5"], "eval_loss": scores["loss"], "test_samples": samples}


# ------------------------------------------------------------------------------------------------- checkpoints


@dataclass
class State:
    """A run with one seed under way: all that an update changes and a checkpoint holds beside the optimizer."""

    run: Run
    seed: int
    task: Any
    statistics: Statistics  # of the epoch so far
    update: int = 0  # updates done, over all epochs
    metrics: list[dict[str, Any]] = field(default_factory=list)  # lines of metrics.jsonl, one for each epoch done
    train_seconds: float = 0.0  # spent on training in the epochs done
    epoch_seconds: float = 0.0  # in this one
    code: str = field(default_factory=lambda: run_directory.code_fingerprint())  # that began it

    def to_dict(self) -> dict[str, Any]:
        """Tensors, numbers, strings, and lists and dicts of them; a call of all processes."""
        return {
            **self.task.checkpoint(),
            "statistics": self.statistics.to_dict(),
            **{name: getattr(self, name) for name in SAVED},
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Go on from what `to_dict` gave."""
        self.task.restore(saved)
        self.statistics.restore(saved["statistics"])
        for name in SAVED:
            setattr(self, name, saved[name])

    def close_epoch(self, line: dict[str, Any]) -> None:
        """Add an epoch's line, and begin statistics and clock anew."""
        self.metrics.append(line)
        self.train_seconds += self.epoch_seconds
        self.epoch_seconds = 0.0
        self.statistics.reset(self.statistics.names)


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Replace a file by `content`: tensors, numbers, strings, and lists and dicts of them, and its SHA-256 behind it.

    It is put together in memory, where torch.save does not meet a full disk.
    """
    buffer = io.BytesIO()
    torch.save(content, buffer)
    buffer.write(hashlib.sha256(buffer.getbuffer()).digest())
    write_atomically(path, lambda file: file.write(buffer.getbuffer()), durable=True)


def read_checkpoint(path: Path) -> dict[str, Any] | None:
    """What `save_checkpoint` wrote, on the CPU; None if there is none."""
    if not path.exists():
        return None
    try:
        content = memoryview(path.read_bytes())
        if hashlib.sha256(content[:-DIGEST]).digest() != content[-DIGEST:]:
            raise ValueError("its SHA-256 is another than when it was written")
        state = torch.load(io.BytesIO(content[:-DIGEST]), map_location="cpu", weights_only=True)
        if not isinstance(state, dict):
            raise ValueError(f"it holds a {type(state).__name__}")
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RunError(
            f"{path} cannot be read ({reason}): delete it and run the same command to train this run from the start"
        ) from error
    return state


# ------------------------------------------------------------------------------------------------- results


def export_model(directory: Path, network: nn.Module, card: dict[str, Any]) -> None:
    """Write model.safetensors and its card model.json, from which `load_model` rebuilds the network."""
    _export(directory / "model.safetensors", network.state_dict())
    write_json(directory / "model.json", card, durable=True)


def _export(path: Path, state: Mapping[str, Tensor]) -> None:
    content = safetensors.torch.save({name: value.detach().cpu().contiguous() for name, value in state.items()})
    write_atomically(path, lambda file: file.write(content), durable=True)  # nothing but weights: equal checksums


def load_model(directory: Path, device: torch.device | str = "cpu") -> nn.Module:
    """The trained network of a finished run, in evaluation mode."""
    path = directory / "model.safetensors"
    if not path.exists() or not (directory / "model.json").exists():
        raise RunError(f"{directory} holds no trained model: run its table first")
    card, result = read_json(directory / "model.json"), run_directory.read_result(directory)
    if result is not None and result.get("checksum") != run_directory.sha256(path):
        raise RunError(f"{path} is damaged, its SHA-256 is not that of result.json: delete {directory} and train again")
    try:
        network = build_model(
            Model.from_dict(card["model"]), card["num_classes"], card["in_chans"], card["image_size"], seed=0
        )
        network.load_state_dict(safetensors.torch.load_file(path))
    except (safetensors.SafetensorError, RuntimeError, LookupError, TypeError) as error:
        raise RunError(f"{path} or the model.json beside it is damaged or of another model ({error})") from error
    return network.to(device).eval()


def write_result(state: State, feed: Feed, process: Process, directory: Path, stacked: int = 0) -> dict[str, Any]:
    """Export the weights, write result.json, and remove the checkpoint, which nothing needs any more.

    What code and seeds determine stands apart from what was "measured" here. `stacked` is the number of networks in the
    ensemble that trained this one, 0 where it was trained alone: they round differently.
    """
    run, network, code = state.run, state.task.reported_model(), run_directory.code_fingerprint()
    if learner := getattr(state.task, "learner", None):  # what its masks are made by is beside the network
        beside = {name: value for name, value in learner.state_dict().items() if not name.startswith("network.")}
        _export(directory / "learner.safetensors", beside)
    export_model(directory, network, _card(state, feed))
    result = {
        "key": run.key,
        "seed": state.seed,
        **outcome(state.metrics, run),
        "n_samples": state.metrics[-1]["test_samples"],
        **({"subset": feed.subset} if feed.subset else {}),
        **({"stacked": stacked} if stacked else {}),
        "epochs": run.epochs,
        "steps": state.update,
        "parameters": sum(p.numel() for p in network.parameters()),
        "checksum": run_directory.sha256(directory / "model.safetensors"),
        "fingerprint": code,
        **({"begun_by": state.code} if state.code != code else {}),
        "measured": {
            "seconds": state.train_seconds,
            "images_per_second": state.update * run.batch_size / state.train_seconds,
            **process.environment(),
        },
    }
    write_json(directory / "result.json", result, durable=True)
    (directory / "checkpoint.pt").unlink(missing_ok=True)
    return result


def _card(state: State, feed: Feed) -> dict[str, Any]:
    """What is needed to rebuild the exported network and its inputs."""
    run = state.run
    return {
        "key": run.key,
        "seed": state.seed,
        "model": run.model.to_dict(),
        "num_classes": feed.num_classes,
        "in_chans": feed.in_chans,
        "image_size": run.data.test_size or run.data.image_size,
        "mean": feed.mean,
        "std": feed.std,
        "data": run.data.name,
        "test_crop": run.data.test_crop,
        "weights": "moving average" if run.optim.ema_reported else "raw",
    }


def outcome(metrics: list[dict[str, Any]], run: Run) -> dict[str, Any]:
    """Last, best and median-of-last accuracy of a finished run, and the statistics of lambda over its last epoch."""
    evaluated = [line for line in metrics if "top1" in line]
    last, best = evaluated[-1], max(evaluated, key=lambda line: line["top1"])
    tail = [line["top1"] for line in evaluated if line["epoch"] > run.epochs - run.median_last]
    return {
        "top1": {
            "last": last["top1"],
            "best": best["top1"],
            "best_epoch": best["epoch"],
            "median_last": statistics.median(tail),
        },
        "top5": {"last": last["top5"]},
        **{name: {"last": last[name]} for name in NAMES if name in last},
        "loss": {"last": last["eval_loss"]},
        "lambda": {name: metrics[-1][name] for name in LAMBDA if name in metrics[-1]},
    }
