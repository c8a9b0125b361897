"""A pool of processes that train runs side by side, one torch thread each and one start of Python per worker.

Each worker has a pipe of its own, so a worker that dies (out of memory, a crash in native code) costs the one run it
was at, and is replaced. Workers end when the call ends, however it ends: also when this process is killed outright.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from experiments.runs import Item
from lumix.train import record
from lumix.train.config import Execution

STOP_SECONDS = 5.0  # grace of a worker before it is killed
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
CONTEXT = multiprocessing.get_context("spawn")  # fork would copy locks and threads of whatever the parent has loaded

Train = Callable[[Item, Execution, bool], dict[str, Any]]


class Interrupted(BaseException):
    """The user or the scheduler asked to stop; `code` is the exit code by convention, 128 + signal."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.code = 128 + number


@dataclass(frozen=True)
class Answer:
    """What became of one item: its result, or one line on what went wrong."""

    item: Item
    result: dict[str, Any] | None
    error: str = ""


def usable_cores() -> int:
    """CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def train(item: Item, execution: Execution, fresh_code: bool) -> dict[str, Any]:
    """Train one item in this process; with `fresh_code` what other code left there is thrown away first."""
    import torch

    from lumix.train.loop import fit

    torch.set_num_threads(1)
    if fresh_code:
        discard_older(item.directory)
    return fit(item.run, item.seed, item.directory, execution)


def discard_older(directory: Path) -> None:
    """Empty a run directory that other code of `lumix` wrote, finished or not, unless a process is at work there."""
    source = directory / "result.json"
    if not source.exists():
        source = directory / "environment.json"
    if not source.exists() or record.read_json(source).get("fingerprint") == record.code_fingerprint():
        return
    with record.locked(directory) as lock:
        # result.json goes first: a run directory without it is unfinished, whatever else is left of it.
        (directory / "result.json").unlink(missing_ok=True)
        for path in sorted(directory.rglob("*"), reverse=True):
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            elif path != lock:
                path.unlink()


@dataclass
class _Worker:
    process: Any
    pipe: Connection
    item: Item | None = None


def run_pool(
    items: Sequence[Item],
    execution: Execution,
    processes: int,
    fresh_code: bool = False,
    train: Train = train,
) -> Generator[Answer]:
    """Train all items, the first ones first; yields an answer as each one ends.

    Raises:
        Interrupted: at Ctrl-C or SIGTERM, after the workers were stopped.
    """
    waiting = list(reversed(items))
    workers: list[_Worker] = []
    with _signals():
        try:
            while waiting or workers:
                while waiting and len(workers) < max(1, processes):
                    workers.append(_start(train, execution, fresh_code))
                    _hand(workers[-1], waiting)
                ready = wait([worker.pipe for worker in workers])
                for worker in [worker for worker in workers if worker.pipe in ready]:
                    item, answer = worker.item, _receive(worker)
                    if answer is None:
                        workers.remove(worker)
                        answer = (None, f"its process died ({_cause(worker)})")
                    elif not _hand(worker, waiting):
                        workers.remove(worker)
                        worker.process.join()
                    assert item is not None
                    yield Answer(item, *answer)
        finally:
            _stop(workers)


@contextmanager
def _signals() -> Iterator[None]:
    """Turn SIGINT and SIGTERM into `Interrupted` while the pool works."""

    def interrupt(number: int, frame: object) -> None:
        for each in (signal.SIGINT, signal.SIGTERM):  # once is enough: a second one must not cut the stopping short
            signal.signal(each, signal.SIG_IGN)
        raise Interrupted(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _start(train: Train, execution: Execution, fresh_code: bool) -> _Worker:
    ours, theirs = CONTEXT.Pipe()
    process = CONTEXT.Process(target=_work, args=(theirs, train, execution, fresh_code))
    process.start()
    theirs.close()
    return _Worker(process, ours)


def _hand(worker: _Worker, waiting: list[Item]) -> bool:
    """Give the worker its next item; without one, tell it to end and return False."""
    worker.item = waiting.pop() if waiting else None
    worker.pipe.send(worker.item)
    return worker.item is not None


def _receive(worker: _Worker) -> tuple[dict[str, Any] | None, str] | None:
    try:
        answer: tuple[dict[str, Any] | None, str] = worker.pipe.recv()
    except (EOFError, OSError):
        return None
    return answer


def _cause(worker: _Worker) -> str:
    worker.process.join()
    code = worker.process.exitcode
    if code is not None and code < 0:
        return f"{signal.Signals(-code).name}, the usual cause of SIGKILL is too little memory"
    return f"exit code {code}"


def _stop(workers: list[_Worker]) -> None:
    for worker in workers:
        worker.process.terminate()
    for worker in workers:
        worker.process.join(STOP_SECONDS)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()


def _work(pipe: Connection, train: Train, execution: Execution, fresh_code: bool) -> None:
    """A worker's life: take an item, train it, answer, until None comes."""
    for variable in THREAD_VARIABLES:  # read when the libraries load, hence before torch is imported
        os.environ[variable] = "1"
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    threading.Thread(target=_die_with_parent, daemon=True).start()
    while (item := pipe.recv()) is not None:
        try:
            pipe.send((train(item, execution, fresh_code), ""))
        except Exception as error:  # one run's failure must not end the others
            pipe.send((None, _one_line(error)))


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or "no message"
    return text if isinstance(error, (record.RunError, ValueError)) else f"{type(error).__name__}: {text}"
