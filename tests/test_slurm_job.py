"""A job without SLURM: it trains, stops at a signal, goes on bit for bit, counts its failures and owns its lock."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from engine import small_run

from slurm import after, ledger
from slurm.job import Job, release_lock
from training.config import Execution
from training.loop import fit
from training.run_directory import RunError, locked, read_result


@pytest.fixture
def entry(tmp_path) -> Path:
    path = tmp_path / "book" / "entry.json"
    _enter(path)
    return path


def _enter(path: Path, job: str = "debug", **changes) -> None:
    values = {"scale": "mini", "table": "t", "key": "k", "seed": 0, "directory": "d", "submission": "s", "index": 0}
    ledger.write_entry(path, ledger.Entry(**values, cluster="c", executor="slurm", submitted=0.0, job=job, **changes))


def _job(entry: Path, directory: Path, run=None, **changes) -> Job:
    run = run or small_run(epochs=2)
    return Job(str(entry), str(directory), run.to_dict(), 0, Execution().to_dict(), **changes)


def _attempt(number: int = 1, outcome: str = "", host: str = "here", pid: int = 1, job: str = "7", restart: int = 0):
    return ledger.Attempt(number, job, restart, host, pid, 1.0, 2.0 if outcome else 0.0, outcome, outcome and "because")


# ------------------------------------------------------------------------------------------------- training


def test_a_job_trains_as_fit_does_and_says_so(tmp_path, entry):
    result = _job(entry, tmp_path / "job")()
    assert result["checksum"] == fit(small_run(epochs=2), 0, tmp_path / "fit")["checksum"]
    found = ledger.read_entry(entry)
    assert (found.ended, found.attempts[0].outcome, found.requeues) == ("finished", "finished", 0)
    assert (tmp_path / "job" / "log.txt").read_text().startswith("attempt 1 of job debug on ")


def test_a_signal_saves_and_the_next_attempt_ends_bit_for_bit(tmp_path, entry):
    run, directory = small_run(epochs=40, evaluate_every=40), tmp_path / "job"
    before = signal.getsignal(signal.SIGUSR2)

    def signal_when_training():
        while not (directory / "metrics.jsonl").exists() or (directory / "metrics.jsonl").stat().st_size < 600:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGUSR2)

    threading.Thread(target=signal_when_training, daemon=True).start()
    with pytest.raises(SystemExit) as stop:
        _job(entry, directory, run)()
    assert stop.value.code == 0
    assert signal.getsignal(signal.SIGUSR2) == before
    assert read_result(directory) is None
    assert (directory / "checkpoint.pt").exists()
    found = ledger.read_entry(entry)
    assert found.attempts[0].outcome == "stopped"
    assert found.last_words.startswith("SIGUSR2: the time limit is near")
    assert not found.ended
    result = _job(entry, directory, run)()
    assert result["checksum"] == fit(run, 0, tmp_path / "undisturbed")["checksum"]
    log = (directory / "log.txt").read_text()
    assert "attempt 2 of job debug on " in log
    assert "after attempt 1 stopped (SIGUSR2" in log
    assert ledger.read_entry(entry).requeues == 1


def test_a_failure_is_written_down_with_its_reason(tmp_path, entry):
    directory = tmp_path / "job"
    fit(small_run(epochs=3), 0, directory)
    with pytest.raises(RunError):
        _job(entry, directory)()
    found = ledger.read_entry(entry)
    assert found.attempts[0].outcome == "failed"
    assert "holds run" in found.attempts[0].reason
    assert (directory / "log.txt").read_text().splitlines()[-1].startswith("failed: ")


def test_a_run_given_to_another_job_is_not_trained(tmp_path, entry):
    _enter(entry, job="99_1")
    with pytest.raises(RunError, match="job debug is out of date, its run was given to job 99_1"):
        _job(entry, tmp_path / "job")()
    assert not (tmp_path / "job" / "config.json").exists()
    assert ledger.read_entry(entry).attempts == []


def test_submitit_gets_the_same_call_again(tmp_path, entry):
    job = _job(entry, tmp_path)
    again = job.checkpoint()
    assert (again.function, again.args, again.kwargs) == (job, (), {})


def test_attempts_without_a_word_were_ended_by_slurm(entry):
    _enter(entry, job="7", attempts=[_attempt()])
    assert ledger.begin_attempt(entry, "7", 1, "there", 2).number == 2
    first, second = ledger.read_entry(entry).attempts
    assert first.outcome == "left"
    assert first.reason.startswith("no word from it")
    assert (second.host, second.restart, second.outcome) == ("there", 1, "")


def test_the_first_task_that_fails_is_the_one_reported(entry):
    _enter(entry, job="7", attempts=[_attempt()])
    ledger.end_attempt(entry, ledger.FAILED, "task 3: out of memory")
    ledger.end_attempt(entry, ledger.FAILED, "connection closed by peer")
    assert ledger.read_entry(entry).last_words == "task 3: out of memory"


# ------------------------------------------------------------------------------------------------- afterwards


def test_a_finished_run_is_done(entry):
    _enter(entry, job="7", attempts=[_attempt(outcome="finished")])
    assert after.conclude(entry, "7", 0, 0, "RUNNING") == after.DONE


@pytest.mark.parametrize("state", ["RUNNING", "TIMEOUT", ""])
def test_a_stopped_run_is_requeued(entry, state):
    _enter(entry, job="7", attempts=[_attempt(outcome="stopped")])
    assert after.conclude(entry, "7", 0, 0, state) == after.AGAIN


@pytest.mark.parametrize("state", ["CANCELLED", "COMPLETING", "PENDING", "PREEMPTED", "NODE_FAIL"])
def test_where_slurm_has_decided_nothing_is_requeued(entry, state):
    _enter(entry, job="7", attempts=[_attempt()])
    assert after.conclude(entry, "7", 0, 143, state) == after.GIVE_UP
    found = ledger.read_entry(entry)
    assert found.attempts[0].outcome == "left"
    assert found.ended == ("cancelled" if state == "CANCELLED" else "")


@pytest.mark.parametrize(
    ("code", "state", "outcome", "words"),
    [
        (137, "RUNNING", "killed", "killed by SIGKILL, the usual cause is too little memory"),
        (139, "RUNNING", "killed", "died by SIGSEGV"),
        (3, "RUNNING", "killed", "died with exit code 3"),
        (140, "RUNNING", "stopped", "SIGUSR2 before training began"),
        (137, "TIMEOUT", "killed", "the time limit came before a checkpoint was saved: raise signal_delay_seconds"),
    ],
)
def test_a_death_without_a_word_is_read_from_the_exit_code(entry, code, state, outcome, words):
    _enter(entry, job="7", attempts=[_attempt()])
    assert after.conclude(entry, "7", 0, code, state) == after.AGAIN
    attempt = ledger.read_entry(entry).attempts[0]
    assert attempt.outcome == outcome
    assert attempt.reason.startswith(words)


def test_a_job_that_died_before_it_began_is_counted(entry):
    _enter(entry, job="7", attempts=[_attempt(outcome="stopped", restart=0)])
    assert after.conclude(entry, "7", 1, 1, "RUNNING") == after.AGAIN
    assert [attempt.outcome for attempt in ledger.read_entry(entry).attempts] == ["stopped", "killed"]


def test_three_failures_of_its_own_end_a_job_and_stops_do_not_count(entry):
    attempts = [
        _attempt(number, outcome)
        for number, outcome in enumerate(["failed", "stopped", "killed", "left", "stopped"], 1)
    ]
    _enter(entry, job="7", attempts=[*attempts, _attempt(6, "failed", restart=5)])
    assert after.conclude(entry, "7", 5, 1, "RUNNING") == after.GIVE_UP
    assert ledger.read_entry(entry).ended == "gave up after 3 failures, the last one: because"


def test_the_script_asks_for_a_requeue_only_while_it_can_count(tmp_path, entry, monkeypatch, capsys):
    _enter(entry, job="7_1", attempts=[_attempt(outcome="stopped", job="7_1", restart=2)])
    (tmp_path / "entries.json").write_text(json.dumps(["absent", str(entry)]))
    for name, value in {"ARRAY_JOB_ID": "7", "ARRAY_TASK_ID": "1", "JOB_ID": "9", "RESTART_COUNT": "2"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGCONT)}
    try:
        assert after.main([str(tmp_path), "0", "RUNNING"]) == after.AGAIN
        entry.write_text("{")
        assert after.main([str(tmp_path), "0", "RUNNING"]) == after.GIVE_UP
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert "not requeued, as the job book cannot be kept" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------- locks


def _lock(directory: Path, host: str, age: float) -> Path:
    directory.mkdir(exist_ok=True)
    path = directory / "lock"
    path.write_text(json.dumps({"host": host, "pid": 5, "born": "1"}))
    os.utime(path, (time.time() - age, time.time() - age))
    return path


def _entry(*attempts: ledger.Attempt) -> ledger.Entry:
    values = {"scale": "mini", "table": "t", "key": "k", "seed": 0, "directory": "d", "submission": "s", "index": 0}
    return ledger.Entry(**values, cluster="c", executor="slurm", submitted=0.0, job="7", attempts=list(attempts))


def test_the_lock_of_an_earlier_attempt_on_another_node_is_removed(tmp_path):
    path = _lock(tmp_path / "run", "n1", age=130)
    release_lock(path.parent, _entry(_attempt(1, "left", "n1", 5), _attempt(2, host="n2", pid=6)), "7")
    assert not path.exists()


@pytest.mark.parametrize(
    "earlier",
    [
        _attempt(1, "left", "n1", 5, job="6"),  # another job, that may live
        _attempt(1, "left", "n1", 4),  # another process
        _attempt(1, "", "n1", 5),  # not known to have ended
    ],
)
def test_no_other_lock_is_touched(tmp_path, earlier):
    path = _lock(tmp_path / "run", "n1", age=1000)
    release_lock(path.parent, _entry(earlier, _attempt(2, host="n2", pid=6)), "7")
    assert path.exists()


def test_a_lock_that_is_still_touched_is_waited_for(tmp_path):
    path = _lock(tmp_path / "run", "n1", age=0)
    start = time.monotonic()
    release_lock(path.parent, _entry(_attempt(1, "left", "n1", 5), _attempt(2, host="n2", pid=6)), "7", quiet=0.5)
    assert time.monotonic() - start >= 0.4
    assert not path.exists()


def test_two_submits_wait_for_each_other(tmp_path):
    with (
        locked(tmp_path),
        pytest.raises(RunError, match="is held by another submit for too long"),
        ledger.book_locked(tmp_path, seconds=0.3),
    ):
        pass
    with ledger.book_locked(tmp_path):
        assert (tmp_path / "lock").exists()
    assert not (tmp_path / "lock").exists()
