"""The process pool: failures cost one run each, dead workers are replaced, interruption leaves nothing running."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pool_jobs
import pytest

from experiments.pool import discard_older, run_pool
from lumix.train import run_directory
from lumix.train.config import Execution


def test_failures_and_dead_workers_cost_one_run_each(tmp_path):
    jobs = pool_jobs.items(tmp_path, 6)
    answers = {a.item.seed: a for a in run_pool(jobs, Execution(), 2, fresh_code=True, work=pool_jobs.echo)}
    assert sorted(answers) == [0, 1, 2, 3, 4, 5]
    assert answers[1].error == "seed 1 is unlucky"
    assert "SIGKILL" in answers[2].error
    for seed in (0, 3, 4, 5):
        assert answers[seed].result["seed"] == seed
        assert answers[seed].result["threads"] == "1"
        assert answers[seed].result["fresh"] is True
    assert len({answers[seed].result["pid"] for seed in (0, 3, 4, 5)}) <= 3


def test_one_worker_takes_all_items_in_order(tmp_path):
    jobs = [item for item in pool_jobs.items(tmp_path, 6) if item.seed not in (1, 2)]
    answers = list(run_pool(jobs, Execution(), 1, work=pool_jobs.echo))
    assert [a.item.seed for a in answers] == [0, 3, 4, 5]
    assert len({a.result["pid"] for a in answers}) == 1


def test_no_items_no_workers():
    assert list(run_pool([], Execution(), 2, work=pool_jobs.echo)) == []


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_worker_outlives_the_call(number):
    root = Path(__file__).resolve().parents[1]
    command = [sys.executable, str(root / "tests" / "pool_jobs.py")]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as call:
        workers = [int(call.stdout.readline()) for _ in range(2)]
        assert all(alive(pid) for pid in workers)
        call.send_signal(number)
        _, errors = call.communicate(timeout=20)
    deadline = time.monotonic() + 10
    while any(alive(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in workers)
    assert call.returncode == (-number if number == signal.SIGKILL else 128 + number)
    assert "Traceback" not in errors


def test_results_of_older_code_are_discarded_and_others_kept(tmp_path):
    run_directory.write_json(tmp_path / "result.json", {"key": "k", "fingerprint": run_directory.code_fingerprint()})
    run_directory.write_text(tmp_path / "eval" / "a.json", "{}")
    discard_older(tmp_path)
    assert (tmp_path / "eval" / "a.json").exists()
    run_directory.write_json(tmp_path / "result.json", {"key": "k", "fingerprint": "of other code"})
    discard_older(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_half_done_runs_of_older_code_are_discarded_but_not_under_a_living_process(tmp_path):
    run_directory.write_json(tmp_path / "environment.json", {"fingerprint": "of other code"})
    with run_directory.locked(tmp_path), pytest.raises(run_directory.RunError, match="in use"):
        discard_older(tmp_path)
    assert (tmp_path / "environment.json").exists()
    discard_older(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_real_run_trains_in_a_worker(tmp_path):
    (answer,) = run_pool(pool_jobs.items(tmp_path, 1), Execution(), 1)
    assert answer.error == ""
    assert answer.result["key"] == pool_jobs.RUN.key
    assert run_directory.read_result(tmp_path / "seed0") == answer.result
