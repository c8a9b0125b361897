"""Two gloo processes on the CPU: same evaluation as one process, same weights on both, errors reach both."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from engine import small_run, stopped_after

from training import run_directory
from training.config import Execution, Run
from training.loop import fit
from training.state import read_checkpoint

ROOT = Path(__file__).resolve().parents[1]

WORKER = """
import json, sys
from datetime import timedelta
from pathlib import Path
import torch, torch.distributed as dist
sys.path.insert(0, {tests!r})
from engine import small_run, stopped_after
from training import loop
from training.config import Execution, Run
from training.loop import fit
from training.process import Process
from training.run_directory import RunError
torch.set_num_threads(1)
loop.CHECK_EVERY = 4
rank, job = int(sys.argv[1]), json.loads(sys.argv[2])
dist.init_process_group(
    "gloo", init_method="file://" + job["store"], rank=rank, world_size=2, timeout=timedelta(seconds=90)
)
try:
    run, directory = Run.from_dict(job["run"]), Path(job["directory"])
    if job["evaluate"]:
        both = loop.Loop([loop.Training(run, 0, directory, Execution(), Process.current("cpu"))])
        both.resume()
        print(json.dumps(both.evaluate()[0]))
    elif job["stop_at"]:
        with stopped_after(job["stop_at"]):
            fit(run, 0, directory, Execution(checkpoint_seconds=0))
    else:
        print(json.dumps(fit(run, 0, directory, Execution(checkpoint_seconds=0))))
except RunError as error:
    print(json.dumps({{"error": str(error)}}))
dist.destroy_process_group()
"""


def two_processes(tmp_path: Path, directory: Path, run: Run, *, stop_at: int = 0, evaluate: bool = False) -> list[Any]:
    """What each of two processes printed after fitting, or only evaluating, a run together."""
    job = {
        "store": str(tmp_path / f"store-{directory.name}-{stop_at}"),
        "directory": str(directory),
        "stop_at": stop_at,
        "evaluate": evaluate,
        "run": run.to_dict(),
    }
    script = WORKER.format(tests=str(ROOT / "tests"))
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(rank), json.dumps(job)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for rank in range(2)
    ]
    outputs = []
    for process in processes:
        out, err = process.communicate(timeout=240)
        assert process.returncode == 0, err
        lines = [line for line in out.splitlines() if line.startswith("{")]
        outputs.append(json.loads(lines[-1]) if lines else None)
    return outputs


def test_two_processes_train_evaluate_and_resume(tmp_path: Path) -> None:
    results = two_processes(tmp_path, tmp_path / "whole", small_run())
    assert results[0] == results[1]
    # 797 test images do not divide by two: each counts once, none twice.
    assert results[0]["n_samples"] == 797
    assert results[0]["measured"]["processes"] == 2
    two_processes(tmp_path, tmp_path / "stopped", small_run(), stop_at=14)
    assert run_directory.read_result(tmp_path / "stopped") is None
    resumed = two_processes(tmp_path, tmp_path / "stopped", small_run())
    assert "resumed" in (tmp_path / "stopped" / "log.txt").read_text()
    assert resumed[0]["checksum"] == results[0]["checksum"]


def test_two_processes_evaluate_as_one_does(tmp_path: Path) -> None:
    """The same weights, evaluated by the one process that trained them and by two that take over."""

    with stopped_after(6):  # in the second epoch, after the checkpoint of the first
        fit(small_run(), 0, tmp_path / "r", Execution(checkpoint_seconds=0))
    saved = read_checkpoint(tmp_path / "r" / "checkpoint.pt")
    assert saved is not None
    one = saved["states"][0]["metrics"][-1]
    for both in two_processes(tmp_path, tmp_path / "r", small_run(), evaluate=True):
        assert (both["top1"], both["top5"], both["test_samples"]) == (one["top1"], one["top5"], 797)
        assert both["eval_loss"] == pytest.approx(one["eval_loss"], rel=1e-6)


def test_an_error_reaches_both_processes(tmp_path: Path) -> None:
    results = two_processes(tmp_path, tmp_path / "r", small_run(batch_size=15))
    assert all("does not divide over 2 processes" in result["error"] for result in results)
