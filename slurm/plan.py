"""The plan of a submission: which runs, in which layout, at what price; made and printed before anything is done."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.registry import owners
from experiments.runs import OLDER, Item, is_open, state
from experiments.scale import Scale
from experiments.terminal import grid
from slurm import ledger
from slurm.cluster import Cluster
from slurm.disk import checkpoint_bytes, readable, weight_bytes
from slurm.layout import Layout, layout_of, microbatch
from slurm.scheduler import JobState, job_states, jobs_named

SHOWN = 20  # lines of the plan
FAILURES = ("FAILED", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE", "TIMEOUT")


@dataclass(frozen=True)
class Plan:
    """What will be submitted, and what will not for which reason."""

    scale: Scale
    cluster: Cluster
    items: tuple[Item, ...]  # longest first
    finished: int
    skipped: tuple[tuple[Item, str], ...]

    @property
    def layouts(self) -> dict[Layout, list[Item]]:
        """The items by what one of them takes of the cluster: the jobs of an array are all alike."""
        alike: dict[Layout, list[Item]] = {}
        for item in self.items:
            alike.setdefault(layout_of(self.cluster, self.scale, item.run), []).append(item)
        return alike

    @property
    def gpu_hours(self) -> float:
        return sum(self.scale.gpu_hours(item.run) for item in self.items)


def entry_of(root: Path, scale: Scale, item: Item) -> ledger.Entry | None:
    return ledger.read_entry(ledger.entry_path(root, scale.name, item.run.key, item.seed))


def states_of(entries: Sequence[ledger.Entry]) -> dict[str, JobState]:
    """States of the jobs of some entries; an entry whose submission was cut short learns its job by name.

    Raises:
        SchedulerError: where SLURM gives no answer.
    """
    real = [entry for entry in entries if entry.executor == "slurm"]
    for name in {job_name(entry.submission) for entry in real if not entry.job}:
        found = jobs_named(name)
        for entry in real:
            if not entry.job and job_name(entry.submission) == name:
                entry.job = _by_index(found, entry.index)
    jobs = [entry.job for entry in real if entry.job]
    return job_states(jobs) if jobs else {}


def _by_index(found: dict[str, JobState], index: int) -> str:
    """The job of that place in an array; a submission of one run is no array."""
    for job in found:
        if job.partition("_")[2] == str(index) or ("_" not in job and index == 0):
            return job
    return ""


def job_name(submission: str) -> str:
    """The name of the jobs of one submission, which no other one has."""
    return f"lumix-{Path(submission).name}"


def make_plan(
    scale: Scale,
    items: Sequence[Item],
    cluster: Cluster,
    root: Path,
    resume: bool,
    ask: Callable[[Sequence[ledger.Entry]], dict[str, JobState]] = states_of,
) -> Plan:
    """Decide for every item; `ask` tells the states of jobs.

    Raises:
        ValueError: where scale and cluster do not fit.
        RunError: where a batch does not divide over the cluster's tasks.
        SchedulerError: where SLURM cannot say which jobs live: then nothing may be submitted.
    """
    missing = [item for item in {item.directory: item for item in items}.values() if is_open(scale, item)]
    found = {item.directory: entry_of(root, scale, item) for item in missing}
    entries = {directory: entry for directory, entry in found.items() if entry is not None}
    states = ask(list(entries.values())) if entries else {}
    chosen, skipped = [], []
    for item in missing:
        why = _why_not(item, entries.get(item.directory), states, resume)
        if why:
            skipped.append((item, why))
        else:
            microbatch(item.run, layout_of(cluster, scale, item.run).tasks, cluster.images_per_gpu)
            chosen.append(item)
    chosen.sort(key=lambda item: -scale.hours(item.run))
    done = len({item.directory for item in items}) - len(missing)
    return Plan(scale, cluster, tuple(chosen), done, tuple(skipped))


def _why_not(item: Item, entry: ledger.Entry | None, states: dict[str, JobState], resume: bool) -> str:
    """Why an open item is not submitted; empty if it is."""
    if entry is None:
        return ""
    found = states.get(entry.job)
    if found is not None and found.alive:
        return f"{'running' if found.running else 'queued'} as job {entry.job}"
    if resume or entry.ended == ledger.FINISHED or state(item) == OLDER:
        return ""
    return f"{why_ended(entry, found)}: --resume submits it again"


def why_ended(entry: ledger.Entry, found: JobState | None) -> str:
    """What became of a job that lives no more without finishing its run."""
    if entry.ended:
        return entry.ended
    last = entry.attempts[-1] if entry.attempts else None
    if found is not None and found.state == "CANCELLED":
        return "cancelled"
    if last is not None and last.outcome in (ledger.FAILED, ledger.KILLED):
        return f"failed: {last.reason}"
    if found is not None and found.state in FAILURES:
        return f"failed: {last_error(entry) or f'SLURM says {found.state}'}"
    if found is not None and found.state != "COMPLETED":
        return f"lost: SLURM ended job {entry.job} as {found.state}"
    return f"lost: job {entry.job or 'of ' + job_name(entry.submission)} is gone"


def last_error(entry: ledger.Entry) -> str:
    """The last line that names an error in the output of a job, for one that could not write it into the book."""
    lines = []
    for path in sorted(Path(entry.submission, "log").glob(f"{entry.job}_*_log.err")):
        try:
            lines += [line.strip() for line in path.read_text(errors="replace").splitlines() if line.strip()]
        except OSError:
            continue
    named = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)]
    return (named or lines or [""])[-1]


def plan_text(plan: Plan) -> str:
    """The plan for people."""
    scale, cluster = plan.scale, plan.cluster
    lines = [f"scale {scale.name}, cluster {cluster.name}: {cluster.description or cluster.partition}"]
    if plan.items:
        lines += ["", _runs(plan), ""]
    for item, why in plan.skipped:
        lines.append(f"not submitted: {item.name} is {why}")
    runs = len({item.run.key for item in plan.items})
    lines += [
        f"runs:      {len(plan.items)} to submit ({runs} configurations), {len(plan.skipped)} left alone, "
        f"{plan.finished} finished",
        *(_jobs(cluster, layout, len(items)) for layout, items in plan.layouts.items()),
        *_money(plan),
        _disk(plan),
    ]
    return "\n".join(lines)


def _jobs(cluster: Cluster, layout: Layout, number: int) -> str:
    gpus = f" and {_count(layout.gpus_per_node, 'GPU')}" if layout.gpus_per_node else ""
    return (
        f"jobs:      {number}, at most {cluster.max_parallel_jobs} at a time, {_count(layout.nodes, 'node')} with "
        f"{_count(layout.tasks_per_node, 'task')}{gpus} each, up to {cluster.time_limit_minutes} minutes an attempt, "
        "requeued until done"
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number > 1 else ''}"


def _runs(plan: Plan) -> str:
    owner, unit = owners(plan.scale), "GPU-hours" if plan.scale.gpus else "CPU-hours"
    lines = []
    for item in plan.items[:SHOWN]:
        tasks = layout_of(plan.cluster, plan.scale, item.run).tasks
        size = microbatch(item.run, tasks, plan.cluster.images_per_gpu)
        share = item.run.batch_size // tasks
        hours = f"{plan.scale.hours(item.run):.3g}"
        batch = f"{tasks} x {share // size} x {size}"
        lines.append([item.run.key, str(item.seed), owner[item.run.key], hours, batch])
    text = grid(["run", "seed", "table", unit, "tasks x parts x images"], lines)
    more = len(plan.items) - SHOWN
    return f"{text}\n... and {more} more" if more > 0 else text


def _money(plan: Plan) -> list[str]:
    scale, cluster = plan.scale, plan.cluster
    hours = sum(scale.hours(item.run) for item in plan.items)
    if not scale.gpus:
        return [f"CPU-hours: {hours:.2f} (estimate)"]
    text = f"GPU-hours: {hours:.0f} (estimate for an A100; budget up to twice as much)"
    price = cluster.dollars_per_gpu_hour
    if not price:
        return [text, "price:     not known: put dollars_per_gpu_hour into the cluster's file"]
    return [text, f"price:     {hours * price:.0f} dollars at {price:.2f} per GPU-hour"]


def _disk(plan: Plan) -> str:
    if not plan.items:
        return "disk:      nothing more"
    final = [weight_bytes(plan.scale, item.run) for item in plan.items]
    living = sorted((checkpoint_bytes(plan.scale, item.run) or 0 for item in plan.items), reverse=True)
    if None in final:
        return "disk:      not known before the first run of a model at this scale"
    # While one checkpoint replaces another both are on the disk.
    peak = 2 * sum(living[: plan.cluster.max_parallel_jobs])
    weights = sum(size for size in final if size is not None)
    return f"disk:      {readable(peak)} of checkpoints while running, {readable(weights)} of final weights for good"


def refuse_without_scheduler(entries: Sequence[ledger.Entry]) -> dict[str, JobState]:
    """For --dry-run away from the cluster: what the job book says, taken for alive where it shows no end."""
    return {entry.job: JobState("PENDING", "SLURM was not asked") for entry in entries if entry.job and not entry.ended}
