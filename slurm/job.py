"""What SLURM runs: one run with one seed, on all tasks of a job. It trains, or goes on from the last checkpoint.

A signal only sets a flag: the engine saves a checkpoint at the next update and stops on every task. What follows, an
end or a requeue, is decided afterwards by the job's batch script (slurm/after.py), also for jobs that died.
"""

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from slurm import ledger
from slurm.layout import microbatch
from training import run_directory
from training.config import Execution, Run

SIGNALS = (signal.SIGUSR2, signal.SIGTERM)
ENDED = {ledger.STOPPED: "stopped", ledger.FAILED: "failed", ledger.KILLED: "was killed", ledger.LEFT: "was ended"}
WHY = {
    "SIGUSR2": "SIGUSR2: the time limit is near, or a job of higher priority needs the nodes",
    "SIGTERM": "SIGTERM: cancelled, requeued by an administrator, or preempted",
}


@dataclass
class Caught:
    """The signal that came, if one did."""

    name: str = ""

    def __bool__(self) -> bool:
        return bool(self.name)


@dataclass(frozen=True)
class Job:
    """A picklable call: everything in it is text and numbers, and paths are absolute."""

    entry: str
    directory: str
    run: dict[str, Any]
    seed: int
    execution: dict[str, Any]
    images_per_gpu: int = 0
    fresh_code: bool = False  # what other code left in the directory is thrown away first
    scale: str = ""  # with it, the evaluations that tables ask of the run are part of the job
    root: str = ""  # the project's folder, where runs/ is

    def __call__(self) -> dict[str, Any]:
        """Train the run; called by submitit on every task.

        Raises:
            SystemExit: with code 0 after a signal, once the checkpoint is saved.
        """
        with _signals() as caught:
            try:
                if _rank() == 0:
                    self._announce()
                result = self._train(caught)
            except run_directory.Stopped:
                if _rank() == 0:
                    self._end(ledger.STOPPED, WHY[caught.name] if caught else "another task was asked to stop")
                raise SystemExit(0) from None
            except Exception as error:
                self._end(ledger.FAILED, ("" if _rank() == 0 else f"task {_rank()}: ") + _one_line(error))
                raise
            if _rank() == 0:
                self._evaluate()
                ledger.end_attempt(Path(self.entry), ledger.FINISHED, "")
            return result

    def checkpoint(self) -> Any:
        """The same call again: submitit asks for it where a signal comes before this job has its own handlers."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def _announce(self) -> None:
        """Enter this attempt in the job book and in the run's log."""
        directory = Path(self.directory)
        restart = int(os.environ.get("SLURM_RESTART_COUNT", 0))
        job = job_id()
        attempt = ledger.begin_attempt(Path(self.entry), job, restart, socket.gethostname(), os.getpid())
        entry = ledger.read_entry(Path(self.entry))
        before = entry.attempts[-2] if entry is not None and len(entry.attempts) > 1 else None
        why = f" after attempt {before.number} {ENDED.get(before.outcome, 'ended')} ({before.reason})" if before else ""
        try:
            directory.mkdir(parents=True, exist_ok=True)
            with (directory / "log.txt").open("a") as file:
                file.write(f"attempt {attempt.number} of job {job} on {attempt.host}{why}\n")
        except OSError as error:
            raise run_directory.RunError(
                f"{directory} cannot be written ({error.strerror}): mend that, then python -m slurm submit --resume"
            ) from error

    def _train(self, caught: Caught) -> dict[str, Any]:
        run, directory = Run.from_dict(self.run), Path(self.directory)
        tasks = _tasks()
        execution = Execution(**self.execution).replace(microbatch=microbatch(run, tasks, self.images_per_gpu))
        if self.fresh_code and _rank() == 0:
            from experiments.pool import discard_older

            discard_older(directory)
        with _distributed(execution.device, tasks):
            import torch

            from training.loop import fit

            if execution.device == "cpu":
                torch.set_num_threads(1)  # as the local launcher does: another number sums in another order
            return fit(run, self.seed, directory, execution, stop=lambda: bool(caught))

    def _evaluate(self) -> None:
        """Make the evaluations that tables ask of this run, as far as the other runs that they need are finished.

        One that fails is noted in the run's log and left to `python -m experiments run`: the training stands.
        """
        if not self.scale:
            return
        from experiments.evaluations import ready_with
        from experiments.pool import work
        from experiments.scale import get_scale

        with chdir(self.root):
            for item in ready_with(get_scale(self.scale), Run.from_dict(self.run), self.seed):
                try:
                    work(item, Execution(**self.execution), self.fresh_code)
                except (run_directory.RunError, ValueError, OSError) as error:
                    with (Path(self.directory) / "log.txt").open("a") as file:
                        file.write(f"{item.evaluation.key} failed: {_one_line(error)}\n")

    def _end(self, outcome: str, reason: str) -> None:
        """Write down the outcome; where even that fails, slurm/after.py draws its conclusion from the exit code."""
        try:
            ledger.end_attempt(Path(self.entry), outcome, reason)
            if outcome == ledger.FAILED:
                with (Path(self.directory) / "log.txt").open("a") as file:
                    file.write(f"failed: {reason}\n")
        except (OSError, run_directory.RunError) as error:
            print(f"the job book cannot be written: {error}", flush=True)


def job_id() -> str:
    """The id of this job as squeue shows it; "debug" outside SLURM."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array else os.environ.get("SLURM_JOB_ID", "debug")


def _rank() -> int:
    return int(os.environ.get("SLURM_PROCID", 0))


def _tasks() -> int:
    """Tasks of the step this process belongs to; 1 outside one, as under the debug executor."""
    return int(os.environ.get("SLURM_NTASKS", 1)) if "SLURM_PROCID" in os.environ else 1


@contextmanager
def _signals() -> Iterator[Caught]:
    """Note SIGUSR2 and SIGTERM instead of dying of them."""
    caught = Caught()

    def note(number: int, _frame: object) -> None:
        caught.name = caught.name or signal.Signals(number).name

    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    before = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _distributed(device: str, tasks: int) -> Iterator[None]:
    """torch.distributed over the tasks of the job, each with a GPU of its own."""
    if tasks == 1:
        yield
        return
    from submitit.helpers import TorchDistributedEnvironment

    place = TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
    if device == "cuda":  # before torch looks: each process sees its own GPU as cuda:0
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        gpus = visible.split(",") if visible else [str(number) for number in range(place.local_world_size)]
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[place.local_rank % len(gpus)]
    import torch.distributed as dist

    dist.init_process_group("nccl" if device == "cuda" else "gloo", timeout=timedelta(minutes=30))
    stopped = True
    try:
        yield
    except run_directory.Stopped:
        raise
    except BaseException:
        stopped = False  # the others may be gone: leave them alone and end
        raise
    finally:
        if stopped:
            dist.destroy_process_group()


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or "no message"
    return text if isinstance(error, run_directory.RunError) else f"{type(error).__name__}: {text}"
