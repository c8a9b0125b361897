"""Submission: the plan, the snapshot of the code, and job arrays through submitit."""

import math
import shlex
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import submitit
from filelock import FileLock, Timeout
from submitit.helpers import RsyncSnapshot, clean_env

from experiments.registry import owners
from experiments.runs import OLDER, Item, is_open, state
from experiments.scale import Scale
from experiments.terminal import grid
from slurm.cluster import Cluster, Layout, layout_of, microbatch
from slurm.job import RunJob
from slurm.jobs import ROOT, SchedulerError, Submitted, call, job_name, jobs_of, submitted
from training.processor import PINS, can_be_pinned
from training.run_directory import RunError, write_text

SHOWN = 20  # lines of the plan
MOST_IN_ARRAY = 1000  # SLURM's own default limit, MaxArraySize, is 1001
LOCK_SECONDS = 120  # a submission of a thousand runs takes seconds
PACKAGES = ("lumix", "training", "evaluation", "experiments", "slurm")


@dataclass(frozen=True)
class Plan:
    """What will be submitted, and what will not for which reason."""

    scale: Scale
    cluster: Cluster
    arrays: dict[Layout, list[Item]]  # by what one run takes of the cluster: the jobs of an array are all alike
    skipped: list[tuple[Item, str]]
    finished: int

    @property
    def items(self) -> list[Item]:
        return [item for items in self.arrays.values() for item in items]


def make_plan(scale: Scale, items: Iterable[Item], cluster: Cluster, resume: bool) -> Plan:
    """Decide for every item; where SLURM cannot say which jobs live, that is a RunError: nothing may be submitted."""
    unique = {item.directory: item for item in items}
    missing = [item for item in unique.values() if is_open(scale, item)]
    known = submitted()
    jobs = jobs_of([known[item.directory] for item in missing if item.directory in known])
    arrays: dict[Layout, list[Item]] = {}
    skipped = []
    for item in sorted(missing, key=lambda item: -scale.hours(item.run)):
        entry = known.get(item.directory)
        job = jobs.get(entry) if entry else None
        if job is not None and job.alive:
            skipped.append((item, f"{'running' if job.running else 'queued'} as job {job.id}"))
        elif entry is not None and not resume and state(item) != OLDER:
            skipped.append((item, f"{entry.why_ended(job)}: --resume submits it again"))
        else:
            layout = layout_of(cluster, scale, item.run)
            microbatch(item.run, layout.tasks, cluster.images_per_gpu)
            arrays.setdefault(layout, []).append(item)
    return Plan(scale, cluster, arrays, skipped, len(unique) - len(missing))


def plan_text(plan: Plan) -> str:
    """The plan for people."""
    scale, cluster, items = plan.scale, plan.cluster, plan.items
    owner, unit = owners(scale), "GPU-hours" if scale.gpus else "CPU-hours"
    lines = [f"scale {scale.name}, cluster {cluster.name}: {cluster.description or cluster.partition}", ""]
    rows = []
    for item in items[:SHOWN]:
        tasks = layout_of(cluster, scale, item.run).tasks
        size = microbatch(item.run, tasks, cluster.images_per_gpu)
        parts = f"{tasks} x {item.run.batch_size // tasks // size} x {size}"
        rows.append([item.run.key, str(item.seed), owner[item.run.key], f"{scale.hours(item.run):.3g}", parts])
    if rows:
        lines += [grid(["run", "seed", "table", unit, "tasks x parts x images"], rows), ""]
    if len(items) > SHOWN:
        lines += [f"... and {len(items) - SHOWN} more", ""]
    lines += [f"not submitted: {item.name} is {why}" for item, why in plan.skipped]
    keys = {item.run.key for item in items}
    lines += [
        f"runs:      {len(items)} to submit ({len(keys)} configurations), {len(plan.skipped)} left alone, "
        f"{plan.finished} finished"
    ]
    if stacked := sum(scale.stack_of(item.run) > 1 for item in items):
        text = f"note:      {stacked} of them train alone here and in stacks by python -m experiments run"
        lines.append(f"{text}, which rounds otherwise: single results differ, and their record says which (stacked)")
    for layout, alike in plan.arrays.items():
        lines += [
            f"jobs:      {len(alike)}, at most {cluster.max_parallel_jobs} at a time, nodes: {layout.nodes}, tasks per "
            f"node: {layout.tasks_per_node}, GPUs per node: {layout.gpus_per_node}, up to {cluster.time_limit_minutes} "
            f"minutes a start, requeued until done"
        ]
    hours = sum(scale.hours(item.run) for item in items)
    price = f", {hours * (cluster.dollars_per_gpu_hour or scale.dollars_per_gpu_hour):.0f} dollars"
    return "\n".join([*lines, f"{unit}: {hours:.2f} (estimate)" + (price if scale.gpus else "")])


def submit(scale: Scale, items: Iterable[Item], cluster: Cluster, dry_run: bool = False, resume: bool = False) -> Plan:
    """Print the plan and, without `dry_run`, submit it; the runs of the debug executor are trained at once."""
    if dry_run:
        plan = make_plan(scale, items, cluster, resume)
        print(plan_text(plan) + "\nnothing was submitted: this was a dry run")
        return plan
    ROOT.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(ROOT / "lock", timeout=LOCK_SECONDS):
            plan = make_plan(scale, items, cluster, resume)
            print(plan_text(plan), flush=True)
            if not plan.arrays:
                print("nothing to submit")
            elif cluster.executor == "slurm":
                call("sinfo", "--noheader")  # submitit sets sbatch no time limit: does the controller answer?
                for layout, alike in plan.arrays.items():
                    for start in range(0, len(alike), MOST_IN_ARRAY):
                        _submit_array(plan, layout, alike[start : start + MOST_IN_ARRAY])
    except Timeout as error:
        raise RunError(f"{ROOT} is held by another submit for too long: end that one and try again") from error
    if cluster.executor == "debug":
        _train_here(plan)
    return plan


