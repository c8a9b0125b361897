"""What SLURM runs: one run with one seed, on all tasks of a job. It trains, or goes on from the last checkpoint.

A signal only sets a flag: the engine saves a checkpoint at the next update and stops on every task. What follows, an
end or a requeue, is decided afterwards by the job's batch script (requeue.sh), also for tasks that were killed.
"""

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import chdir, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from submitit.helpers import Checkpointable, TorchDistributedEnvironment

from slurm.cluster import microbatch
from training import run_directory
from training.config import Execution, Run


@dataclass(frozen=True)
class RunJob(Checkpointable):
    """A picklable call: everything in it is text and numbers, and paths are absolute.

    Before this job has its own handlers, submitit's are there: at a signal they requeue the same call (Checkpointable).
    """

    folder: str  # of the submission
    index: int  # in its job array
    root: str  # the project's folder, where runs/ is
    scale: str
    directory: str
    run: dict[str, Any]
    seed: int
    execution: dict[str, Any]
    images_per_gpu: int = 0
    fresh_code: bool = False  # what other code left in the directory is thrown away first

    def __call__(self) -> dict[str, Any]:
        """Train the run and make its evaluations, on every task. Exits with 0 after a signal, once all is saved."""
        rank = int(os.environ.get("SLURM_PROCID", 0))
        with _signals() as caught:
            try:
                if rank == 0:
                    Path(self.directory).mkdir(parents=True, exist_ok=True)
                    job = os.environ.get("SLURM_JOB_ID", "debug")
                    place = f"{socket.gethostname()}, process {os.getpid()}"
                    self._log(f"start {_restart() + 1} of job {job} on {place}{self._why()}")
                result = self._train(caught, int(os.environ.get("SLURM_NTASKS", 1)))
                if rank == 0:
                    self._evaluate()
            except run_directory.Stopped:
                if rank == 0:
                    self._log(f"stopped by {caught[0] if caught else 'a signal to another task'}")
                raise SystemExit(0) from None
            except Exception as error:
                self._failed((f"task {rank}: " if rank else "") + _one_line(error))
                raise
        return result

    def _why(self) -> str:
        """Why the start before this one ended, where that was a failure."""
        path = self._ended(_restart() - 1)
        return f", after it {path.read_text().strip()}" if path.exists() else ""

    def _log(self, text: str) -> None:
        run_directory.append_line(Path(self.directory, "log.txt"), f"{text}, {time.strftime('%Y-%m-%d %H:%M:%S')}")

    def _failed(self, reason: str) -> None:
        """Write the reason down, unless another task was first; where that fails requeue.sh writes one of its own."""
        with suppress(OSError), self._ended(_restart()).open("x") as file:
            file.write(f"{reason}\n")
            with Path(self.directory, "log.txt").open("a") as log:
                log.write(f"failed: {reason}\n")

    def _ended(self, restart: int) -> Path:
        return Path(self.folder, "ended", f"{self.index}.{restart}.failed")

    def _train(self, caught: list[str], tasks: int) -> dict[str, Any]:
        run, directory = Run.from_dict(self.run), Path(self.directory)
        execution = Execution(**self.execution).replace(microbatch=microbatch(run, tasks, self.images_per_gpu))
        with _distributed(execution.device, tasks) as rank:
            import torch

            from experiments.pool import discard_older
            from training.loop import fit

            if self.fresh_code and rank == 0:
                discard_older(directory)
            if execution.device == "cpu":
                torch.set_num_threads(1)  # as the local launcher does: another number sums in another order
            return fit(run, self.seed, directory, execution, stop=lambda: bool(caught))

    def _evaluate(self) -> None:
        """Make the evaluations that tables ask of this run, as far as the other runs that they need are finished.

        One that fails is noted in the run's log and left to `python -m experiments run`: the training stands.
        """
        from experiments.pool import work
        from experiments.runs import ready_with
        from experiments.scale import get_scale

        with chdir(self.root):
            for item in ready_with(get_scale(self.scale), Run.from_dict(self.run), self.seed):
                try:
                    work(item, Execution(**self.execution), self.fresh_code)
                except Exception as error:  # a GPU's memory, a missing package: each is the evaluation's alone
                    self._log(f"{item.evaluation.key} failed: {_one_line(error)}")


def _restart() -> int:
    return int(os.environ.get("SLURM_RESTART_COUNT", 0))


@contextmanager
def _signals() -> Iterator[list[str]]:
    """Note the names of SIGUSR2 and SIGTERM instead of dying of them; processes that load data inherit that."""
    caught: list[str] = []
    numbers = (signal.SIGUSR2, signal.SIGTERM)
    before = [signal.signal(number, lambda n, _: caught.append(signal.Signals(n).name)) for number in numbers]
    try:
        yield caught
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


@contextmanager
def _distributed(device: str, tasks: int) -> Iterator[int]:
    """torch.distributed over the tasks of the job, each with a GPU of its own; yields the rank."""
    if tasks == 1:
        yield 0
        return
    place = TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
    if device == "cuda":  # before torch looks: each process sees its own GPU as cuda:0
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        gpus = visible.split(",") if visible else [str(number) for number in range(place.local_world_size)]
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[place.local_rank % len(gpus)]
    import torch.distributed as dist

    dist.init_process_group("nccl" if device == "cuda" else "gloo", timeout=timedelta(minutes=30))
    try:
        yield place.rank
    except run_directory.Stopped:
        dist.destroy_process_group()
        raise
    dist.destroy_process_group()  # not after an error: the others may be gone, and nobody should wait for them


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or "no message"
    return text if isinstance(error, run_directory.RunError) else f"{type(error).__name__}: {text}"
