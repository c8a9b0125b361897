"""A job without SLURM: it trains, stops at a signal, goes on bit for bit; its script counts failures and requeues."""

import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from command_line import ROOT
from engine import small_run

from slurm.job import RunJob
from training import run_directory
from training.config import Execution
from training.loop import fit
from training.run_directory import RunError, read_result


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The folder of a submission whose only run is runs/one, of which no table asks an evaluation."""
    monkeypatch.setattr("experiments.runs.ready_with", lambda scale, run, seed: [])
    path = tmp_path / "runs" / ".jobs" / "submission"
    (path / "ended").mkdir(parents=True)
    (path / "runs.txt").write_text("runs/one\n")
    (tmp_path / "runs" / "one").mkdir()
    return path


def job_of(folder: Path, run=None, scale: str = "mini") -> RunJob:
    root, run = folder.parents[2], run or small_run(epochs=2)
    return RunJob(str(folder), 0, str(root), scale, str(root / "runs/one"), run.to_dict(), 0, Execution().to_dict())


def log_of(folder: Path) -> str:
    return (folder.parents[1] / "one" / "log.txt").read_text()


def test_a_job_trains_as_fit_does_and_returns_at_once_when_it_is_done(tmp_path, folder):
    job = job_of(folder)
    result = job()
    assert result["checksum"] == fit(small_run(epochs=2), 0, tmp_path / "fit")["checksum"]
    assert log_of(folder).startswith("start 1 of job debug on ")
    assert job.checkpoint().function == job
    before = (tmp_path / "runs/one/metrics.jsonl").stat().st_mtime_ns
    assert job() == result
    assert (tmp_path / "runs/one/metrics.jsonl").stat().st_mtime_ns == before


def test_a_signal_saves_and_the_next_start_ends_bit_for_bit(tmp_path, folder):
    run, directory = small_run(epochs=20, evaluate_every=20), tmp_path / "runs" / "one"
    before = signal.getsignal(signal.SIGUSR2)

    def signal_when_training():
        while not (directory / "metrics.jsonl").exists() or (directory / "metrics.jsonl").stat().st_size < 600:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGUSR2)

    threading.Thread(target=signal_when_training, daemon=True).start()
    with pytest.raises(SystemExit) as stop:
        job_of(folder, run)()
    assert stop.value.code == 0
    assert signal.getsignal(signal.SIGUSR2) == before
    assert read_result(directory) is None
    assert "stopped by SIGUSR2, " in log_of(folder)
    result = job_of(folder, run)()
    assert result["checksum"] == fit(run, 0, tmp_path / "undisturbed")["checksum"]
    assert "resumed at update" in log_of(folder)
    assert not list(folder.glob("ended/*"))


def test_the_first_task_that_fails_says_why_and_the_next_start_repeats_it(tmp_path, folder, monkeypatch):
    fit(small_run(epochs=3), 0, tmp_path / "runs" / "one")
    with pytest.raises(RunError):
        job_of(folder)()
    job_of(folder)._failed("task 1: connection closed by peer")
    assert "holds run" in (folder / "ended" / "0.0.failed").read_text()
    assert log_of(folder).splitlines()[-1].startswith("failed: ")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    with pytest.raises(RunError):
        job_of(folder)()
    assert ", after it " in next(line for line in log_of(folder).splitlines() if line.startswith("start 2"))


def test_evaluations_are_made_after_training_and_one_that_fails_is_left(tmp_path, folder, monkeypatch):
    from experiments import pool, runs

    class Item:
        class evaluation:  # noqa: N801
            key = "grid-1"

    places = []

    def work(item, execution, fresh_code):
        places.append(Path.cwd())
        raise RuntimeError("out of memory")

    monkeypatch.setattr(runs, "ready_with", lambda scale, run, seed: [Item])
    monkeypatch.setattr(pool, "work", work)
    assert job_of(folder)()["top1"]
    assert places == [tmp_path]
    assert "grid-1 failed: RuntimeError: out of memory" in log_of(folder)


def after(folder: Path, code: int, state: str, restart: int = 0) -> bool:
    """Whether requeue.sh requeues a job whose tasks ended so, in the state that a made-up SLURM tells."""
    programs, asked = folder / "bin", folder / "requeued"
    programs.mkdir(exist_ok=True)
    show = f"[ $1 = show ] && echo 'JobId=7 JobState={state} Reason=None'"
    (programs / "scontrol").write_text(f"#!/bin/sh\n{show}\n[ $1 = requeue ] && echo $2 > {asked}\ntrue\n")
    (programs / "scontrol").chmod(0o755)
    environment = {"PATH": f"{programs}:/bin:/usr/bin", "SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": str(restart)}
    script = f"code={code} root={folder.parents[2]} folder={folder} index=0; source {ROOT}/slurm/requeue.sh"
    asked.unlink(missing_ok=True)
    subprocess.run(["bash", "-c", script], env=environment, timeout=60, check=False)
    return asked.exists()


@pytest.mark.parametrize(
    ("code", "state", "requeued", "reason"),
    [
        (0, "RUNNING", True, None),  # it has saved its checkpoint
        (140, "RUNNING", True, None),  # SIGUSR2 before Python was there
        (143, "TIMEOUT", True, None),
        (137, "RUNNING", True, "killed by SIGKILL, the usual cause is too little memory: raise memory_gb"),
        (139, "RUNNING", True, "killed by SIGSEGV"),
        (3, "RUNNING", True, "died with exit code 3"),
        (137, "TIMEOUT", True, "no checkpoint before the time limit: raise signal_delay_seconds"),
        *((137, state, False, None) for state in ("CANCELLED", "PENDING", "COMPLETING", "PREEMPTED", "NODE_FAIL")),
    ],
)
def test_what_follows_the_end_of_the_tasks(folder, code, state, requeued, reason):
    assert after(folder, code, state) == requeued
    found = [path.read_text() for path in folder.glob("ended/*")]
    assert len(found) == (reason is not None)
    if reason:
        assert found[0].startswith(reason)
        assert log_of(folder).startswith(f"failed: {reason}")


def test_a_finished_run_is_not_requeued(folder):
    run_directory.write_json(folder.parents[1] / "one" / "result.json", {})
    assert not after(folder, 0, "RUNNING")


def test_three_failures_of_its_own_end_a_job_and_stops_do_not_count(folder):
    (folder / "ended" / "0.0.failed").write_text("RunError: the task's own words\n")
    assert [after(folder, code, "RUNNING", restart) for restart, code in enumerate([1, 0, 137, 0, 1])] == [
        *[True] * 4,
        False,
    ]
    assert (folder / "ended" / "0.0.failed").read_text() == "RunError: the task's own words\n"
    assert len(list(folder.glob("ended/0.*.failed"))) == 3


def test_where_failures_cannot_be_counted_nothing_is_requeued(folder):
    (folder / "ended").rmdir()
    assert not after(folder, 1, "RUNNING")
