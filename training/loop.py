"""fit: train one run with one seed in one directory; the same call resumes it, or returns what is finished.

Killed at any instant and called again, it gives the weights of an uninterrupted run bit for bit on the same hardware
(on a GPU with Execution.deterministic): all randomness of an update derives from (seed, rank, update).
"""

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from timm.utils import distribute_bn
from torch import Tensor

from lumix.registry import part_of
from training import run_directory
from training.build import build_task
from training.config import Execution, Run
from training.data.feeds import build_feed
from training.mixed_accuracy import MixedAccuracy
from training.models import initial_network
from training.optim import build_schedule, build_updater
from training.process import Process
from training.rng import step_generator, stream_seed
from training.run_directory import RunError, Stopped
from training.state import State, Statistics, read_checkpoint, save_checkpoint, scores_of, write_result
from training.tasks.mixed import Task

CHECK_EVERY = 20  # updates between looks at the loss; each look waits for the device
NEVER = 2**62  # larger than any update: all losses so far are finite

Batch = tuple[Any, Tensor]  # images or views of them, and labels


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
    """
    (result,) = carry_out(Loop, [(run, seed, directory)], execution or Execution(), stop)
    assert isinstance(result, dict)  # a run alone that is lost has raised
    return result


def carry_out(
    kind: "Callable[[list[Training], Callable[[], bool]], Loop]",
    places: Sequence[tuple[Run, int, Path]],
    execution: Execution,
    stop: Callable[[], bool],
) -> list[dict[str, Any] | RunError]:
    """Train runs with their seeds in their directories by one loop; each one's result, or why it was lost."""
    for _, seed, _ in places:
        if type(seed) is not int or not 0 <= seed < 2**63:
            raise ValueError(f"seed must be an integer of at least 0 and below 2**63, not {seed!r}")
    process = Process.current(execution.device)
    with ExitStack() as stack, settings(process.device, execution):

        def lock(directory: Path) -> None:
            stack.enter_context(run_directory.locked(directory))

        def opened(run: Run, seed: int, directory: Path) -> dict[str, Any] | None:
            return run_directory.open_directory(directory, run.key, seed, run.to_dict(), process.environment)

        for directory in sorted(directory for _, _, directory in places):
            process.agree(partial(lock, directory))
        finished = [process.agree(partial(opened, *place)) for place in places]
        if None not in finished:
            return finished
        loop = kind([Training(*place, execution, process) for place in places], stop)
        loop.resume()
        loop.train()
        return loop.results(finished)


@contextmanager
def settings(device: torch.device, execution: Execution) -> Iterator[None]:
    """Determinism as asked for, and the caller's global random state as it was: dropout knows no generator."""
    before = torch.are_deterministic_algorithms_enabled()
    if execution.deterministic and device.type == "cuda":  # else torch refuses products of matrices, the first of all
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.use_deterministic_algorithms(before or execution.deterministic)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before)


class Training:
    """A run under way in a directory: `state` is what changes, the rest stays as it begins."""

    def __init__(self, run: Run, seed: int, directory: Path, execution: Execution, process: Process) -> None:
        device = process.device
        self.run, self.seed, self.directory, self.execution, self.process = run, seed, directory, execution, process
        self.feed = feed = build_feed(run, seed, process, execution)
        network = initial_network(run.model, feed.num_classes, feed.in_chans, run.data.image_size, seed)
        network = network.to(device)
        updates = run.epochs * feed.updates_per_epoch
        self.task: Task = build_task(run, network, feed.mean, feed.std, device, seed=seed, updates=updates)
        self.updater = build_updater(run, self.task)
        if process.distributed:
            self.task.prepare_distributed(device_ids=[device] if device.type == "cuda" else None)
        self.schedule = build_schedule(run.optim, self.updater.optimizer, run.epochs, feed.updates_per_epoch)
        self.state = State(run, seed, self.task, Statistics(process))
        self.bad = torch.full((1,), NEVER, device=device)  # the first update whose loss was not finite

    def log(self, text: str) -> None:
        """Add a line to log.txt; a call of all processes."""
        self.process.agree(partial(run_directory.append_line, self.directory / "log.txt", text))

    def share_statistics(self) -> None:
        """Give all processes rank 0's statistics of batch norms, which are exported and saved; DDP does so to train."""
        for network in (self.task.network, self.task.reported_model()) if self.process.distributed else ():
            distribute_bn(network, self.process.world)

    def streams(self, name: str) -> torch.Generator:
        """The generator of a stream ("mix", "rule", ...) for the next update."""
        return step_generator(self.seed, self.process.rank, self.state.update, name)

    def prepare(self, images: Any, labels: Tensor) -> Any:
        """The task's batch for the next update, with all its random draws."""
        if self.process.distributed and any(part_of(m).needs == "the network" for m, _ in self.run.mix.choices):
            self.share_statistics()
        with self.updater.autocast():
            return self.task.prepare(images, labels, self.streams)

    def step(self, images: Any, labels: Tensor) -> None:
        """One update of the weights, by images or views of them."""
        step = self.state.update
        seed_global_state(self.process.device, stream_seed(self.seed, self.process.rank, step, "model"))
        self.schedule.step_update(step)
        batch = self.prepare(images, labels)
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
        self.bad.clamp_(max=torch.where(result.loss.detach().isfinite(), NEVER, self.state.update))  # does not wait
        return result.loss * (part.size / count)

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
        text = json.dumps(line, allow_nan=False)
        self.process.agree(partial(run_directory.append_line, self.directory / "metrics.jsonl", text))
        top1 = f"  top-1 {line['top1']:6.2f}" if scores else ""
        self.log(
            f"epoch {epoch + 1}/{self.run.epochs}  mixed loss {line['loss']:.4f}{top1}  lr {line['lr']:.2e}  "
            f"{line['images_per_second']:.0f} images/s"
        )


