"""fit: train one run with one seed in one directory; the same call resumes it, or returns what is finished.

Killed at any instant and called again, it gives the weights of an uninterrupted run bit for bit on the same hardware
(on a GPU with Execution.deterministic): all randomness of an update derives from (seed, rank, update).
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from lumix.train import run_directory
from lumix.train.config import Execution, Run
from lumix.train.process import Process
from lumix.train.result import write_result
from lumix.train.run_directory import RunError
from lumix.train.training import Training, never


def fit(
    run: Run,
    seed: int,
    directory: Path,
    execution: Execution | None = None,
    stop: Callable[[], bool] = never,
) -> dict[str, Any]:
    """Train `run` with `seed` in `directory` and return the content of result.json.

    Under torch.distributed, call it on every process; rank 0 writes. `stop` is asked every few updates, for instance
    whether a signal has come; when it says yes on any process, a checkpoint is saved and `Stopped` raised on all.

    Raises:
        Stopped: as `stop` asked for; the same call goes on from there.
        RunError: one sentence on what is wrong and what to do; nothing already computed is lost.
    """
    execution = execution or Execution()
    process = Process.current(execution.device)
    with ExitStack() as stack, _settings(process.device, execution):
        process.agree(lambda: str(stack.enter_context(run_directory.locked(directory))))
        finished = process.agree(lambda: _open(run, seed, directory, process))
        if finished is not None:
            return finished
        training = Training.begin(run, seed, directory, execution, process, stop)
        training.resume()
        training.train()
        result = process.agree(lambda: write_result(training))
        training.progress.line(f"finished: top-1 {result['top1']['last']:.2f} in {result['seconds']:.1f} s")
        return result


@contextmanager
def _settings(device: torch.device, execution: Execution) -> Iterator[None]:
    """Determinism as asked for, and the caller's global random state as it was: dropout knows no generator."""
    before = torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.use_deterministic_algorithms(before or execution.deterministic)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before)


def _open(run: Run, seed: int, directory: Path, process: Process) -> dict[str, Any] | None:
    """Make `directory` ready for this run; its result if it is finished already."""
    config = directory / "config.json"
    if config.exists():
        found = run_directory.read_json(config)
        if (found.get("key"), found.get("seed")) != (run.key, seed):
            raise RunError(
                f"{directory} holds run {found.get('key')} seed {found.get('seed')}, not {run.key} seed {seed}: "
                f"choose another directory"
            )
    else:
        run_directory.write_json(config, {"key": run.key, "seed": seed, "run": run.to_dict()})
    result = run_directory.read_result(directory)
    if result is not None:
        return result
    environment = {
        **run_directory.commit(),
        "fingerprint": run_directory.code_fingerprint(),
        "hardware": run_directory.hardware(process.name()),
        "processes": process.world,
    }
    run_directory.write_json(directory / "environment.json", environment)
    return None
