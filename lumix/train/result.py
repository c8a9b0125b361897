"""The outcome of a run: its exported weights and result.json, whose presence means that the run is done."""

import statistics
from typing import Any

from timm.utils.model import unwrap_model

from lumix.train import run_directory
from lumix.train.checkpoint import export_model
from lumix.train.config import Run
from lumix.train.training import Training


def write_result(training: Training) -> dict[str, Any]:
    """Export the weights, write result.json, and remove the checkpoint, which nothing needs any more."""
    run, feed, directory = training.run, training.feed, training.directory
    network = unwrap_model(training.reported_model())
    card = {
        "key": run.key,
        "seed": training.seed,
        "model": run.model.to_dict(),
        "num_classes": feed.num_classes,
        "in_chans": feed.in_chans,
        "image_size": run.data.image_size,
        "mean": feed.mean,
        "std": feed.std,
        "data": run.data.name,
        "test_crop": run.data.test_crop,
        "weights": "moving average" if run.optim.ema_reported else "raw",
    }
    export_model(directory, network, card)
    result = {
        "key": run.key,
        "seed": training.seed,
        **outcome(training.metrics, run),
        "n_samples": training.metrics[-1]["test_samples"],
        "epochs": run.epochs,
        "steps": training.update,
        "seconds": training.train_seconds,
        "images_per_second": training.update * run.batch_size / training.train_seconds,
        "parameters": sum(p.numel() for p in network.parameters()),
        "checksum": run_directory.sha256(directory / "model.safetensors"),
        "fingerprint": run_directory.code_fingerprint(),
        **run_directory.commit(),
        "hardware": run_directory.hardware(training.process.name()),
        "processes": training.process.world,
    }
    run_directory.write_json(directory / "result.json", result)
    (directory / "checkpoint.pt").unlink(missing_ok=True)
    return result


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
        "loss": {"last": last["eval_loss"]},
        "lambda": {name: metrics[-1][name] for name in ("lam_0", "lam", "perturbation", "share_cut")},
    }