class Loop:
    """Trainings that take every update together: here one alone, in an ensemble several whose networks run as one.

    `lost` says by place why a training was given up; the others go on.
    """

    size = 0  # of the stack of networks
    CHECKPOINT = "checkpoint.pt"  # in the first one's directory: one file for all, so that all are at the same update

    def __init__(self, members: Sequence[Training], stop: Callable[[], bool] = bool) -> None:
        self.members, self.first, self.stop = list(members), members[0], stop
        self.execution, self.process = self.first.execution, self.first.process
        self.path = self.first.directory / self.CHECKPOINT
        self.update, self.lost = 0, dict[int, str]()
        self.bad = torch.cat([member.bad for member in members])  # a view of which is each one's own
        for place, member in enumerate(members):
            member.bad = self.bad[place : place + 1]
        self.saved_at = time.monotonic()

    @property
    def live(self) -> dict[int, Training]:
        """The trainings that go on, by place."""
        return {place: member for place, member in enumerate(self.members) if place not in self.lost}

    @property
    def optimizers(self) -> list[Any]:
        """Those of all trainings, each once."""
        return list(dict.fromkeys(member.updater.optimizer for member in self.members))

    # ------------------------------------------------------------------------------ what an ensemble does otherwise

    def mode(self, train: bool) -> None:
        """Networks for training or for evaluation from now on."""
        if train:
            self.first.task.train()
        else:
            self.first.share_statistics()
            self.first.task.reported_model().eval()

    def step(self, batches: Mapping[int, Batch]) -> None:
        """One update of every training by its own images and labels."""
        self.first.step(*batches[0])

    # ------------------------------------------------------------------------------ checkpoints

    def resume(self) -> None:
        """Continue from the checkpoint of these very trainings, if there is one."""
        saved = self.process.agree(lambda: read_checkpoint(self.path))
        names = [[member.run.key, member.seed] for member in self.members]
        if saved is not None and (saved.get("members"), saved.get("size", 0)) != (names, self.size):
            if not self.size:
                raise RunError(f"{self.path} belongs to run {saved.get('members')}, not to {names}: move it away")
            saved = None
        try:
            if saved is not None:
                self.update, self.lost = saved["update"], saved["lost"]
                for member, state in zip(self.members, saved["states"], strict=True):
                    member.state.restore(state)
                for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
                    optimizer.load_state_dict(state)
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            what = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise RunError(
                f"{self.path} is none that this code writes for this run ({what}): delete it and run the same command "
                f"to train from the start"
            ) from error
        for member in self.members:
            # What was recorded after the checkpoint is done again.
            self.process.agree(partial(run_directory.write_metrics, member.directory, member.state.metrics))
        for member in self.live.values() if saved is not None else ():
            began, now = member.state.code, run_directory.code_fingerprint()
            code = "" if began == now else f", begun by code {began} and continued by {now}"
            member.log(f"resumed at update {self.update}{code}")

    def _save_if_due(self) -> None:
        """Save a checkpoint if the last one is long enough ago or the runs are to stop; touch the locks."""
        due = time.monotonic() - self.saved_at >= self.execution.checkpoint_seconds
        flags = torch.tensor([self.stop(), due and self.process.rank == 0], device=self.process.device)
        stops, due = (bool(flag) for flag in self.process.sum(flags.long()))
        if stops or due:
            states = [member.state.to_dict() for member in self.members]
            names = [[member.run.key, member.seed] for member in self.members]
            saved = {"members": names, "size": self.size, "update": self.update, "lost": self.lost, "states": states}
            saved["optimizers"] = [optimizer.state_dict() for optimizer in self.optimizers]
            self.process.agree(lambda: save_checkpoint(self.path, saved))
            self.saved_at = time.monotonic()
        for member in self.members:
            self.process.agree((member.directory / "lock").touch)
        if stops:
            for member in self.live.values():
                member.log(f"stopped at update {self.update}")
            name = f"{self.first.run.key} seed {self.first.seed}"
            others = f" and {len(self.members) - 1} others" if len(self.members) > 1 else ""
            raise Stopped(f"{name}{others} stopped at update {self.update} and can be continued")

    # ------------------------------------------------------------------------------ training

    def train(self) -> None:
        """Train to the last epoch from wherever the runs are."""
        run, per_epoch = self.first.run, self.first.feed.updates_per_epoch
        for epoch in range(self.update // per_epoch, run.epochs):
            self._train_epoch(epoch, per_epoch)
            self._drop_bad()
            evaluates = epoch >= run.epochs - run.median_last or (epoch + 1) % run.evaluate_every == 0
            scores = self.evaluate() if evaluates else {}
            for place, member in self.live.items():
                member.record_epoch(epoch, scores.get(place, {}))
            self._save_if_due()

    def _train_epoch(self, epoch: int, per_epoch: int) -> None:
        self.mode(train=True)
        start = self.update - epoch * per_epoch  # some of the epoch may be done already
        feeds = {place: member.feed.train(epoch, start) for place, member in self.live.items()}
        clock = time.perf_counter()
        for number in range(start + 1, per_epoch + 1):
            self.step({place: next(feeds[place]) for place in self.live})
            self.update += 1
            for member in self.live.values():
                member.state.update = self.update
            if self.update % CHECK_EVERY == 0 or number == per_epoch:
                if self.process.device.type == "cuda":
                    torch.cuda.synchronize(self.process.device)
                seconds = (time.perf_counter() - clock) / len(self.live)
                for member in self.live.values():
                    member.state.epoch_seconds += seconds
                if number < per_epoch:
                    self._drop_bad()
                    self._save_if_due()
                clock = time.perf_counter()

    def _drop_bad(self) -> None:
        """Give up those whose loss was not finite, naming the update; the last good checkpoint stays."""
        bad = self.process.minimum(self.bad).tolist()
        for place, member in self.live.items():
            if bad[place] < NEVER:
                where = f"update {bad[place]} (epoch {bad[place] // member.feed.updates_per_epoch + 1})"
                self._drop(place, f"is not finite at {where}: lower the learning rate or clip the gradient")

    def _drop(self, place: int, why: str) -> None:
        member = self.members[place]
        kept = f"the last good checkpoint, if there is one, is kept in {member.directory}"
        self.lost[place] = f"the loss of {member.run.key} seed {member.seed} {why}; {kept}"
        if len(self.members) > 1:
            member.log(f"failed: {self.lost[place]}")
        if not self.live:
            raise RunError(self.lost[place])

    @torch.no_grad()
    def evaluate(self) -> dict[int, dict[str, Any]]:
        """The scores of every network on the test images, by place; those whose loss is not finite are given up."""
        self.mode(train=False)
        live, process = self.live, self.process
        clean = {place: member.task.create_evaluator() for place, member in live.items()}
        mixed = {place: MixedAccuracy(member.task, process) for place, member in live.items() if member.run.count_mixed}
        for number, (images, labels) in enumerate(self.first.feed.test()):
            with self.first.updater.autocast():
                for place, counter in clean.items():
                    network = live[place].task.reported_model()
                    counter.update(network(images), labels)
                    if mixed:
                        mixed[place].add(network(mixed[place].mix(number, images, labels)))
        scores = {}
        for place in live:
            found = scores_of(clean[place], process) | (mixed[place].percent() if mixed else {})
            if math.isfinite(found["eval_loss"]):
                scores[place] = found
            else:
                self._drop(place, f"on test images is not finite at update {self.update}: lower the learning rate")
        return scores

    def results(self, finished: Sequence[dict[str, Any] | None]) -> list[dict[str, Any] | RunError]:
        """Write what is not `finished`, in order; the checkpoint goes last."""
        found: list[dict[str, Any] | RunError] = []
        for place, (member, result) in enumerate(zip(self.members, finished, strict=True)):
            if result is None and place in self.lost:
                found.append(RunError(self.lost[place]))
                continue
            if result is None:
                write = partial(write_result, member.state, member.feed, self.process, member.directory, self.size)
                result = self.process.agree(write)
                member.log(f"finished: top-1 {result['top1']['last']:.2f} in {member.state.train_seconds:.1f} s")
            found.append(result)
        self.process.agree(lambda: self.path.unlink(missing_ok=True))
        return found


def seed_global_state(device: torch.device, seed: int) -> None:
    """Seed what dropout and stochastic depth draw from on `device`; they know no generator.

    torch.manual_seed would also remember a traceback for every kind of accelerator that is not in use.
    """
    if device.type == "cuda":
        with torch.cuda.device(device):  # which need not be the current one
            torch.cuda.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)
