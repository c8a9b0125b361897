"""The process pool: failures cost one run each, dead workers are replaced, interruption leaves nothing running."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pool_jobs
import pytest

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


def test_seeds_of_a_run_that_train_together_give_an_answer_each(tmp_path):
    items = pool_jobs.items(tmp_path, 3)
    answers = list(run_pool([Group(tuple(items), tuple(items[1:]))], Execution(), 1))
    assert [answer.item for answer in answers] == items[1:]
    assert all(answer.result["stacked"] == 3 for answer in answers)
    assert all((item.directory / "result.json").exists() for item in items)


def test_which_seeds_train_together_does_not_depend_on_what_is_finished(monkeypatch):
    monkeypatch.setattr("experiments.runs.directory_of", lambda scale, run, seed: Path(f"seed{seed}"))
    scale = replace(get_scale("mini"), stacked=4)
    run = scale.base("deit", "deit_s")
    whole = items_of(scale, [run], 6)
    first, second = grouped(scale, whole, 6)
    assert ([item.seed for item in first.items], [item.seed for item in second.items]) == ([0, 1, 2, 3], [4, 5])
    (rest,) = grouped(scale, whole[1:3], 6)
    assert (rest.items, rest.missing) == (first.items, tuple(whole[1:3]))
    assert grouped(scale, whole[4:5], 5) == [whole[4]]  # it has no other
    alone = run.replace(task=AutoMix(), mix=Mix())
    monkeypatch.setattr("experiments.runs.seeds_of", lambda *_: range(2))
    assert grouped(scale, items_of(scale, [alone]), 2) == items_of(scale, [alone])
    assert scale.alone(alone) == "automix trains several networks at once"
    assert get_scale("lab").alone(run) == "scale lab trains every run by itself"
