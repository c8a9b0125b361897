"""fit: train one run with one seed in one directory; the same call resumes it, or returns what is finished.

Killed at any instant and called again, it gives the weights of an uninterrupted run bit for bit on the same hardware
(on a GPU with Execution.deterministic): all randomness of an update derives from (seed, rank, update).
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training import run_directory
from training.build import build_task
from training.checkpoint import load_checkpoint, save_checkpoint
from training.config import Execution, Run
from training.feed import build_feed
from training.optim import build_schedule, build_updater
from training.pretraining import initial_network
from training.process import Process
from training.result import write_result
from training.rng import step_generator, stream_seed
from training.run_directory import RunError, Stopped
from training.scores import Scores
from training.state import State
from training.statistics import Statistics
from training.task import Task

CHECK_EVERY = 20  # updates between looks at the loss; each look waits for the device
NEVER = 2**62  # larger than any update: all losses so far are finite


def fit(
    run: Run,
    seed: int,
    directory: Path,
    execution: Execution | None = None,
    stop: Callable[[], bool] = bool,  # never
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
    with ExitStack() as stack, settings(process.device, execution):
        process.agree(lambda: str(stack.enter_context(run_directory.locked(directory))))
        finished = process.agree(lambda: open_directory(run, seed, directory, process))
        if finished is not None:
            return finished
        training = Training(run, seed, directory, execution, process, stop)
        training.resume()
        training.train()
        return training.finish()


@contextmanager
def settings(device: torch.device, execution: Execution) -> Iterator[None]:
    """Determinism as asked for, and the caller's global random state as it was: dropout knows no generator."""
    before = torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.use_deterministic_algorithms(before or execution.deterministic)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before)


def open_directory(run: Run, seed: int, directory: Path, process: Process) -> dict[str, Any] | None:
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
    environment = {"fingerprint": run_directory.code_fingerprint(), **process.environment()}
    run_directory.write_json(directory / "environment.json", environment)
    return None


