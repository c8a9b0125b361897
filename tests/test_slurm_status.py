"""What `status`, `cancel` and `logs` say, from made-up answers of SLURM and real run directories."""

import dataclasses
from pathlib import Path

import pytest

from experiments.registry import get_table
from experiments.runs import items_of_table
from experiments.scale import get_scale
from slurm import control, ledger, scheduler, status
from slurm.scheduler import JobState, SchedulerError, parse_sacct, parse_squeue
from slurm.status import duration, plain_table, status_of, summary
from training import run_directory

PAPER = get_scale("paper")
TABLE = "lumix_table10_laws"


@pytest.fixture(autouse=True)
def _in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def item():
    return items_of_table(PAPER, get_table(TABLE, PAPER), seeds=1)[0]


def entry_for(item, *attempts, **changes) -> ledger.Entry:
    values = {"scale": "paper", "table": TABLE, "key": item.run.key, "seed": item.seed, "cluster": "a100"}
    entry = ledger.Entry(
        **values,
        directory=str(item.directory),
        submission=str(Path.cwd() / "s" / "20260101"),
        index=0,
        executor="slurm",
        submitted=0.0,
        job="7_0",
        attempts=list(attempts),
    )
    return dataclasses.replace(entry, **changes)


def attempt(outcome: str = "", reason: str = "", number: int = 1) -> ledger.Attempt:
    return ledger.Attempt(number, "7_0", number - 1, "n1", 5, 1.0, 0.0, outcome, reason)


def started(item, epochs: int = 3) -> None:
    run_directory.write_json(item.directory / "environment.json", {"fingerprint": "other"})
    for epoch in range(1, epochs + 1):
        run_directory.append_metrics(item.directory, {"epoch": epoch, "images_per_second": 8000.0, "seconds": 100.0})


def finished(item, fingerprint: str) -> None:
    values = {"key": item.run.key, "seed": item.seed, "top1": {"last": 79.9}, "fingerprint": fingerprint}
    run_directory.write_json(item.directory / "result.json", values)


# ------------------------------------------------------------------------------------------------- answers


def test_squeue_is_read_task_by_task():
    text = "5_0|RUNNING|None\n5_1|PENDING|JobArrayTaskLimit\n6|REQUEUE_HOLD|job requeued in held state\n"
    states = parse_squeue(text)
    assert states["5_0"] == JobState("RUNNING")
    assert states["5_1"].reason == "JobArrayTaskLimit"
    assert all(state.alive for state in states.values())
    assert [state.running for state in states.values()] == [True, False, False]


def test_sacct_is_read_and_never_makes_a_job_alive():
    states = parse_sacct("5_0|CANCELLED by 0\n5_[2-3]|PENDING\n6|RUNNING\n7|NODE_FAIL\n")
    assert {job: state.state for job, state in states.items()} == {
        "5_0": "CANCELLED",
        "6": "RUNNING",
        "7": "NODE_FAIL",
    }
    assert not any(state.alive for state in states.values())


def fake_slurm(folder: Path, **scripts: str) -> str:
    folder.mkdir()
    for name, script in scripts.items():
        path = folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
    return f"{folder}:/bin:/usr/bin"


def test_ended_jobs_come_from_sacct_where_there_is_one(tmp_path, monkeypatch):
    path = fake_slurm(
        tmp_path / "bin", squeue="echo '5_1|RUNNING|None'", sacct="echo '5_0|TIMEOUT'; echo '5_1|RUNNING'"
    )
    monkeypatch.setenv("PATH", path)
    states = scheduler.job_states(["5_0", "5_1"])
    assert (states["5_0"].state, states["5_0"].alive) == ("TIMEOUT", False)
    assert states["5_1"].alive


def test_accounting_that_is_off_is_no_error(tmp_path, monkeypatch):
    squeue = "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1"
    off = "echo 'Slurm accounting storage is disabled' >&2; exit 1"
    monkeypatch.setenv("PATH", fake_slurm(tmp_path / "bin", squeue=squeue, sacct=off))
    assert scheduler.job_states(["5_0"]) == {}


def test_a_controller_that_is_down_is_one_sentence(tmp_path, monkeypatch):
    down = "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1"
    monkeypatch.setenv("PATH", fake_slurm(tmp_path / "bin", squeue=down, slow="exec sleep 5"))
    with pytest.raises(SchedulerError, match=r"squeue failed .*Unable to contact slurm controller"):
        scheduler.job_states(["5"])
    with pytest.raises(SchedulerError, match="slow did not answer within 0 s: SLURM's controller seems to be down"):
        scheduler.call("slow", seconds=0.2)
    with pytest.raises(SchedulerError, match="absent is not on the PATH"):
        scheduler.call("absent")


# ------------------------------------------------------------------------------------------------- states


def test_a_running_run_tells_epoch_speed_and_time_left(item):
    started(item)
    found = status_of(item, entry_for(item, attempt()), {"7_0": JobState("RUNNING")})
    assert (found.state, found.job, found.epoch, found.images_per_second) == ("running", "7_0", 3, 8000.0)
    assert found.left == (300 - 3) * 100.0
    line = plain_table([found]).splitlines()[2]
    assert "3/300" in line
    assert "8.2 h" in line


