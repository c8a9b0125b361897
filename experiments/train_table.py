"""Trains and evaluates what a table misses on this machine, longest runs first, with a line or a bar for each job."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager

from experiments.evaluations import EvaluationItem
from experiments.pool import Answer, Interrupted, Job, run_pool, usable_cores
from experiments.records import flat
from experiments.runs import Group, Item, grouped
from experiments.scale import Scale

STACKED_GAIN = 2.0  # about so many times faster is a network in an ensemble than alone, for the order of jobs


def train_items(
    scale: Scale, items: Sequence[Item], evaluations: Sequence[EvaluationItem] = (), seeds: int | None = None
) -> list[Answer]:
    """Train the items, together where they can be, make the evaluations, and return the answers that are failures.

    Raises:
        Interrupted: at Ctrl-C or SIGTERM, after the workers were stopped; the message says how many are left.
    """
    jobs = grouped(scale, items, seeds)
    jobs.sort(key=lambda job: -scale.hours(job.run) * (len(job.items) if isinstance(job, Group) else STACKED_GAIN))
    ordered: list[Job] = [*jobs, *evaluations]
    total = len(items) + len(evaluations)
    processes = min(scale.processes or usable_cores(), max(1, len(ordered)))
    expected = sum(scale.hours(item.run) for item in items) / processes
    print(f"{total} jobs on {processes} processes; training takes about {_duration(expected)}", file=sys.stderr)
    failed: list[Answer] = []
    done = 0
    answers = run_pool(ordered, scale.execution, processes, scale.retrain_on_code_change)
    with _lines(total) as write, closing(answers):
        try:
            for answer in answers:
                done += 1
                write(f"[{done}/{total}] {answer.item.name}  {_outcome(answer)}")
                if answer.result is None:
                    failed.append(answer)
        except Interrupted as stop:
            write(f"interrupted: {done} of {total} jobs are finished, the same command goes on from there")
            raise stop
    return failed


def _duration(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 1 else f"{max(1, round(60 * hours))} min"


def _outcome(answer: Answer) -> str:
    if answer.result is None:
        return f"failed: {answer.error}"
    result = flat(answer.result)
    if isinstance(answer.item, EvaluationItem):
        return f"{result['images_per_second']:.0f} images/s  {result['seconds']:.1f} s"
    return f"top-1 {result['top1']['last']:.2f}  {result['seconds']:.1f} s"


@contextmanager
def _lines(total: int) -> Iterator[Callable[[str], None]]:
    """A function that writes a line: below a bar on a terminal, plainly elsewhere."""
    if not sys.stderr.isatty():
        start = time.monotonic()
        yield lambda text: print(f"{time.monotonic() - start:6.0f} s  {text}", file=sys.stderr, flush=True)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, transient=True) as progress:
        task = progress.add_task("runs", total=total)

        def write(text: str) -> None:
            progress.console.print(text, markup=False, highlight=False)
            progress.advance(task)

        yield write
