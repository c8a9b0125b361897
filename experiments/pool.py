"""A pool of processes that train and evaluate runs side by side, one torch thread and one start of Python per worker.

An evaluation waits until the runs that it needs are trained. Each worker has a pipe of its own, so a worker that dies
(out of memory, a crash in native code) costs the one job it was at, and is replaced. Workers end when the call ends,
however it ends: also when this process is killed outright.
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

from experiments.evaluations import EvaluationItem
from experiments.runs import Group, Item
from training import run_directory
from training.config import Execution

STOP_SECONDS = 5.0  # grace of a worker before it is killed
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
CONTEXT = multiprocessing.get_context("spawn")  # fork would copy locks and threads of whatever the parent has loaded

Job = Item | Group | EvaluationItem
Work = Callable[[Job, Execution, bool], dict[str, Any]]


class Interrupted(BaseException):
    """The user or the scheduler asked to stop; `code` is the exit code by convention, 128 + signal."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.code = 128 + number


@dataclass(frozen=True)
class Answer:
    """What became of one training or evaluation: its result, or one line on what went wrong."""

    item: Item | EvaluationItem
    result: dict[str, Any] | None
    error: str = ""


def usable_cores() -> int:
    """CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def work(item: Job, execution: Execution, fresh_code: bool) -> dict[str, Any]:
    """Train or evaluate in this process; with `fresh_code` what other code left there is thrown away first.

    Gives what is recorded; of a group {"answers": a (result, error) for each missing member}.
    """
    import torch

    torch.set_num_threads(1)
    if isinstance(item, EvaluationItem):
        from evaluation.evaluation import evaluate
        from training.process import Process

        device = Process.current(execution.device).device  # says so where there is no such device
        return evaluate(item.item.directory, item.evaluation, device, item.others, item.cache, fresh_code)
    for each in item.items if isinstance(item, Group) else (item,):
        if fresh_code:
            discard_older(each.directory)
    if isinstance(item, Group):
        from training.ensemble import fit_many

        members = item.items
        found = fit_many(
            [one.run for one in members], [one.seed for one in members], [one.directory for one in members], execution
        )
        wanted = [result for each, result in zip(item.items, found, strict=True) if each in item.missing]
        return {"answers": [(r, "") if isinstance(r, dict) else (None, _one_line(r)) for r in wanted]}
    from training.loop import fit

    return fit(item.run, item.seed, item.directory, execution)


def discard_older(directory: Path) -> None:
    """Empty a run directory that other code of `lumix` wrote, finished or not, unless a process is at work there."""
    source = directory / "result.json"
    if not source.exists():
        source = directory / "environment.json"
    if not source.exists() or run_directory.read_json(source).get("fingerprint") == run_directory.code_fingerprint():
        return
    with run_directory.locked(directory) as lock:
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
    item: Job | None = None  # None: idle


class _Queue:
    """Jobs in order; an evaluation stays until the trainings among them that it needs have ended."""

    def __init__(self, items: Sequence[Job]) -> None:
        self.waiting = list(items)
        self.unfinished = {one.directory for item in items for one in trainings(item)}
        self.failed: set[Path] = set()

    def take(self) -> Job | None:
        """The first job that can start now."""
        for place, item in enumerate(self.waiting):
            if not item.needs & self.unfinished:
                return self.waiting.pop(place)
        return None

    def end(self, item: Item | EvaluationItem, failed: bool) -> list[Answer]:
        """Take note of a job that ended; answers for those that cannot be done without it."""
        if not isinstance(item, Item):
            return []
        self.unfinished.discard(item.directory)
        if not failed:
            return []
        lost = [one for one in self.waiting if item.directory in one.needs and isinstance(one, EvaluationItem)]
        self.waiting = [other for other in self.waiting if item.directory not in other.needs]
        return [Answer(other, None, f"it needs {item.name}, whose training failed") for other in lost]


def trainings(job: Job) -> tuple[Item, ...]:
    """The trainings that a job answers for."""
    return job.missing if isinstance(job, Group) else (job,) if isinstance(job, Item) else ()


def _answers(job: Job, result: dict[str, Any] | None, error: str) -> list[Answer]:
    """One for each training or evaluation of a job."""
    if isinstance(job, Group):
        each = [(None, error)] * len(job.missing) if result is None else result["answers"]
        return [Answer(item, *answer) for item, answer in zip(job.missing, each, strict=True)]
    return [Answer(job, result, error)]


def run_pool(
    items: Sequence[Job],
    execution: Execution,
    processes: int,
    fresh_code: bool = False,
    work: Work = work,
) -> Generator[Answer]:
    """Do all jobs, the first ones first; yields an answer as each one ends.

    Raises:
        Interrupted: at Ctrl-C or SIGTERM, after the workers were stopped.
    """
    queue = _Queue(items)
    workers: list[_Worker] = []
    with _signals():
        try:
            while queue.waiting or workers:
                _employ(workers, queue, processes, lambda: _start(work, execution, fresh_code))
                busy = [worker for worker in workers if worker.item is not None]
                ready = wait([worker.pipe for worker in busy]) if busy else []  # waiting for nothing would never end
                for worker in [worker for worker in busy if worker.pipe in ready]:
                    item, answer = worker.item, _receive(worker)
                    worker.item = None
                    if answer is None:
                        workers.remove(worker)
                        answer = (None, f"its process died ({_cause(worker)})")
                    assert item is not None
                    for one in _answers(item, *answer):
                        lost = queue.end(one.item, failed=one.result is None)
                        yield one
                        yield from lost
        finally:
            _stop(workers)


def _employ(workers: list[_Worker], queue: _Queue, processes: int, start: Callable[[], _Worker]) -> None:
    """Give every idle worker a job, start workers while there are jobs, and dismiss those that none waits for."""
    idle = [worker for worker in workers if worker.item is None]
    while (item := queue.take() if idle or len(workers) < max(1, processes) else None) is not None:
        worker = idle.pop() if idle else start()
        if worker not in workers:
            workers.append(worker)
        worker.item = item
        worker.pipe.send(item)
    if not queue.waiting:
        for worker in idle:
            workers.remove(worker)
            worker.pipe.send(None)
            worker.process.join()


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


def _start(work: Work, execution: Execution, fresh_code: bool) -> _Worker:
    ours, theirs = CONTEXT.Pipe()
    process = CONTEXT.Process(target=_work, args=(theirs, work, execution, fresh_code))
    process.start()
    theirs.close()
    return _Worker(process, ours)


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


def _work(pipe: Connection, work: Work, execution: Execution, fresh_code: bool) -> None:
    """A worker's life: take a job, do it, answer, until None comes."""
    for variable in THREAD_VARIABLES:  # read when the libraries load, hence before torch is imported
        os.environ[variable] = "1"
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    threading.Thread(target=_die_with_parent, daemon=True).start()
    while (item := pipe.recv()) is not None:
        try:
            pipe.send((work(item, execution, fresh_code), ""))
        except Exception as error:  # one run's failure must not end the others
            pipe.send((None, _one_line(error)))


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or "no message"
    return text if isinstance(error, (run_directory.RunError, ValueError)) else f"{type(error).__name__}: {text}"
