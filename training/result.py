"""The outcome of a run: its exported weights and result.json, whose presence means that the run is done."""

import statistics
from pathlib import Path
from typing import Any

from training import mixed_accuracy, run_directory
from training.checkpoint import export_model
from training.config import Run
from training.feed import Feed
from training.process import Process
from training.state import State

LAMBDA = ("lam_0", "lam", "perturbation", "share_cut")


def write_result(state: State, feed: Feed, process: Process, directory: Path, stacked: int = 0) -> dict[str, Any]:
    """Export the weights, write result.json, and remove the checkpoint, which nothing needs any more.

    What code and seeds determine stands apart from what was "measured" on this machine. `stacked` is the number of
    networks in the ensemble that trained this one, 0 where it was trained alone: they round differently.
    """
    run, network = state.run, state.task.reported_model()
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
        "fingerprint": run_directory.code_fingerprint(),
        "measured": {
            "seconds": state.train_seconds,
            "images_per_second": state.update * run.batch_size / state.train_seconds,
            **process.environment(),
        },
    }
    run_directory.write_json(directory / "result.json", result)
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
        **{name: {"last": last[name]} for name in mixed_accuracy.NAMES if name in last},
        "loss": {"last": last["eval_loss"]},
        "lambda": {name: metrics[-1][name] for name in LAMBDA if name in metrics[-1]},
    }