def test_a_requeued_run_tells_how_often_and_why(item):
    started(item)
    entry = entry_for(item, attempt("stopped", "SIGUSR2: x"), attempt("stopped", "SIGTERM: y", 2), attempt(number=3))
    found = status_of(item, entry, {"7_0": JobState("RUNNING")})
    assert (found.state, found.requeues, found.note) == ("running", 2, "after SIGTERM: y")
    assert "2 times" in plain_table([found])
    waiting = status_of(item, entry, {"7_0": JobState("PENDING", "BeginTime")})
    assert (waiting.state, waiting.note) == ("queued", "waits for BeginTime, after SIGTERM: y")


@pytest.mark.parametrize(
    ("entry", "job", "state", "note"),
    [
        ({}, JobState("PENDING", "Resources"), "queued", "waits for Resources"),
        ({"ended": "cancelled"}, None, "cancelled", ""),
        ({"ended": "cancelled"}, JobState("COMPLETING"), "cancelled", "its job is ending"),
        ({}, JobState("CANCELLED", listed=False), "cancelled", ""),
        ({}, None, "lost", "job 7_0 is gone"),
        ({}, JobState("NODE_FAIL", listed=False), "lost", "SLURM ended job 7_0 as NODE_FAIL"),
        ({"attempts": [attempt("failed", "RunError: z")]}, None, "failed", "RunError: z"),
        ({"ended": "gave up after 3 failures, the last one: z"}, None, "failed", "gave up after 3 failures, the last"),
    ],
)
def test_states_of_what_is_not_finished(item, entry, job, state, note):
    found = status_of(item, entry_for(item, **entry), {} if job is None else {"7_0": job})
    assert found.state == state
    assert found.note.startswith(note)


def test_done_is_what_the_directory_says_whatever_slurm_thinks(item):
    finished(item, run_directory.code_fingerprint())
    found = status_of(item, entry_for(item, attempt()), {"7_0": JobState("FAILED", listed=False)})
    assert (found.state, found.note) == ("done", "top-1 79.90")
    finished(item, "other")
    assert status_of(item, None, {}).state == "older code"
    (item.directory / "result.json").write_text("{")
    assert "result.json is damaged" in status_of(item, None, {}).note


def test_without_slurm_the_directories_speak(item, monkeypatch):
    started(item)
    ledger.write_entry(ledger.entry_path(ledger.ROOT, "paper", item.run.key, 0), entry_for(item, attempt()))
    monkeypatch.setenv("PATH", "")
    (found,), warning = status.statuses(PAPER, [item], ledger.ROOT)
    assert found.state == "queued"
    assert warning.endswith("the states below are those of the run directories")
    (item.directory / "lock").touch()
    assert status.statuses(PAPER, [item], ledger.ROOT)[0][0].state == "running"
    assert summary([found, found]) == "2 queued"


def test_without_a_job_and_without_slurm_nothing_is_asked(item, monkeypatch):
    monkeypatch.setenv("PATH", "")
    (found,), warning = status.statuses(PAPER, [item], ledger.ROOT)
    assert (found.state, warning) == ("not submitted", "")
    started(item)
    assert status_of(item, None, {}).state == "started"


@pytest.mark.parametrize(
    ("seconds", "text"), [(45, "45 s"), (89, "89 s"), (600, "10 min"), (7200, "2.0 h"), (200000, "2.3 days")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text


# ------------------------------------------------------------------------------------------------- control


def test_runs_are_named_by_table_key_or_seed(item):
    key = item.run.key
    assert control.items_named(PAPER, f"{key}/seed0", None) == [item]
    assert [found.seed for found in control.items_named(PAPER, key, 2)] == [0, 1]
    assert item in control.items_named(PAPER, TABLE, None)
    with pytest.raises(ValueError, match="unknown table or run"):
        control.items_named(PAPER, key[:-1], None)
    with pytest.raises(ValueError, match="unknown seed of"):
        control.items_named(PAPER, f"{key}/seed99", None)


def test_cancel_takes_living_jobs_only_and_remembers(tmp_path, monkeypatch):
    first, second = items_of_table(PAPER, get_table(TABLE, PAPER), seeds=1)[:2]
    for item, job in ((first, "7_0"), (second, "7_1")):
        ledger.write_entry(ledger.entry_path(ledger.ROOT, "paper", item.run.key, 0), entry_for(item, job=job))
    scancel = f'echo "$@" >> {tmp_path / "cancelled"}'
    path = fake_slurm(
        tmp_path / "bin", squeue="echo '7_0|RUNNING|None'; echo '7_1|COMPLETED|None'", sacct="exit 1", scancel=scancel
    )
    monkeypatch.setenv("PATH", path)
    assert control.cancel(PAPER, [first, second]) == ["7_0"]
    assert (tmp_path / "cancelled").read_text() == "7_0\n"
    ended = [
        ledger.read_entry(ledger.entry_path(ledger.ROOT, "paper", item.run.key, 0)).ended for item in (first, second)
    ]
    assert ended == ["cancelled", ""]


def test_logs_show_the_run_and_its_job(item):
    entry = entry_for(item, attempt())
    ledger.write_entry(ledger.entry_path(ledger.ROOT, "paper", item.run.key, 0), entry)
    assert control.logs(PAPER, [item]) == ""
    run_directory.write_text(item.directory / "log.txt", "".join(f"epoch {n}\n" for n in range(100)))
    run_directory.write_text(Path(entry.submission, "log", "7_0_0_log.err"), "Traceback\n")
    run_directory.write_text(Path(entry.submission, "log", "7_00_0_log.err"), "another job\n")
    text = control.logs(PAPER, [item])
    assert "epoch 99" in text
    assert "epoch 59\n" not in text
    assert "Traceback" in text
    assert "another job" not in text
