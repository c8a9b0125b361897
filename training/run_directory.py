"""What a run directory holds, how it is written and who may write it. Imports no torch.

    config.json         the resolved run, its seed and key          model.safetensors   final weights
    environment.json    commit, code fingerprint, versions          model.json          what they are of
    metrics.jsonl       one line per epoch                          result.json         the outcome; there when done
    checkpoint.pt       everything to resume                        log.txt             plain lines
    lock                who is at work; touched meanwhile           eval/               later evaluations
    learner.safetensors of AutoMix and other learners what they learned beside the network

Files are written to a temporary name and renamed, logs grow by whole lines: all are safe to read at any moment.
"""

import errno
import hashlib
import json
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

ROOT = Path(__file__).resolve().parents[1]


class RunError(RuntimeError):
    """A run cannot go on; the message is one sentence for the user, with the remedy."""


class Stopped(Exception):  # noqa: N818 - nothing is wrong
    """A run was asked to stop and has saved its checkpoint: the same call continues it."""


# ------------------------------------------------------------------------------------------------- files


def write_atomically(path: Path, write: Callable[[BinaryIO], Any], durable: bool = False) -> None:
    """Let `write` fill a temporary file beside `path`, then rename it: readers see the old file or the new one.

    What is `durable` is waited for until it is on the disk, so that it outlives a loss of power, too. Where it fails
    nothing is left over.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            write(file)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            with suppress(OSError):
                os.unlink(temporary)
        raise RunError(explain(error, path)) from error


def explain(error: OSError, path: Path | str) -> str:
    """A sentence for the user about a file that could not be written, with the remedy."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no space left on the disk while writing {path}: free some and run the same command to continue"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"no permission to write {path}: make its folder writable and run the same command to continue"
    return f"cannot write {path} ({error.strerror or error}): mend it and run the same command to continue"


def write_text(path: Path, text: str, durable: bool = False) -> None:
    write_atomically(path, lambda file: file.write(text.encode()), durable)


def write_json(path: Path, value: Any, durable: bool = False) -> None:
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n", durable)


def read_json(path: Path) -> Any:
    """The value in a JSON file."""
    try:
        return json.loads(path.read_text())
    except (ValueError, RecursionError, IsADirectoryError) as error:
        raise RunError(f"{path} is damaged ({error}): delete it and run the same command again") from error


def read_metrics(directory: Path) -> list[dict[str, Any]]:
    """The epochs recorded in metrics.jsonl, none if there is no such file. A line still being written is left out."""
    path = directory / "metrics.jsonl"
    if not path.exists():
        return []
    try:
        return [dict(json.loads(line)) for line in path.read_text().split("\n")[:-1]]
    except (ValueError, TypeError, RecursionError, IsADirectoryError) as error:
        raise RunError(f"{path} is damaged ({error}): delete its folder and run the same command again") from error


def write_metrics(directory: Path, epochs: list[dict[str, Any]]) -> None:
    """Replace metrics.jsonl."""
    write_text(directory / "metrics.jsonl", "".join(json.dumps(epoch, allow_nan=False) + "\n" for epoch in epochs))


def append_line(path: Path, line: str) -> None:
    """Add a line to a file, in one write."""
    try:
        with path.open("ab", buffering=0) as file:
            file.write(f"{line}\n".encode())
    except OSError as error:
        raise RunError(explain(error, path)) from error


def open_directory(
    directory: Path, key: str, seed: int, run: dict[str, Any], environment: Callable[[], dict[str, Any]]
) -> dict[str, Any] | None:
    """Make a directory ready for the run of that key (`run` as a dictionary) and seed; its result if it is finished.

    Call it while the directory is `locked`: what a killed process left of its temporary files is swept.
    """
    config = directory / "config.json"
    for left in directory.glob(".*.*"):
        with suppress(OSError):  # of somebody else's, a folder
            left.unlink()
    if config.exists():
        found = read_json(config)
        named = (found.get("key"), found.get("seed")) if isinstance(found, dict) else (None, None)
        if named != (key, seed):
            raise RunError(
                f"{directory} holds run {named[0]} seed {named[1]}, not {key} seed {seed}: choose another directory"
            )
    else:
        write_json(config, {"key": key, "seed": seed, "run": run})
    result = read_result(directory)
    if result is None:
        write_json(directory / "environment.json", {"fingerprint": code_fingerprint(), **environment()})
    return result


def read_result(directory: Path) -> dict[str, Any] | None:
    """result.json of a run directory, or None if the run is not finished."""
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


@cache
def code_fingerprint() -> str:
    """16 hexadecimal digits over the sources of the method and the engine, whatever the commit."""
    digest = hashlib.sha256()
    for path in sorted([*(ROOT / "lumix").rglob("*.py"), *(ROOT / "training").rglob("*.py")]):
        name = path.relative_to(ROOT).as_posix()
        if not name.startswith("lumix/integrations/"):
            digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


# ------------------------------------------------------------------------------------------------- lock


@contextmanager
def locked(directory: Path) -> Iterator[Path]:
    """Hold `directory` for this process; yields the lock file.

    The kernel holds the lock (flock) and frees it with the process, however that ends. The file stays, for a file that
    is removed under a waiting process lets two of them in. Whoever holds it touches it from time to time, which tells
    others that a run is alive; its time is set to 0 in the end.

    On a network file system flock has to reach the server: NFS does so unless mounted with `nolock` or `local_lock`,
    Lustre where mounted with `flock`. Where a file system has no flock the lock is refused rather than believed.
    """
    path = directory / "lock"
    lock = FileLock(path, timeout=0, fallback_to_soft=False)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        path.write_text(f"process {os.getpid()} on {socket.gethostname()}\n")
    except Timeout:
        owner = path.read_text(errors="replace").strip() or "a process that has just begun"
        raise RunError(
            f"{directory} is in use by {owner}: wait for it, or end it and run the same command again"
        ) from None
    except OSError as error:
        lock.release()
        raise RunError(explain(error, path)) from error
    try:
        yield path
    finally:
        # Where the folder has become read-only, this must not hide why the run failed.
        with suppress(OSError):
            os.utime(path, (0, 0))
        lock.release()
