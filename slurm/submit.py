"""Submission: snapshot, job arrays through submitit, and the job book, under the book's lock."""

import math
import shlex
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.registry import owners
from experiments.runs import Item
from experiments.scale import Scale
from slurm import ledger
from slurm.cluster import Cluster
from slurm.job import Job
from slurm.layout import Layout, execution_of
from slurm.plan import Plan, job_name, make_plan, plan_text, refuse_without_scheduler
from slurm.scheduler import SchedulerError, call, jobs_named
from slurm.snapshot import take_snapshot
from training import run_directory

MOST_IN_ARRAY = 1000  # SLURM's own default limit, MaxArraySize, is 1001
# More than any run needs: submitit would count every early signal of a short time limit as a time-out.
MOST_TIMEOUTS = 100000

# Runs when the tasks have ended. scontrol belongs to the host, python perhaps to a container, so the shell asks SLURM
# and python judges. The traps in SETUP let this shell outlive the signals meant for the tasks.
TEARDOWN = """code=$?
state=$(timeout 60 scontrol show job --oneliner "$SLURM_JOB_ID" | grep --only-matching --max-count=1 'JobState=[A-Z_]*')
{python} -m slurm.after {submission} "$code" "${{state#JobState=}}"
if [ $? -eq 75 ]; then
  for pause in 0 5 15 30 60 60; do
    sleep "$pause"
    timeout 60 scontrol requeue "$SLURM_JOB_ID" && exit 0
  done
  echo "could not be requeued: python -m slurm submit --resume" >&2
fi
exit "$code\""""


def submit(
    scale: Scale,
    items: Sequence[Item],
    cluster: Cluster,
    dry_run: bool = False,
    resume: bool = False,
    root: Path = ledger.ROOT,
) -> Plan:
    """Print the plan and, without `dry_run`, submit it; the runs of the debug executor are trained at once.

    Raises:
        RunError, SchedulerError: one sentence; nothing was submitted.
        ValueError: where scale and cluster do not fit.
    """
    if dry_run:
        plan = _dry_plan(scale, items, cluster, resume, root)
        print(plan_text(plan) + "\nnothing was submitted: this was a dry run")
        return plan
    with ledger.book_locked(root):
        plan = make_plan(scale, items, cluster, root, resume)
        print(plan_text(plan), flush=True)
        if not plan.items:
            print("nothing to submit")
            return plan
        if cluster.executor == "slurm":
            _check_controller()
        for layout, items in plan.layouts.items():
            for start in range(0, len(items), MOST_IN_ARRAY):
                batch = items[start : start + MOST_IN_ARRAY]
                folder = _prepare(plan, batch, root)
                if cluster.executor == "slurm":
                    _launch(plan, layout, batch, folder, root)
    if cluster.executor == "debug":
        _train_here(plan, root)
    return plan


def _dry_plan(scale: Scale, items: Sequence[Item], cluster: Cluster, resume: bool, root: Path) -> Plan:
    try:
        return make_plan(scale, items, cluster, root, resume)
    except SchedulerError as error:
        print(f"{error}; runs with an entry in {root} are taken for queued", file=sys.stderr)
        return make_plan(scale, items, cluster, root, resume, ask=refuse_without_scheduler)


def _prepare(plan: Plan, items: Sequence[Item], root: Path) -> Path:
    """Snapshot and entries, before sbatch: a submission that is cut short can then be found by its jobs' name."""
    name = time.strftime("%Y%m%d-%H%M%S-") + uuid.uuid4().hex[:6]
    folder = root.resolve() / "submissions" / name
    if plan.cluster.executor == "slurm":
        try:
            take_snapshot(Path.cwd(), folder / "code")
        except OSError as error:
            raise run_directory.RunError(f"the code cannot be copied to {folder}: {error.strerror or error}") from error
    paths = [_entry_path(plan.scale, item, root).resolve() for item in items]
    run_directory.write_json(folder / "entries.json", [str(path) for path in paths])
    owner = owners(plan.scale)
    for index, (item, path) in enumerate(zip(items, paths, strict=True)):
        entry = ledger.Entry(
            scale=plan.scale.name,
            table=owner[item.run.key],
            key=item.run.key,
            seed=item.seed,
            directory=str(item.directory),
            submission=str(folder),
            index=index,
            cluster=plan.cluster.name,
            executor=plan.cluster.executor,
            submitted=time.time(),
            job="debug" if plan.cluster.executor == "debug" else "",
        )
        ledger.write_entry(path, entry)
    return folder


def _entry_path(scale: Scale, item: Item, root: Path) -> Path:
    return ledger.entry_path(root, scale.name, item.run.key, item.seed)


def _job(plan: Plan, item: Item, root: Path) -> Job:
    return Job(
        entry=str(_entry_path(plan.scale, item, root).resolve()),
        directory=str(item.directory.resolve()),
        run=item.run.to_dict(),
        seed=item.seed,
        execution=execution_of(plan.cluster, plan.scale).to_dict(),
        images_per_gpu=plan.cluster.images_per_gpu,
        fresh_code=plan.scale.retrain_on_code_change,
        scale=plan.scale.name,
        root=str(root.resolve()),
    )