def _submit_array(plan: Plan, layout: Layout, items: Sequence[Item]) -> None:
    """One job array. What is needed to find it again is written before sbatch, so that it may be cut short anywhere."""
    folder = ROOT.resolve() / (time.strftime("%Y%m%d-%H%M%S-") + uuid.uuid4().hex[:6])
    take_snapshot(folder / "code")
    (folder / "ended").mkdir()
    write_text(folder / "runs.txt", "".join(f"{item.directory}\n" for item in items))
    cluster = plan.cluster
    python = f"{cluster.container} {cluster.python or shlex.quote(sys.executable)}".strip()
    try:
        executor = submitit.SlurmExecutor(folder=folder / "log", python=python)
        pinned = can_be_pinned(item.run.precision for item in items)
        executor.update_parameters(**parameters(cluster, layout, folder, pinned))
        with executor.batch():
            jobs = [executor.submit(_job(plan, item, folder, index)) for index, item in enumerate(items)]
    except (RuntimeError, OSError) as error:
        if not jobs_of([Submitted(folder, index) for index in range(len(items))]):
            shutil.rmtree(folder)  # sbatch did not take it
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise SchedulerError(
            f"sbatch refused the jobs ({said[-1]}): mend the file of cluster {cluster.name}"
        ) from error
    print(f"submitted: job {jobs[0].job_id.split('_')[0]}, logs and code in {ROOT / folder.name}")


def take_snapshot(target: Path) -> None:
    """Copy the code as it is now, with what is not committed, so that later edits reach no queued job.

    The copy is a clone, so a result names the commit of its submission.
    """
    others = ["git", "ls-files", "--others", "--exclude-standard", *PACKAGES]
    try:
        new = subprocess.run(others, capture_output=True, text=True, check=True).stdout.splitlines()
        with RsyncSnapshot(target, root_dir=Path.cwd(), include=new):
            pass
    except (RuntimeError, subprocess.SubprocessError, OSError) as error:
        shutil.rmtree(target.parent, ignore_errors=True)
        raise RunError(
            f"the code cannot be copied to {target} ({error}): this must be a git repository, rsync must be installed, "
            f"and files that you have deleted must be deleted in a commit too"
        ) from error


def _job(plan: Plan, item: Item, folder: Path, index: int) -> RunJob:
    return RunJob(
        folder=str(folder),
        index=index,
        root=str(Path.cwd()),
        scale=plan.scale.name,
        directory=str(item.directory.resolve()),
        run=item.run.to_dict(),
        seed=item.seed,
        execution=plan.cluster.execution(plan.scale).to_dict(),
        images_per_gpu=plan.cluster.images_per_gpu,
        fresh_code=plan.scale.retrain_on_code_change,
    )


def parameters(cluster: Cluster, layout: Layout, folder: Path, pinned: bool = False) -> dict[str, Any]:
    """What submitit is to ask SLURM for; on CPUs arithmetic may be `pinned` (training.processor)."""
    threads = "export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1"
    threads += "".join(f" {name}=${{{name}:-{value}}}" for name, value in PINS.items() if pinned)
    place = shlex.quote(str(folder))
    wanted = {
        "job_name": job_name(folder),
        "time": cluster.time_limit_minutes,
        "nodes": layout.nodes,
        "ntasks_per_node": layout.tasks_per_node,
        "cpus_per_task": cluster.cpus_per_task,
        "signal_delay_s": cluster.signal_delay_seconds,
        "array_parallelism": cluster.max_parallel_jobs,
        "setup": [
            "trap : USR2 TERM",  # this shell outlives the signals meant for its tasks
            *(f"module load {shlex.quote(name)}" for name in cluster.modules),
            *cluster.setup,
            *([threads] if layout.device == "cpu" else []),
            # The snapshot comes first; without PYTHONSAFEPATH the current folder would, with code as it is edited now.
            f"export PYTHONPATH={place}/code PYTHONSAFEPATH=1",
        ],
        "teardown": [
            f"code=$? root={shlex.quote(str(Path.cwd()))} folder={place} index=${{SLURM_ARRAY_TASK_ID:-0}}",
            'source "$folder/code/slurm/requeue.sh"',
        ],
        "srun_args": ["--kill-on-bad-exit=1"],
        "additional_parameters": {"requeue": True},
    }
    # Of the memory of a node the share of the GPUs that a job takes, so that others fit beside it.
    share = layout.gpus_per_node / cluster.gpus_per_node if layout.gpus_per_node else 1.0
    optional = {
        "partition": cluster.partition,
        "account": cluster.account,
        "qos": cluster.qos,
        "constraint": cluster.constraint,
        "gpus_per_node": layout.gpus_per_node,
        "mem": f"{math.ceil(cluster.memory_gb * share)}GB" if cluster.memory_gb else "",
    }
    return wanted | {name: value for name, value in optional.items() if value}


def _train_here(plan: Plan) -> None:
    """submitit's debug executor: one run after another in this process, also within an interactive job of SLURM."""
    failed = 0
    with clean_env(), TemporaryDirectory() as folder:
        Path(folder, "ended").mkdir()
        executor = submitit.DebugExecutor(folder)
        for number, item in enumerate(plan.items, 1):
            error = executor.submit(_job(plan, item, Path(folder), number)).exception()
            failed += error is not None
            print(f"[{number}/{len(plan.items)}] {item.name}  {'finished' if error is None else f'failed: {error}'}")
    if failed:
        raise RunError(f"{failed} of {len(plan.items)} runs failed, see the lines above")
