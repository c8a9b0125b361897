"""What a run directory holds, how it is written and who may write it. Imports no torch.

    config.json         the resolved run, its seed and key          model.safetensors   final weights
    environment.json    commit, code fingerprint, versions          model.json          their card
    metrics.jsonl       one line per epoch                          result.json         the outcome; there when done
    checkpoint.pt       everything to resume                        log.txt             plain lines
    lock                host and pid of the process at work         eval/               later evaluations

Files are written to a temporary name and renamed, logs grow by whole lines: all are safe to read at any moment.
"""

import errno
import hashlib
import importlib.metadata
import json
import os
import platform
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

ROOT = Path(__file__).resolve().parents[1]
LOCK_STALE_SECONDS = 900  # a lock of another host that was not touched for so long is stale


class RunError(RuntimeError):
    """A run cannot go on; the message is one sentence for the user, with the remedy."""


class Stopped(Exception):  # noqa: N818 - nothing is wrong
    """A run was asked to stop and has saved its checkpoint: the same call continues it."""


# ------------------------------------------------------------------------------------------------- files


def write_atomically(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Let `write` fill a temporary file beside `path`, then rename it: readers see the old file or the new one.

    Raises:
        RunError: when the disk is full or may not be written to, naming the path and the remedy.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)
        raise RunError(_explain(error, path)) from error


def _explain(error: OSError, path: Path) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no space left on the disk while writing {path}: free some and run the same command to continue"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"no permission to write {path}: make its folder writable and run the same command to continue"
    return f"cannot write {path} ({error.strerror or error}): mend it and run the same command to continue"


def write_text(path: Path, text: str) -> None:
    write_atomically(path, lambda file: file.write(text.encode()))


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        RunError: for a damaged file, naming it and the remedy.
    """
    try:
        return json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RunError(f"{path} is damaged ({error}): delete it and run the same command again") from error


def read_metrics(directory: Path) -> list[dict[str, Any]]:
    """The epochs recorded in metrics.jsonl, none if there is no such file. A line still being written is left out."""
    path = directory / "metrics.jsonl"
    if not path.exists():
        return []
    try:
        return [json.loads(line) for line in path.read_text().split("\n")[:-1]]
    except json.JSONDecodeError as error:
        raise RunError(f"{path} is damaged ({error}): delete its folder and run the same command again") from error


def write_metrics(directory: Path, epochs: list[dict[str, Any]]) -> None:
    """Replace metrics.jsonl."""
    write_text(directory / "metrics.jsonl", "".join(json.dumps(epoch, allow_nan=False) + "\n" for epoch in epochs))


def append_metrics(directory: Path, epoch: dict[str, Any]) -> None:
    """Add a line to metrics.jsonl; a rename an epoch would make short runs wait for the disk."""
    append_line(directory / "metrics.jsonl", json.dumps(epoch, allow_nan=False))


def append_line(path: Path, line: str) -> None:
    """Add a line to a file, in one write."""
    try:
        with path.open("ab", buffering=0) as file:
            file.write(f"{line}\n".encode())
    except OSError as error:
        raise RunError(_explain(error, path)) from error


def read_result(directory: Path) -> dict[str, Any] | None:
    """result.json of a run directory, or None if the run is not finished.

    Raises:
        RunError: for a damaged file.
    """
    path = directory / "result.json"
    if not path.exists():
        return None
    result = read_json(path)
    if not isinstance(result, dict) or "key" not in result:
        raise RunError(f"{path} is no result of a run: delete it and run the same command again")
    return result


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ------------------------------------------------------------------------------------------------- environment


@cache
def code_fingerprint() -> str:
    """16 hexadecimal digits over the sources of the method and the engine, whatever the commit."""
    digest = hashlib.sha256()
    for path in sorted([*(ROOT / "lumix").rglob("*.py"), *(ROOT / "training").rglob("*.py")]):
        name = path.relative_to(ROOT).as_posix()
        if not name.startswith("lumix/integrations/"):
            digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _git(*arguments: str) -> str | None:
    try:
        answer = subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


@cache
def commit() -> dict[str, Any]:
    """{"commit", "dirty"} of the checkout this package lies in, None for both outside one.

    Results and reports are written by the pipeline itself, so only sources count as dirt.
    """
    head = _git("rev-parse", "HEAD")
    changes = _git("status", "--porcelain", "--", "*.py", "*.toml")
    return {"commit": head, "dirty": None if head is None else bool(changes)}


def _processor() -> str:
    """Name, family and model: a virtual machine gives processors that round differently the same name."""
    try:
        pairs = (line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line)
        found = {name.strip(): value.strip() for name, value in pairs}
        return f"{found['model name']} (family {found['cpu family']}, model {found['model']})"
    except (OSError, KeyError):
        return platform.processor() or platform.machine()


@cache
def hardware(device: str) -> dict[str, Any]:
    """What a number was made on; `device` is "cpu" or the name of the accelerator."""
    versions = {name: importlib.metadata.version(name) for name in ("torch", "timm", "torchvision")}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"device": device, "cpu": _processor(), "cores": cores, **versions, "python": platform.python_version()}


# ------------------------------------------------------------------------------------------------- lock


@contextmanager
def locked(directory: Path) -> Iterator[Path]:
    """Hold `directory` for this process; yields the lock file, which the holder touches from time to time.

    Raises:
        RunError: while another living process holds it.
    """
    path = directory / "lock"
    token = json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "born": _birth(os.getpid())})
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _remove_stale(path)
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        raise RunError(f"{directory} is in use by a process that has just begun: try again later") from None
    except OSError as error:
        raise RunError(_explain(error, path)) from error
    with os.fdopen(handle, "w") as file:
        file.write(token)
    try:
        yield path
    finally:
        # Where the folder has become read-only, this must not hide why the run failed; the lock is stale then.
        with suppress(OSError):
            path.unlink()


def _remove_stale(path: Path) -> None:
    """Remove the lock of a dead process; RunError if its owner lives."""
    try:
        text, age = path.read_text(), time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return
    try:
        owner = json.loads(text)
        host, pid, born = owner["host"], int(owner["pid"]), owner.get("born")
    except (ValueError, KeyError, TypeError):
        # Created but not yet written, or cut by a crash.
        host, pid, born = None, -1, None
    if host == socket.gethostname():
        alive = _birth(pid) is not None and _birth(pid) == born
    else:
        alive = age < (10 if host is None else LOCK_STALE_SECONDS)
    if alive:
        raise RunError(
            f"{path.parent} is in use by process {pid} on {host or 'an unknown host'}: wait for it, or end it and "
            f"run the same command again"
        )
    discard_stale_lock(path, text)


def discard_stale_lock(path: Path, text: str) -> None:
    """Remove a lock found to be stale, unless it is by now another's: of several processes one can rename it."""
    aside = path.with_name(f".lock.{os.getpid()}.{time.monotonic_ns()}")
    try:
        os.rename(path, aside)
    except FileNotFoundError:
        return
    except OSError as error:
        raise RunError(_explain(error, path)) from error
    if aside.read_text() == text:
        aside.unlink()
    else:
        os.rename(aside, path)


def _birth(pid: int) -> str | None:
    """When a process of this host started, None if there is none: tells a living owner from a reused pid."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        pass
    if Path("/proc/self/stat").exists():
        return None
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, ValueError, OverflowError):
        return None
    except PermissionError:
        pass
    return "alive"
