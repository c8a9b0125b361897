"""Makes tables: trains and evaluates on this machine what they miss, longest runs first, collects and prints them."""

import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing

from experiments import evaluations
from experiments.evaluations import EvaluationItem
from experiments.pool import Answer, Interrupted, Job, run_pool, usable_cores
from experiments.results import collect, flat
from experiments.runs import Group, Item, activity, grouped, is_open, items_of_table, state
from experiments.scale import Scale
from experiments.table import Table
from experiments.terminal import results_table

FAILURE, NOT_READY = 1, 75  # 75 is EX_TEMPFAIL: come back later
STACKED_GAIN = 2.0  # about so many times faster is a network in an ensemble than alone, for the order of jobs


def make(
    scale: Scale, tables: Sequence[Table], rows: list[str] | None, seeds: int | None, launcher: str, dry_run: bool
) -> int:
    """Train, evaluate, collect and print; with the slurm launcher collect only, or say what is not finished.

    A run that several tables show is trained once. Returns the exit code.
    """
    runs = {item.directory: item for table in tables for item in items_of_table(scale, table, rows, seeds)}
    missing = [item for item in runs.values() if is_open(scale, item)]
    stale = {item.directory for item in missing}
    asked = {one.place: one for table in tables for one in evaluations.evaluation_items(scale, table, rows, seeds)}
    unmade = [one for one in asked.values() if one.needs & stale or is_open(scale, one)]
    if dry_run:
        _print_plan(scale, len(runs), missing, len(asked), unmade, seeds)
        return 0
    name = " ".join(table.id for table in tables) if len(tables) < 4 else "all"
    if launcher == "slurm" and (missing or (unmade and "SLURM_JOB_ID" not in os.environ)):  # a job may evaluate
        words = ", ".join(f"{count} {word}" for word, count in sorted(Counter(map(activity, missing)).items()))
        text = f"{len(missing)} of {len(runs)} runs of {name} are not finished ({words}): "
        text += f"python -m slurm submit {name} --cluster a100"
        if not missing:
            text = f"{len(unmade)} evaluations of {name} are not made: srun --gpus 1 python -m experiments run {name}"
        print(text.removesuffix(" all"), file=sys.stderr)
        return NOT_READY
    start = time.monotonic()
    try:
        failed = train(scale, missing, unmade, seeds) if missing or unmade else []
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


def _print_plan(
    scale: Scale, runs: int, missing: Sequence[Item], asked: int, unmade: Sequence[EvaluationItem], seeds: int | None
) -> None:
    """What would be done of so many runs and evaluations: which trainings together, which alone and why."""
    jobs = grouped(scale, missing, seeds)
    groups = [job for job in jobs if isinstance(job, Group)]
    for job in jobs:
        if isinstance(job, Group):
            print(f"an ensemble of {len(job.items)} seeds of {job.run.key}:")
        for item in job.missing if isinstance(job, Group) else (job,):
            alone = "" if isinstance(job, Group) else f"  alone: {scale.alone(item.run) or 'it has one seed'}"
            print(f"{item.directory}  {state(item)}{alone}")
    for one in unmade:
        print(one.place)
    how = f", as {len(groups)} ensembles and {len(jobs) - len(groups)} alone" if groups else ""
    print(f"{len(missing)} of {runs} runs would be trained{how}")
    if asked:
        print(f"{len(unmade)} of {asked} evaluations would be made")


def train(
    scale: Scale, items: Sequence[Item], asked: Sequence[EvaluationItem] = (), seeds: int | None = None
) -> list[Answer]:
    """Train the items, together where they can be, make the evaluations, and return the answers that are failures."""
    jobs = grouped(scale, items, seeds)
    jobs.sort(key=lambda job: -scale.hours(job.run) * (len(job.items) if isinstance(job, Group) else STACKED_GAIN))
    ordered: list[Job] = [*jobs, *asked]
    total, start = len(items) + len(asked), time.monotonic()
    processes = min(scale.processes or usable_cores(), len(ordered))
    hours = sum(scale.hours(item.run) for item in items) / processes
    expected = f"{hours:.1f} h" if hours >= 1 else f"{max(1, round(60 * hours))} min"

    def say(text: str) -> None:
        print(f"{time.monotonic() - start:6.0f} s  {text}", file=sys.stderr, flush=True)

    say(f"{total} jobs on {processes} processes; training takes about {expected}")
    failed: list[Answer] = []
    done = 0
    with closing(run_pool(ordered, scale.execution, processes, scale.retrain_on_code_change)) as answers:
        try:
            for answer in answers:
                done += 1
                say(f"[{done}/{total}] {answer.item.name}  {_outcome(answer)}")
                if answer.result is None:
                    failed.append(answer)
        except Interrupted:
            say(f"interrupted: {done} of {total} jobs are finished, the same command goes on from there")
            raise
    return failed


def _outcome(answer: Answer) -> str:
    if answer.result is None:
        return f"failed: {answer.error}"
    result = flat(answer.result)
    if isinstance(answer.item, EvaluationItem):
        return f"{result['images_per_second']:.0f} images/s  {result['seconds']:.1f} s"
    return f"top-1 {result['top1']['last']:.2f}  {result['seconds']:.1f} s"
