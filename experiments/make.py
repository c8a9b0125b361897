"""Makes tables: trains and evaluates on this machine what they miss, longest runs first, collects and prints them."""

import math
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing

from experiments.pool import Answer, Interrupted, run_pool, usable_cores
from experiments.results import collect
from experiments.runs import EvaluationItem, Item, activity, evaluation_items, grouped, is_open, items_of_table, state
from experiments.scale import Scale
from experiments.table import Table
from experiments.terminal import results_table

FAILURE, NOT_READY = 1, 75  # 75 is EX_TEMPFAIL: come back later
EVALUATED = 0.1  # of a training's time takes an evaluation, for the time left
EVERY = 30.0  # seconds between two lines of progress where they are kept, as in a file


def make(
    scale: Scale, tables: Sequence[Table], rows: list[str] | None, seeds: int | None, launcher: str, dry_run: bool
) -> int:
    """Train, evaluate, collect and print; with the slurm launcher collect only, or say what is not finished.

    A run that several tables show is trained once. Returns the exit code.
    """
    runs = {item.directory: item for table in tables for item in items_of_table(scale, table, rows, seeds)}
    missing = [item for item in runs.values() if is_open(scale, item)]
    stale = {item.directory for item in missing}
    asked = {one.place: one for table in tables for one in evaluation_items(scale, table, rows, seeds)}
    unmade = [one for one in asked.values() if one.needs & stale or is_open(scale, one)]
    if dry_run:
        _print_plan(scale, len(runs), missing, len(asked), unmade)
        return 0
    name = " ".join(table.id for table in tables) if len(tables) < 4 else "all"
    if launcher == "slurm" and (missing or (unmade and "SLURM_JOB_ID" not in os.environ)):  # a job may evaluate
        words = ", ".join(f"{count} {word}" for word, count in sorted(Counter(map(activity, missing)).items()))
        text = f"{len(missing)} of {len(runs)} runs of {name} are not finished ({words}): "
        options = (
            ("" if name == "all" else f"{name} ") + f"--scale {scale.name}" + (f" --seeds {seeds}" if seeds else "")
        )
        text += f"python -m slurm submit {options} --cluster a100"
        if not missing:
            text = (
                f"{len(unmade)} evaluations of {name} are not made: srun --gpus 1 python -m experiments run {options}"
            )
        print(text, file=sys.stderr)
        return NOT_READY
    start = time.monotonic()
    try:
        failed = train(scale, missing, unmade) if missing or unmade else []
    except Interrupted as stop:
        return stop.code
    for record in list(collect(scale, tables, seeds)):
        print(results_table(record), end="\n\n")
    untrained = sum(isinstance(answer.item, Item) for answer in failed)
    text = f"{len(missing) - untrained} runs trained, {len(runs) - len(missing)} found"
    if asked:
        made = len(unmade) - (len(failed) - untrained)
        text += f"; {made} evaluations made, {len(asked) - len(unmade)} found"
    print(f"{name}: {text}, {time.monotonic() - start:.1f} s; written: results/{scale.name} and measured/{scale.name}")
    if failed:
        print(f"{len(failed)} of {len(missing) + len(unmade)} jobs failed, see the lines above", file=sys.stderr)
    return FAILURE if failed else 0


def _print_plan(scale: Scale, runs: int, missing: Sequence[Item], asked: int, unmade: Sequence[EvaluationItem]) -> None:
    """What would be done of so many runs and evaluations, and which trainings together."""
    jobs = grouped(scale, missing)
    for job in jobs:
        if job.size > 1:
            print(f"a stack of {job.size} for {len(job.items)}:")
        for item in job.items:
            print(f"{item.directory}  {state(item)}")
    for one in unmade:
        print(one.place)
    stacks = sum(job.size > 1 for job in jobs)
    how = f", in {stacks} stacks and {len(jobs) - stacks} alone" if stacks else ""
    print(f"{len(missing)} of {runs} runs would be trained{how}")
    if asked:
        print(f"{len(unmade)} of {asked} evaluations would be made")


def train(scale: Scale, items: Sequence[Item], asked: Sequence[EvaluationItem] = ()) -> list[Answer]:
    """Train the items, together where they can be, make the evaluations, and return the answers that are failures."""
    jobs = grouped(scale, items)
    jobs.sort(key=lambda job: -scale.hours(job.run) * job.size)
    processes = min(scale.processes or usable_cores(), len(jobs) + len(asked))
    progress = Progress(scale, [*items, *asked], processes)
    failed: list[Answer] = []
    with closing(run_pool([*jobs, *asked], scale.execution, processes, scale.retrain_on_code_change)) as answers:
        try:
            for answer in answers:
                if answer.result is None:
                    failed.append(answer)
                    progress.say(f"{answer.item.name} failed: {answer.error}")
                progress.count(answer.item)
        except Interrupted:
            progress.say("interrupted: the same command goes on from there")
            raise
    return failed


class Progress:
    """A line on stderr with jobs done, all jobs and the time left, renewed in place on a terminal."""

    def __init__(self, scale: Scale, jobs: Sequence[Item | EvaluationItem], processes: int) -> None:
        self.scale, self.total, self.done, self.worked = scale, len(jobs), 0, 0.0
        self.work = sum(map(self._hours, jobs))
        self.start, self.shown, self.in_place = time.monotonic(), -math.inf, sys.stderr.isatty()
        self._show(self.work / processes, f" on {processes} processes")

    def _hours(self, job: Item | EvaluationItem) -> float:
        return self.scale.hours(job.run) if isinstance(job, Item) else EVALUATED * self.scale.hours(job.item.run)

    def count(self, job: Item | EvaluationItem) -> None:
        """A job has ended."""
        self.done, self.worked = self.done + 1, self.worked + self._hours(job)
        self._show((time.monotonic() - self.start) / 3600 * (self.work - self.worked) / self.worked)

    def _show(self, hours: float, more: str = "") -> None:
        left = f"{hours:.1f} h" if hours >= 1.95 else f"{60 * hours:.0f} min" if hours > 1 / 60 else "a minute"
        if self.in_place or self.done == self.total or time.monotonic() > self.shown + EVERY:
            self.shown = time.monotonic()
            self.say(f"{self.done} of {self.total} done{more}, about {left} left", stays=self.done == self.total)

    def say(self, text: str, stays: bool = True) -> None:
        """A line, which on a terminal the next one takes the place of unless it `stays`."""
        line = f"{time.monotonic() - self.start:6.0f} s  {text}"
        ends = "\n" if stays or not self.in_place else ""
        print(f"\r\x1b[K{line}" if self.in_place else line, end=ends, file=sys.stderr, flush=True)
