"""What SLURM says: states of jobs from squeue and, of ended ones, sacct; scancel. Every command has a time limit."""

import subprocess
from collections.abc import Collection
from dataclasses import dataclass

SECONDS = 30  # a controller that is down lets every client hang for minutes
# What a job passes through while SLURM still means to run it. squeue shows PREEMPTED and NODE_FAIL on the way to a
# requeue too; taking them for alive costs minutes, taking them for dead could train a run twice.
ALIVE = frozenset(
    {
        *("PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "STOPPED", "RESIZING", "SIGNALING"),
        *("STAGE_OUT", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD"),
        *("PREEMPTED", "NODE_FAIL"),
    }
)
RUNNING = frozenset({"RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT"})


class SchedulerError(RuntimeError):
    """SLURM gave no answer; one sentence with the remedy."""


@dataclass(frozen=True)
class JobState:
    """State of a job as SLURM names it. `listed`: squeue has it, so a state of `ALIVE` means alive."""

    state: str
    reason: str = ""
    listed: bool = True

    @property
    def alive(self) -> bool:
        return self.listed and self.state in ALIVE

    @property
    def running(self) -> bool:
        return self.listed and self.state in RUNNING


def call(*command: str, seconds: float = SECONDS) -> subprocess.CompletedProcess[str]:
    """Run a command of SLURM; its exit code is the caller's business.

    Raises:
        SchedulerError: where it is not installed or does not answer.
    """
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except FileNotFoundError as error:
        raise SchedulerError(
            f"{command[0]} is not on the PATH: run this on a machine of the cluster, or use --cluster debug"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise SchedulerError(
            f"{command[0]} did not answer within {seconds:.0f} s: SLURM's controller seems to be down, try again later"
        ) from error


def job_states(jobs: Collection[str], names: Collection[str] = ()) -> dict[str, JobState]:
    """Job id ("12", or "12_3" of an array) -> state, of the jobs that SLURM still knows; `names` are job names.

    Raises:
        SchedulerError: where squeue gives no answer. A missing sacct is no error: then ended jobs are unknown.
    """
    states: dict[str, JobState] = {}
    bases = sorted({job.split("_")[0] for job in jobs})
    if bases:
        states |= _squeue(f"--jobs={','.join(bases)}")
    if names:
        states |= _squeue(f"--name={','.join(sorted(names))}")
    missing = sorted({job.split("_")[0] for job in jobs if job not in states})
    if missing:
        states = {**_sacct(f"--jobs={','.join(missing)}"), **states}
    return states


def jobs_named(name: str) -> dict[str, JobState]:
    """The jobs of one name: how an array is found whose id was never written down."""
    found = _squeue(f"--name={name}")
    return {**_sacct(f"--name={name}"), **found}


def _squeue(which: str) -> dict[str, JobState]:
    answer = call("squeue", "--noheader", "--array", "--states=all", "--format=%i|%T|%r", which)
    if answer.returncode:
        if "Invalid job id" in answer.stderr:
            return {}
        raise SchedulerError(f"squeue failed ({_first_line(answer.stderr)}): try again later")
    return parse_squeue(answer.stdout)


def parse_squeue(text: str) -> dict[str, JobState]:
    """Lines of id|state|reason."""
    states = {}
    for line in text.splitlines():
        job, _, rest = line.strip().partition("|")
        state, _, reason = rest.partition("|")
        if job and state:
            states[job] = JobState(state, "" if reason == "None" else reason)
    return states


def _sacct(which: str) -> dict[str, JobState]:
    """Ended jobs, none where accounting is off or does not answer."""
    try:
        answer = call(
            "sacct",
            "--noheader",
            "--allocations",
            "--parsable2",
            "--starttime=now-90days",
            "--format=JobID,State",
            which,
        )
    except SchedulerError:
        return {}
    return {} if answer.returncode else parse_sacct(answer.stdout)


def parse_sacct(text: str) -> dict[str, JobState]:
    """Lines of id|state; "CANCELLED by 0" is CANCELLED, and 12_[3-5] are tasks that squeue lists one by one."""
    states = {}
    for line in text.splitlines():
        job, _, state = line.strip().partition("|")
        if job and state and "[" not in job:
            states[job] = JobState(state.split()[0].rstrip("+"), listed=False)
    return states


def cancel_jobs(jobs: Collection[str]) -> None:
    """scancel.

    Raises:
        SchedulerError: where SLURM refuses or gives no answer.
    """
    answer = call("scancel", *sorted(jobs))
    if answer.returncode:
        raise SchedulerError(f"scancel failed ({_first_line(answer.stderr)}): see python -m slurm status")


def _first_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[0] if lines else "no message"
