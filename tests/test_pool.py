"""The process pool: failures cost one run each, dead workers are replaced, interruption leaves nothing running."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pool_jobs
import pytest

from experiments.methods import lumix
from experiments.pool import discard_older, run_pool
from experiments.runs import Group, grouped, items_of
from experiments.scale import get_scale
from training import run_directory
from training.config import Execution, Mix
from training.parts import AutoMix


def test_failures_and_dead_workers_cost_one_run_each(tmp_path):
    jobs = pool_jobs.items(tmp_path, 6)
    answers = {a.item.seed: a for a in run_pool(jobs, Execution(), 2, fresh_code=True, work=pool_jobs.echo)}
    assert sorted(answers) == [0, 1, 2, 3, 4, 5]
    assert answers[1].error == "seed 1 is unlucky"
    assert "died 2 times" in answers[2].error
    for seed in (0, 3, 4, 5):
        found = answers[seed].result
        assert (found["seed"], found["threads"], found["fresh"]) == (seed, "1", True)
    assert len({answers[seed].result["pid"] for seed in (0, 3, 4, 5)}) <= 4


def test_one_worker_takes_all_items_in_order_and_may_die_when_it_has_nothing_to_do(tmp_path):
    jobs = [item for item in pool_jobs.items(tmp_path, 6) if item.seed not in (1, 2)]
    pids = []
    for place, answer in enumerate(run_pool(jobs, Execution(), 1, work=pool_jobs.echo)):
        assert (answer.item, answer.error) == (jobs[place], "")
        pids.append(answer.result["pid"])
        if place == 1:
            os.kill(pids[-1], signal.SIGKILL)
            time.sleep(0.5)
    assert len(pids) == len(jobs)
    assert len(set(pids)) == 2
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


@pytest.mark.parametrize("finished", [True, False])
def test_runs_of_older_code_are_discarded_but_not_under_a_living_process(tmp_path, finished):
    source = tmp_path / ("result.json" if finished else "environment.json")
    run_directory.write_json(source, {"key": "k", "fingerprint": run_directory.code_fingerprint()})
    run_directory.write_text(tmp_path / "eval" / "a.json", "{}")
    discard_older(tmp_path)
    assert (tmp_path / "eval" / "a.json").exists()
    run_directory.write_json(source, {"key": "k", "fingerprint": "of other code"})
    with run_directory.locked(tmp_path), pytest.raises(run_directory.RunError, match="in use"):
        discard_older(tmp_path)
    assert source.exists()
    discard_older(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_members_of_a_stack_get_an_answer_each(tmp_path):
    items = pool_jobs.items(tmp_path, 3)
    answers = list(run_pool([Group(tuple(items), 8)], Execution(), 1))
    assert [answer.item for answer in answers] == items
    assert all(answer.result["stacked"] == 8 for answer in answers)
    assert all((item.directory / "result.json").exists() for item in items)


def test_stacks_hold_runs_that_differ_in_their_mixing_and_are_filled_up(monkeypatch):
    monkeypatch.setattr("experiments.runs.directory_of", lambda scale, run, seed: Path(run.key, f"seed{seed}"))
    scale = get_scale("mini")
    base = scale.base("deit", "deit_s")
    items = items_of(scale, [base, lumix(base), scale.base("deit", "swin_t")], 9)
    first, second, *swin = grouped(scale, items)
    assert (first.items, second.items) == (tuple(items[:16]), tuple(items[16:18]))
    assert [(len(one.items), one.size) for one in (first, second, *swin)] == [(16, 16), (2, 16), (8, 8), (1, 8)]
    assert second.filled == second.items * 8
    alone = items_of(scale, [base.replace(task=AutoMix(), mix=Mix())], 2)
    assert grouped(scale, alone) == alone
    assert grouped(get_scale("lab"), items[:2]) == items[:2]
