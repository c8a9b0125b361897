"""Run directories: who holds one, what damage and a full disk say, and that a reader never sees half a file."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from training import process, run_directory
from training.run_directory import RunError, locked

ROOT = Path(__file__).resolve().parents[1]


def python(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True)


HOLDER = """
import sys, time
from pathlib import Path
from training.run_directory import locked
with locked(Path(sys.argv[1])):
    print("holds", flush=True)
    time.sleep(60)
"""


def test_a_living_owner_keeps_its_lock_and_a_killed_one_frees_it(tmp_path: Path) -> None:
    holder = python(HOLDER, str(tmp_path))
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "holds\n"
        for age in (0, 1e6, -1e6):  # however old its file, or of the future
            os.utime(tmp_path / "lock", (time.time() - age,) * 2)
            with pytest.raises(RunError, match=rf"is in use by process {holder.pid} on .*: wait for it"):
                locked(tmp_path).__enter__()
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    with locked(tmp_path) as path:
        assert path.read_text().startswith(f"process {os.getpid()} on ")
        with pytest.raises(RunError, match="is in use by process"):
            locked(tmp_path).__enter__()
    assert path.stat().st_mtime == 0  # no sign of life
    with locked(tmp_path):
        assert path.stat().st_mtime > 0


@pytest.mark.parametrize("text", ["", "{", '{"host": 1, "pid": 1, "born": "1"}', "process 1 on here"])
def test_what_a_lock_file_says_locks_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "lock").write_text(text)
    with locked(tmp_path):
        pass


STRESS = """
import os, random, sys, time
from pathlib import Path
from training.run_directory import RunError, locked
folder, end, held = Path(sys.argv[1]), time.monotonic() + 1.5, 0
draws = random.Random(os.getpid())
while time.monotonic() < end:
    try:
        with locked(folder):
            held += 1
            handle = os.open(folder / "inside", os.O_CREAT | os.O_EXCL)  # fails where another is inside
            os.close(handle)
            time.sleep(draws.random() * 0.002)
            os.unlink(folder / "inside")
    except RunError as error:
        assert "in use" in str(error), error
print(held)
"""


def test_two_never_hold_a_directory_at_once(tmp_path: Path) -> None:
    workers = [python(STRESS, str(tmp_path)) for _ in range(4)]
    outputs = [worker.communicate(timeout=60)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * 4
    assert sum(map(int, outputs)) > 20


def test_a_file_system_without_flock_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", missing)
    with pytest.raises(RunError, match=r"cannot write .*lock .Function not implemented"):
        locked(tmp_path).__enter__()


def test_no_permission_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*arguments: Any, **options: Any) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", denied)
    with pytest.raises(RunError, match="no permission to write"):
        locked(tmp_path / "r").__enter__()


def opened(directory: Path, seed: int = 0) -> Any:
    return run_directory.open_directory(directory, "a-run", seed, {"epochs": 1}, dict)


def test_a_directory_of_another_run_is_refused_and_left_overs_are_swept(tmp_path: Path) -> None:
    assert opened(tmp_path) is None
    (tmp_path / ".checkpoint.pt.x1y2z3").write_bytes(b"half")  # of a process that was killed while writing
    assert opened(tmp_path) is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "environment.json"]
    with pytest.raises(RunError, match=r"holds run a-run seed 0, not a-run seed 1: choose another directory"):
        opened(tmp_path, seed=1)


@pytest.mark.parametrize("text", ["", '{"key": "a"', "[" * 100_000, '{"key": ' + "9" * 5000 + "}", "\xff"])
def test_damaged_json_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "result.json").write_text(text, encoding="latin-1")
    with pytest.raises(RunError, match=r"result.json is damaged .*delete it"):
        run_directory.read_result(tmp_path)
    (tmp_path / "metrics.jsonl").write_text(f"{text or '[1]'}\n", encoding="latin-1")
    with pytest.raises(RunError, match=r"metrics.jsonl is damaged"):
        run_directory.read_metrics(tmp_path)
    for other in ("[]", "null", '{"seed": 1}'):
        (tmp_path / "result.json").write_text(other)
        with pytest.raises(RunError, match="no result of a run"):
            run_directory.read_result(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(RunError, match="holds run None"):
        opened(tmp_path)


def test_a_line_still_being_written_is_left_out(tmp_path: Path) -> None:
    assert run_directory.read_metrics(tmp_path) == []
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1}\n{"epo')
    assert run_directory.read_metrics(tmp_path) == [{"epoch": 1}]


def test_git_is_asked_without_its_lock_and_a_copy_without_it_runs(tmp_path: Path, monkeypatch: Any) -> None:
    environments = []
    real = subprocess.run
    monkeypatch.setattr(process.subprocess, "run", lambda *a, **k: environments.append(k["env"]) or real(*a, **k))
    process.commit.cache_clear()
    if (ROOT / ".git").exists():
        assert len(str(process.commit()["commit"])) == 40
        assert {environment["GIT_OPTIONAL_LOCKS"] for environment in environments} == {"0"}
    monkeypatch.setattr(process, "ROOT", tmp_path)
    process.commit.cache_clear()
    assert process.commit() == {"commit": None, "dirty": None}
    process.commit.cache_clear()
