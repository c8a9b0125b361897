"""The jobs of the runs: what was submitted (runs/.jobs), and what SLURM says of it (squeue by job name).

    runs/.jobs/lock                         held while jobs are submitted, so that no run is submitted twice
    runs/.jobs/<submission>/runs.txt        run directories; the line is the index in the job array
    runs/.jobs/<submission>/code, log       the snapshot of the code; the output of the jobs
    runs/.jobs/<submission>/ended/<index>.* why a start failed (<index>.<restart>.failed), or that it was cancelled

A submission is one array, whose job name is that of its folder. Nothing else is written down about a job, so nothing
can be out of date.
"""

import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from training.run_directory import RunError

ROOT = Path("runs", ".jobs")
MOST_FAILURES = 3  # starts of one job that may fail for reasons of their own; requeue.sh has the same number
SECONDS = 30  # a controller that is down lets every client hang for minutes
# squeue lists ended jobs for some minutes. All other states are taken for alive, also those on the way to a requeue
# (PREEMPTED, NODE_FAIL): that costs minutes, the opposite could train a run twice.
ENDED = {"COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE"}
WAITING = {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD"}


class SchedulerError(RunError):
    """SLURM gave no answer; one sentence with the remedy."""


@dataclass(frozen=True)
class Job:
    """One job of a submission as squeue shows it."""

    id: str
    state: str
    reason: str

    @property
    def alive(self) -> bool:
        return self.state not in ENDED

    @property
    def running(self) -> bool:
        return self.alive and self.state not in WAITING


@dataclass(frozen=True)
class Submitted:
    """The place of one run in a submission."""

    folder: Path
    index: int

    @property
    def failures(self) -> list[str]:
        """Why each failed start failed, the last one last."""
        paths = self.folder.glob(f"ended/{self.index}.*.failed")
        return [path.read_text().strip() for path in sorted(paths, key=lambda path: int(path.name.split(".")[1]))]

    def cancelled(self) -> Path:
        return self.folder / "ended" / f"{self.index}.cancelled"

    def why_ended(self, job: Job | None) -> str:
        """What became of a job that lives no more without finishing its run."""
        if self.cancelled().exists() or (job is not None and job.state == "CANCELLED"):
            return "cancelled"
        failures = self.failures
        if len(failures) >= MOST_FAILURES:
            return f"failed {len(failures)} times, the last time: {failures[-1]}"
        if failures:
            return f"failed: {failures[-1]}"
        return "lost: its job is gone" if job is None else f"lost: SLURM ended job {job.id} as {job.state}"


def job_name(folder: Path) -> str:
    """The name of the jobs of one submission, which no other one has."""
    return f"lumix-{folder.name}"


def submitted() -> dict[Path, Submitted]:
    """Run directory -> its last submission."""
    return {
        Path(directory): Submitted(path.parent, index)
        for path in sorted(ROOT.glob("*/runs.txt"))
        for index, directory in enumerate(path.read_text().splitlines())
    }


def call(*command: str) -> str:
    """What a command of SLURM prints; SchedulerError where it is not installed, does not answer, or refuses."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True).stdout
    except FileNotFoundError as error:
        raise SchedulerError(
            f"{command[0]} is not on the PATH: run this on a machine of the cluster, or use --cluster debug"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise SchedulerError(
            f"{command[0]} did not answer within {SECONDS} s: SLURM's controller seems to be down, try again later"
        ) from error
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip().splitlines() or ["no message"]
        raise SchedulerError(f"{command[0]} failed ({said[0]}): try again later") from error


def jobs_of(entries: Iterable[Submitted]) -> dict[Submitted, Job]:
    """The jobs that SLURM knows of some entries."""
    places = {(job_name(entry.folder), entry.index): entry for entry in entries}
    if not places:
        return {}
    names = ",".join(sorted({name for name, _ in places}))
    text = call("squeue", "--noheader", "--array", "--states=all", "--format=%i|%j|%T|%r", f"--name={names}")
    found = {}
    for line in text.splitlines():
        job, name, state, reason = line.strip().split("|", 3)
        place = (name, int(job.partition("_")[2] or 0))  # a submission of one run is no array
        if place in places:
            found[places[place]] = Job(job, state, "" if reason == "None" else reason)
    return found