class Training:
    """A run under way in a directory: `state` is what changes, the rest stays as it begins."""

    def __init__(
        self,
        run: Run,
        seed: int,
        directory: Path,
        execution: Execution,
        process: Process,
        stop: Callable[[], bool] = bool,
    ) -> None:
        device = process.device
        self.run, self.seed, self.directory = run, seed, directory
        self.execution, self.process, self.stop = execution, process, stop
        self.feed = feed = build_feed(run, seed, process, execution)
        network = initial_network(run.model, feed.num_classes, feed.in_chans, run.data.image_size, seed)
        network = network.to(device)
        updates = run.epochs * feed.updates_per_epoch
        self.task: Task = build_task(run, network, feed.mean, feed.std, device, seed=seed, updates=updates)
        self.updater = build_updater(run, self.task)
        if process.distributed:
            self.task.prepare_distributed(device_ids=[device] if device.type == "cuda" else None)
        self.schedule = build_schedule(run.optim, self.updater.optimizer, run.epochs, feed.updates_per_epoch)
        self.state = State(run, seed, self.task, self.updater, Statistics(process))
        self.bad = torch.tensor(NEVER, device=device)  # the first update whose loss was not finite
        self.saved_at = time.monotonic()

    def resume(self) -> None:
        """Continue from the checkpoint in the directory, if there is one."""
        saved = self.process.agree(lambda: load_checkpoint(self.directory, self.run.key, self.seed))
        if saved is not None:
            self.state.restore(saved)
        self.rewrite_metrics()
        if saved is not None:
            self.log(f"resumed at update {self.state.update}")

    def rewrite_metrics(self) -> None:
        """Forget what was recorded after the checkpoint, for it is done again."""
        if self.process.rank == 0:
            run_directory.write_metrics(self.directory, self.state.metrics)

    def finish(self, stacked: int = 0) -> dict[str, Any]:
        """Write and return the result of what has been trained to the end, as one of so many `stacked` networks."""
        result: dict[str, Any] = self.process.agree(
            lambda: write_result(self.state, self.feed, self.process, self.directory, stacked)
        )
        self.log(f"finished: top-1 {result['top1']['last']:.2f} in {self.state.train_seconds:.1f} s")
        return result

    def log(self, text: str) -> None:
        """Add a line to log.txt."""
        if self.process.rank == 0:
            run_directory.append_line(self.directory / "log.txt", text)

    # --------------------------------------------------------------------------------------------- training

    def train(self) -> None:
        """Train to the last epoch from wherever this run is."""
        for epoch in range(self.state.update // self.feed.updates_per_epoch, self.run.epochs):
            self._train_epoch(epoch)
            self._close_epoch(epoch)

    def _train_epoch(self, epoch: int) -> None:
        self.task.train()
        state, per_epoch = self.state, self.feed.updates_per_epoch
        # Half an epoch may be done already; the end of an epoch is only passed by _close_epoch.
        start = state.update - epoch * per_epoch
        clock = time.perf_counter()
        for images, labels in self.feed.train(epoch, start):
            self.step(images, labels)
            state.update += 1
            if state.update % CHECK_EVERY == 0 and state.update % per_epoch:
                state.epoch_seconds += time.perf_counter() - clock
                self._stop_if_bad()
                self._save_if_due()
                clock = time.perf_counter()
        if self.process.device.type == "cuda":
            torch.cuda.synchronize(self.process.device)
        state.epoch_seconds += time.perf_counter() - clock

    def step(self, images: Any, labels: Tensor) -> None:
        """One update of the weights, by images or views of them."""
        rank, step = self.process.rank, self.state.update
        seed_global_state(self.process.device, stream_seed(self.seed, rank, step, "model"))
        self.schedule.step_update(step)
        with self.updater.autocast():
            batch = self.task.prepare(images, labels, partial(step_generator, self.seed, rank, step))
        count, share = batch.size, self.run.batch_size // self.process.world
        size = (self.execution.microbatch or share) * count // share  # unlabelled images come beside labelled ones
        starts = range(0, count, size)
        parts = [batch.rows(slice(start, start + size)) for start in starts] if len(starts) > 1 else [batch]
        self.updater.update(partial(self._loss, count), *parts)
        self.task.after_update(step)

    def _loss(self, count: int, part: Any) -> Tensor:
        """The loss of a part, weighed by its share in the batch of `count`; recorded on the way."""
        result = self.task.step(part)
        self.state.statistics.add(result.statistics())
        self.bad = torch.minimum(self.bad, torch.where(result.loss.detach().isfinite(), NEVER, self.state.update))
        return result.loss * (part.size / count)

    # --------------------------------------------------------------------------------------------- between updates

    def _stop_if_bad(self) -> None:
        """Raise RunError, naming the update, if a loss was not finite; the last good checkpoint stays."""
        bad = int(self.process.minimum(self.bad))
        if bad < NEVER:
            raise self.diverged(bad)

    def diverged(self, update: int) -> RunError:
        """What to say where the loss was not finite at an update."""
        return RunError(
            f"the loss of {self.run.key} seed {self.seed} is not finite at update {update} (epoch "
            f"{update // self.feed.updates_per_epoch + 1}): lower the learning rate or clip the gradient; the last "
            f"good checkpoint, if there is one, is kept in {self.directory}"
        )

    def _save_if_due(self) -> None:
        """Save a checkpoint if the last one is long enough ago or the run is to stop; touch the lock.

        Raises:
            Stopped: if any process was asked to stop.
        """
        due = time.monotonic() - self.saved_at >= self.execution.checkpoint_seconds
        flags = torch.tensor([self.stop(), due and self.process.rank == 0], device=self.process.device)
        stops, due = (bool(flag) for flag in self.process.sum(flags.long()))
        if stops or due:
            saved = self.state.to_dict()
            self.process.agree(lambda: save_checkpoint(self.directory, saved))
            self.saved_at = time.monotonic()
        if self.process.rank == 0:
            (self.directory / "lock").touch()
        if stops:
            self.log(f"stopped at update {self.state.update}")
            raise Stopped(f"{self.run.key} seed {self.seed} stopped at update {self.state.update} and can be continued")

    def _close_epoch(self, epoch: int) -> None:
        """Statistics, evaluation, checkpoint."""
        self._stop_if_bad()
        self.record_epoch(epoch, self.evaluate() if evaluates(self.run, epoch) else {})
        self._save_if_due()

    def record_epoch(self, epoch: int, scores: dict[str, Any]) -> None:
        """Write down an epoch with its scores, {} where it was not evaluated."""
        state = self.state
        line = {
            "epoch": epoch + 1,
            "step": state.update,
            "lr": self.updater.optimizer.param_groups[0]["lr"],
            **state.statistics.means(),
            "images_per_second": self.feed.updates_per_epoch * self.run.batch_size / state.epoch_seconds,
            "seconds": state.epoch_seconds,
            **scores,
        }
        state.close_epoch(line)
        if self.process.rank == 0:
            run_directory.append_metrics(self.directory, line)
        top1 = f"  top-1 {line['top1']:6.2f}" if scores else ""
        self.log(
            f"epoch {epoch + 1}/{self.run.epochs}  mixed loss {line['loss']:.4f}{top1}  lr {line['lr']:.2e}  "
            f"{line['images_per_second']:.0f} images/s"
        )

    @torch.no_grad()
    def evaluate(self) -> dict[str, Any]:
        """The scores of the network on the test images."""
        model, scores = self.task.reported_model().eval(), Scores(self.run, self.task, self.process)
        for place, (images, labels) in enumerate(self.feed.test()):
            with self.updater.autocast():
                scores.add(model(images), labels)
                if self.run.count_mixed:
                    batch = scores.mix(place, images, labels)
                    scores.add_mixed(model(batch.images), batch)
        return self.checked(scores)

    def checked(self, scores: Scores) -> dict[str, Any]:
        """The values of scores; a RunError of theirs names this run."""
        try:
            return scores.values()
        except RunError as error:
            raise RunError(
                f"{self.run.key} seed {self.seed}, update {self.state.update}: {error}; the last good checkpoint, if "
                f"there is one, is kept in {self.directory}"
            ) from error


def evaluates(run: Run, epoch: int) -> bool:
    """Whether the run is evaluated after this epoch (from 0)."""
    return epoch >= run.epochs - run.median_last or (epoch + 1) % run.evaluate_every == 0


def seed_global_state(device: torch.device, seed: int) -> None:
    """Seed what dropout and stochastic depth draw from on `device`; they know no generator.

    torch.manual_seed would also remember a traceback for every kind of accelerator that is not in use.
    """
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)
