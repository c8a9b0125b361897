"""Whole tables on a real SLURM: submitted twice at once, collected by DVC, cut by a time limit, on two tasks."""

import json
import re
import sys
import time
from collections.abc import Callable
from datetime import datetime

import pytest
from workspace import TABLE, Run, Workspace, await_that

STAGE = "results"
TWO_TASKS = """
import sys
from pathlib import Path
import torch, torch.distributed as dist
from experiments.registry import get_table
from experiments.scale import get_scale
from training.config import Execution
from training.loop import fit
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=int(sys.argv[1]), world_size=2)
run = get_table("lumix_table02_components", get_scale("mini")).cells["none", "top1"]
fit(run, 0, Path(sys.argv[3]), Execution())
dist.destroy_process_group()
"""


@pytest.fixture(scope="module")
def slow_run(make: Callable[[], Workspace]) -> Run:
    """A run of some 120 seconds under a limit of two minutes: SLURM asks it to stop 70 to 100 seconds after its start.

    SLURM looks every 30 seconds whether a job comes within 30 seconds of its signal, so that in one minute a slow
    machine would get little further than the start of Python.
    """
    workspace = make()
    return workspace.submit(cluster=workspace.cluster(minutes=2, asleep=115.0))


def test_two_people_submit_a_table_at_once_and_it_is_trained_once(
    slow_run: Run, workspace: Workspace, local: Workspace
) -> None:
    """Both submissions end well; each run has one job; DVC collects what the local launcher would have made."""
    command = (sys.executable, "-m", "slurm", "submit", TABLE, "--cluster", workspace.cluster(asleep=0.0))
    both = [workspace.start(*command) for _ in range(2)]
    outputs = [process.communicate(timeout=240)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    (folder,) = workspace.submissions()
    runs = [workspace.root / line for line in (folder / "runs.txt").read_text().splitlines()]
    assert len(set(runs)) == 5, outputs

    code, output = workspace.python("dvc", "repro", STAGE)
    assert code != 0
    assert f"runs of {TABLE} are not finished" in output
    assert f"python -m slurm submit {TABLE}" in output

    await_that(lambda: all((run / "result.json").exists() for run in runs), None, "is finished")
    assert workspace.checksums() == local.checksums()
    assert [(run / "log.txt").read_text().count("start ") for run in runs] == [1] * 5
    start = time.monotonic()
    code, output = workspace.python("dvc", "repro", STAGE)
    assert code == 0, output
    assert "0 runs trained, 5 found" in output
    assert time.monotonic() - start < 60
    results = [each.root / "results" / "mini" / f"{TABLE}.json" for each in (workspace, local)]
    assert json.loads(results[0].read_text())["cells"] == json.loads(results[1].read_text())["cells"]
    assert "nothing to submit" in workspace.slurm("submit", TABLE, "--cluster", "test.toml")


def test_the_time_limit_is_a_pause(slow_run: Run, recorded: Callable[..., None]) -> None:
    slow_run.finished()
    assert "stopped by SIGUSR2" in slow_run.log, slow_run.story()
    assert "resumed at update" in slow_run.log
    assert not slow_run.failures
    times = re.findall(r"^(?:stopped by|start) .*, ([-\d]+ [:\d]+)$", slow_run.log, flags=re.MULTILINE)
    seconds = (datetime.fromisoformat(times[2]) - datetime.fromisoformat(times[1])).total_seconds()
    seen = f"a checkpoint at SIGUSR2, requeued by itself; {len(slow_run.starts)} starts"
    recorded(slow_run, ("time limit of 2 minutes reached", seen, seconds))


def test_two_tasks_train_one_run_and_go_on_after_a_requeue(workspace: Workspace, recorded: Callable[..., None]) -> None:
    """gloo between two tasks of a job, as between the GPUs of a node; the weights are those of two local processes."""
    run = workspace.submit(cluster=workspace.cluster(tasks=2))
    run.training()
    start = time.monotonic()
    workspace.call("scontrol", "requeue", run.job)
    seconds = run.recovered(2, since=start)
    run.finished()
    assert json.loads((run.directory / "environment.json").read_text())["processes"] == 2
    store, directory = workspace.root / "store", workspace.root / "two"
    processes = [
        workspace.start(sys.executable, "-c", TWO_TASKS, str(rank), str(store), str(directory)) for rank in range(2)
    ]
    outputs = [process.communicate(timeout=240)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    expected = json.loads((directory / "result.json").read_text())["checksum"]
    recorded(run, ("`scontrol requeue` of a job of two tasks", "both tasks go on together", seconds), expected=expected)
