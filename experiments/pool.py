"""A pool of processes that train and evaluate runs side by side, one torch thread and one start of Python for each.

An evaluation waits until the runs that it needs are trained. Each place has an executor of one process, so a process
that dies (out of memory, a crash in native code) breaks its own job alone: the executor is replaced and the job tried
once more, from its checkpoint. Processes end when the call ends, also when this process is killed outright.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from experiments.runs import EvaluationItem, Group, Item
from training import run_directory
from training.config import Execution
from training.processor import can_be_pinned, pinned_arithmetic, quicker_malloc

TRIES = 2  # of a job whose process dies
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


def work(job: Job, execution: Execution, fresh_code: bool) -> dict[str, Any]:
    """Train or evaluate in this process; with `fresh_code` what other code left there is thrown away first.

    Gives what is recorded; of a group {"answers": a (result, error) for each member}.
    """
    import torch

    torch.set_num_threads(1)
    if isinstance(job, EvaluationItem):
        from evaluation.evaluation import evaluate
        from training.process import Process

        device = Process.current(execution.device).device  # says so where there is no such device
        return evaluate(job.item.directory, job.evaluation, device, job.others, fresh_code=fresh_code)
    for item in job.items if fresh_code else ():
        discard_older(item.directory)
    if isinstance(job, Item):
        from training.loop import fit

        return fit(job.run, job.seed, job.directory, execution)
    from training.ensemble import fit_many

    runs, seeds, directories = zip(*((item.run, item.seed, item.directory) for item in job.filled), strict=True)
    found = fit_many(runs, seeds, directories, execution)[: len(job.items)]
    return {"answers": [(r, "") if isinstance(r, dict) else (None, _one_line(r)) for r in found]}


def discard_older(directory: Path) -> None:
    """Empty a run directory that other code of `lumix` wrote, finished or not."""
    source = directory / "result.json"
    if not source.exists():
        source = directory / "environment.json"
    if not source.exists() or run_directory.read_json(source).get("fingerprint") == run_directory.code_fingerprint():
        return
    discard(directory)


def discard(directory: Path) -> None:
    """Empty a run directory, unless a process is at work there."""
    with run_directory.locked(directory) as lock:
        # result.json goes first: a run directory without it is unfinished, whatever else is left of it.
        (directory / "result.json").unlink(missing_ok=True)
        for path in sorted(directory.rglob("*"), reverse=True):
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            elif path != lock:
                path.unlink()


class _Place:
    """A place for one process at a time, which ends when `end` is closed: by `close`, or by the end of this process."""

    def __init__(self) -> None:
        theirs, self.end = CONTEXT.Pipe(duplex=False)
        self.executor = ProcessPoolExecutor(1, CONTEXT, _begin, (theirs,))

    def close(self) -> None:
        self.end.close()
        self.executor.shutdown(cancel_futures=True)


def _begin(end: Connection) -> None:
    """Prepare a process of the pool: Ctrl-C reaches the whole group, and the parent decides."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(end,), daemon=True).start()


def _end_with(end: Connection) -> None:
    end.poll(None)  # returns when the other end is closed
    os._exit(1)


def _answer(work: Work, job: Job, execution: Execution, fresh_code: bool) -> tuple[dict[str, Any] | None, str]:
    try:
        return work(job, execution, fresh_code), ""
    except Exception as error:  # one run's failure must not end the others
        return None, _one_line(error)


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or "no message"
    return text if isinstance(error, (run_directory.RunError, ValueError)) else f"{type(error).__name__}: {text}"


def run_pool(
    jobs: Sequence[Job], execution: Execution, processes: int, fresh_code: bool = False, work: Work = work
) -> Generator[Answer]:
    """Do all jobs, the first ones first; yields an answer as each one ends."""
    asked = [item for job in jobs for item in ((job.item,) if isinstance(job, EvaluationItem) else job.items)]
    pinned = execution.device == "cpu" and can_be_pinned(item.run.precision for item in asked)
    variables = {**dict.fromkeys(THREAD_VARIABLES, "1"), **(pinned_arithmetic() if pinned else {}), **quicker_malloc()}
    os.environ.update(variables)  # read when a library loads, hence before a process starts
    waiting = [(job, 1) for job in jobs]  # with the number of the try
    unfinished = {item.directory for job in jobs for item in job.items}
    idle = [_Place() for _ in range(min(max(1, processes), len(jobs)))]
    busy: dict[Future[tuple[dict[str, Any] | None, str]], tuple[_Place, Job, int]] = {}
    with _signals():
        try:
            while waiting or busy:
                while idle and (found := next((one for one in waiting if not one[0].needs & unfinished), None)):
                    place = idle.pop()
                    try:
                        busy[place.executor.submit(_answer, work, found[0], execution, fresh_code)] = place, *found
                        waiting.remove(found)
                    except BrokenProcessPool:  # it died while it had nothing to do
                        place.close()
                        idle.append(_Place())
                for future in wait(busy, return_when=FIRST_COMPLETED).done:
                    place, job, tries = busy.pop(future)
                    try:
                        result, error = future.result()
                        idle.append(place)
                    except BrokenProcessPool:
                        place.close()
                        idle.append(_Place())
                        if tries < TRIES:
                            waiting.insert(0, (job, tries + 1))
                            continue
                        result, error = None, f"its process died {TRIES} times, of which the usual cause is no memory"
                    for answer in _answers(job, result, error):
                        yield answer
                        if isinstance(answer.item, Item):
                            unfinished.discard(answer.item.directory)
                            if answer.result is None:
                                yield from _lost(answer.item, waiting)
        finally:
            for place in (*idle, *(place for place, _, _ in busy.values())):
                place.close()


def _answers(job: Job, result: dict[str, Any] | None, error: str) -> list[Answer]:
    """One for each training or evaluation of a job."""
    if isinstance(job, Group):
        each = [(None, error)] * len(job.items) if result is None else result["answers"]
        return [Answer(item, *answer) for item, answer in zip(job.items, each, strict=True)]
    return [Answer(job, result, error)]


def _lost(failed: Item, waiting: list[tuple[Job, int]]) -> list[Answer]:
    """Answers for the evaluations that cannot be made without a training; they wait no more."""
    lost = [job for job, _ in waiting if isinstance(job, EvaluationItem) and failed.directory in job.needs]
    waiting[:] = [one for one in waiting if one[0] not in lost]
    return [Answer(job, None, f"it needs {failed.name}, whose training failed") for job in lost]


@contextmanager
def _signals() -> Iterator[None]:
    """While the pool works, SIGINT and SIGTERM are `Interrupted`, and a pipe that breaks ends nothing."""

    def interrupt(number: int, frame: object) -> None:
        for each in (signal.SIGINT, signal.SIGTERM):  # once is enough: a second one must not cut the stopping short
            signal.signal(each, signal.SIG_IGN)
        raise Interrupted(number)

    handlers: dict[int, Any] = {signal.SIGINT: interrupt, signal.SIGTERM: interrupt, signal.SIGPIPE: signal.SIG_IGN}
    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, handler) for number, handler in handlers.items() if main}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