def _launch(plan: Plan, layout: Layout, items: Sequence[Item], folder: Path, root: Path) -> None:
    """One job array; its ids go into the book."""
    import submitit

    python = _python(plan.cluster)
    executor = submitit.SlurmExecutor(folder=folder / "log", max_num_timeout=MOST_TIMEOUTS, python=python)
    executor.update_parameters(**parameters(plan.cluster, layout, folder, python))
    try:
        with executor.batch():
            jobs = [executor.submit(_job(plan, item, root)) for item in items]
    except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError, OSError) as error:
        _forget(plan, items, folder, root)
        reason = _last_line(error)
        raise SchedulerError(
            f"sbatch refused the jobs ({reason}): mend the file of cluster {plan.cluster.name}"
        ) from error
    for item, job in zip(items, jobs, strict=True):
        _note_job(_entry_path(plan.scale, item, root), str(job.job_id))
    print(f"submitted: job {str(jobs[0].job_id).split('_')[0]}, logs and code in {_shown(folder)}")


def _check_controller() -> None:
    """sbatch through submitit has no time limit of its own, so ask first whether the controller answers."""
    call("sbatch", "--version")
    answer = call("sinfo", "--noheader")
    if answer.returncode:
        raise SchedulerError(f"SLURM's controller does not answer ({answer.stderr.strip()}): try again later")


def _forget(plan: Plan, items: Sequence[Item], folder: Path, root: Path) -> None:
    """Remove the entries of a refused submission, unless SLURM took it all the same or cannot say."""
    try:
        if jobs_named(job_name(str(folder))):
            return
    except SchedulerError:
        return
    for item in items:
        _entry_path(plan.scale, item, root).unlink(missing_ok=True)


def _note_job(path: Path, job: str) -> None:
    """Write the id down, unless the job has started already and did so itself."""
    entry = ledger.read_entry(path)
    if entry is not None and not entry.job:
        entry.job = job
        ledger.write_entry(path, entry)


def parameters(cluster: Cluster, layout: Layout, folder: Path, python: str) -> dict[str, Any]:
    """What submitit is to ask SLURM for."""
    threads = [f"export {name}_NUM_THREADS=1" for name in ("OMP", "MKL", "OPENBLAS")] if layout.device == "cpu" else []
    setup = [
        "trap : USR2 TERM",
        *(f"module load {shlex.quote(name)}" for name in cluster.modules),
        *cluster.setup,
        *threads,
        # The snapshot comes first; without PYTHONSAFEPATH the current folder would, with code as it is edited now.
        f"export PYTHONPATH={shlex.quote(str(folder / 'code'))} PYTHONSAFEPATH=1",
    ]
    teardown = TEARDOWN.format(python=python, submission=shlex.quote(str(folder)))
    wanted = {
        "job_name": job_name(str(folder)),
        "time": cluster.time_limit_minutes,
        "nodes": layout.nodes,
        "ntasks_per_node": layout.tasks_per_node,
        "cpus_per_task": cluster.cpus_per_task,
        "signal_delay_s": cluster.signal_delay_seconds,
        "array_parallelism": cluster.max_parallel_jobs,
        "setup": setup,
        "teardown": teardown.splitlines(),
        "srun_args": ["--kill-on-bad-exit=1"],
        "additional_parameters": {"requeue": True},
    }
    optional = {
        "partition": cluster.partition,
        "account": cluster.account,
        "qos": cluster.qos,
        "constraint": cluster.constraint,
        "gpus_per_node": layout.gpus_per_node,
        "mem": f"{_memory(cluster, layout)}GB" if cluster.memory_gb else "",
    }
    return wanted | {name: value for name, value in optional.items() if value}


def _memory(cluster: Cluster, layout: Layout) -> int:
    """GB of a node: the share of the GPUs that a job takes, so that others fit beside it."""
    share = layout.gpus_per_node / cluster.gpus_per_node if layout.gpus_per_node else 1.0
    return math.ceil(cluster.memory_gb * share)


def _python(cluster: Cluster) -> str:
    return f"{cluster.container} {cluster.python or shlex.quote(sys.executable)}".strip()


def _train_here(plan: Plan, root: Path) -> None:
    """submitit's debug executor: one run after another in this process.

    Raises:
        RunError: with the number of runs that failed.
    """
    import submitit

    executor = submitit.DebugExecutor(folder=root.resolve() / "debug")
    failed = 0
    for number, item in enumerate(plan.items, 1):
        error = executor.submit(_job(plan, item, root)).exception()
        failed += error is not None
        print(f"[{number}/{len(plan.items)}] {item.name}  {'finished' if error is None else f'failed: {error}'}")
    if failed:
        raise run_directory.RunError(f"{failed} of {len(plan.items)} runs failed, see the lines above")


def _last_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__


def _shown(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
