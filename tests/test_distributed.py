"""Two gloo processes on the CPU: same evaluation as one process, same weights on both, errors reach both."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from engine import small_run, stopped_after

from training.config import Execution, Run
from training.loop import fit
from training.process import Process
from training.run_directory import RunError
from training.state import read_checkpoint

ROOT = Path(__file__).resolve().parents[1]

# Imports once, then forks two processes for each job in turn; each writes what it found into a file of its own.
WORKER = """
import json, os, sys, traceback
from datetime import timedelta
from pathlib import Path
import torch, torch.distributed as dist
sys.path.insert(0, {tests!r})
from engine import stopped_after
from training import loop
from training.config import Execution, Run
from training.loop import fit
from training.process import Process
from training.run_directory import RunError
torch.set_num_threads(1)
loop.CHECK_EVERY = 4
folder, run, jobs = Path(sys.argv[1]), Run.from_dict(json.loads(sys.argv[2])), json.loads(sys.argv[3])

def work(number, rank):
    store, job = f"file://{{folder}}/store{{number}}", jobs[number]
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2, timeout=timedelta(seconds=90))
    found, directory = None, folder / job["directory"]
    try:
        if job.get("evaluate"):
            both = loop.Loop([loop.Training(run, 0, directory, Execution(), Process.current("cpu"))])
            both.resume()
            found = both.evaluate()[0]
        elif "stop_at" in job:
            with stopped_after(job["stop_at"]):
                fit(run, 0, directory, Execution(checkpoint_seconds=0))
        else:
            found = fit(run, 0, directory, Execution(checkpoint_seconds=0))
    except RunError as error:
        found = dict(error=str(error))
    (folder / f"found{{number}}.{{rank}}").write_text(json.dumps(found))
    dist.destroy_process_group()

for number in range(len(jobs)):
    children = []
    for rank in range(2):
        children.append(os.fork())
        if not children[-1]:
            try:
                work(number, rank)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
    if any([os.waitpid(child, 0)[1] for child in children]):
        sys.exit(1)
"""


def two_processes(folder: Path, run: Run, *jobs: dict[str, Any]) -> list[list[Any]]:
    """What each of two processes found in each job: it fits the run, or stops at an update, or evaluates alone."""
    arguments = [WORKER.format(tests=str(ROOT / "tests")), str(folder), json.dumps(run.to_dict()), json.dumps(jobs)]
    done = subprocess.run([sys.executable, "-c", *arguments], capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stderr
    return [[json.loads((folder / f"found{n}.{rank}").read_text()) for rank in range(2)] for n in range(len(jobs))]


def check_resumed_pair_equals_whole(folder: Path, run: Run, stop_at: int) -> dict[str, Any]:
    """The result of two processes, whose weights are those of two that are stopped and called again."""
    jobs = {"directory": "whole"}, {"directory": "stopped", "stop_at": stop_at}, {"directory": "stopped"}
    (first, second), _, (resumed, _) = two_processes(folder, run, *jobs)
    assert first == second
    assert "resumed" in (folder / "stopped" / "log.txt").read_text()
    assert resumed["checksum"] == first["checksum"]
    return first


def test_two_processes_train_evaluate_and_resume(tmp_path: Path) -> None:
    result = check_resumed_pair_equals_whole(tmp_path, small_run(), 14)
    # 797 test images do not divide by two: each counts once, none twice.
    assert (result["n_samples"], result["measured"]["processes"]) == (797, 2)


def test_two_processes_evaluate_as_one_does(tmp_path: Path) -> None:
    """The same weights, evaluated by the one process that trained them and by two that take over."""

    with stopped_after(6):  # in the second epoch, after the checkpoint of the first
        fit(small_run(), 0, tmp_path / "r", Execution(checkpoint_seconds=0))
    saved = read_checkpoint(tmp_path / "r" / "checkpoint.pt")
    assert saved is not None
    one = saved["states"][0]["metrics"][-1]
    (found,) = two_processes(tmp_path, small_run(), {"directory": "r", "evaluate": True})
    for both in found:
        assert (both["top1"], both["top5"], both["test_samples"]) == (one["top1"], one["top5"], 797)
        assert both["eval_loss"] == pytest.approx(one["eval_loss"], rel=1e-6)


def test_an_error_reaches_both_processes(tmp_path: Path) -> None:
    (results,) = two_processes(tmp_path, small_run(batch_size=15), {"directory": "r"})
    assert all("does not divide over 2 processes" in result["error"] for result in results)


def test_a_log_that_cannot_be_written_stops_both_processes(tmp_path: Path) -> None:
    (tmp_path / "r" / "log.txt").mkdir(parents=True)
    (results,) = two_processes(tmp_path, small_run(), {"directory": "r"})
    assert all("cannot write" in result["error"] and "log.txt" in result["error"] for result in results)


def test_a_file_that_fails_is_said_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"cannot write .*lock \(No such file or directory\): mend it"):
        Process.current("cpu").agree((tmp_path / "gone" / "lock").touch)
