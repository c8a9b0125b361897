"""Training: a run under way, update by update, with its checkpoints and evaluations."""

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lumix.train import run_directory
from lumix.train.checkpoint import load_checkpoint, save_checkpoint
from lumix.train.config import Execution, Run
from lumix.train.feed import Feed, build_feed, share_of_batch
from lumix.train.model import build_model
from lumix.train.optim import build_optimizer, build_schedule
from lumix.train.process import Process
from lumix.train.progress import Progress
from lumix.train.rng import step_generator, stream_seed
from lumix.train.run_directory import RunError, Stopped
from lumix.train.tally import SIZE, summary, tally
from lumix.train.task import MixTask, build_task

CHECK_EVERY = 20  # updates between looks at the loss; each look waits for the device
NEVER = 2**62  # larger than any update: "no bad loss so far"


def never() -> bool:
    """The default of `stop`."""
    return False


@dataclass
class Training:
    """A run under way: everything that an update changes, and everything that a checkpoint must hold."""

    run: Run
    seed: int
    directory: Path
    execution: Execution
    process: Process
    stop: Callable[[], bool]
    feed: Feed
    task: MixTask
    optimizer: torch.optim.Optimizer
    schedule: Any
    scaler: torch.amp.GradScaler
    progress: Progress
    update: int = 0  # updates done, over all epochs
    metrics: list[dict[str, Any]] = field(default_factory=list)
    sums: Tensor = field(default_factory=lambda: torch.zeros(SIZE, dtype=torch.float64))
    bad: Tensor = field(default_factory=lambda: torch.tensor(NEVER))
    train_seconds: float = 0.0
    epoch_seconds: float = 0.0
    saved_at: float = field(default_factory=time.monotonic)

    @classmethod
    def begin(
        cls,
        run: Run,
        seed: int,
        directory: Path,
        execution: Execution,
        process: Process,
        stop: Callable[[], bool] = never,
    ) -> "Training":
        """A run at its first update."""
        share_of_batch(run, process)
        device = process.device
        feed = build_feed(run, seed, process, execution)
        network = build_model(run.model, feed.num_classes, feed.in_chans, run.data.image_size, seed).to(device)
        if run.channels_last:
            network = network.to(memory_format=torch.channels_last)
        task = build_task(run, network, feed.mean, feed.std, device)
        optimizer = build_optimizer(run.optim, network)
        if run.optim.ema_decay:
            task.setup_ema(decay=run.optim.ema_decay)
        if run.compile:
            task.compile()
        if process.distributed:
            task.prepare_distributed(device_ids=[device] if device.type == "cuda" else None)
        return cls(
            run=run,
            seed=seed,
            directory=directory,
            execution=execution,
            process=process,
            stop=stop,
            feed=feed,
            task=task,
            optimizer=optimizer,
            schedule=build_schedule(run.optim, optimizer, run.epochs, feed.updates_per_epoch),
            scaler=torch.amp.GradScaler(device.type, enabled=run.precision == "float16"),
            progress=Progress(directory / "log.txt", run.epochs, execution.progress and process.rank == 0),
            sums=torch.zeros(SIZE, dtype=torch.float64, device=device),
            bad=torch.tensor(NEVER, device=device),
        )

    # --------------------------------------------------------------------------------------------- checkpoints

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {
            "key": self.run.key,
            "seed": self.seed,
            "update": self.update,
            **self.task.get_checkpoint_state(),
            **(self.task.get_checkpoint_state(ema=True) if self.task.has_ema() else {}),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "sums": self.process.sum(self.sums).cpu(),
            "metrics": self.metrics,
            "train_seconds": self.train_seconds,
            "epoch_seconds": self.epoch_seconds,
        }

    def resume(self) -> None:
        """Continue from the checkpoint in the directory, if there is one."""
        state = self.process.agree(lambda: load_checkpoint(self.directory, self.run.key, self.seed))
        if self.process.rank == 0:  # what was recorded after the checkpoint is done again
            run_directory.write_metrics(self.directory, [] if state is None else state["metrics"])
        if state is None:
            return
        self.task.load_checkpoint_state(state["state_dict"])
        if self.task.has_ema():
            self.task.load_checkpoint_state(state["state_dict_ema"], ema=True)
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.update, self.metrics = state["update"], state["metrics"]
        self.train_seconds, self.epoch_seconds = state["train_seconds"], state["epoch_seconds"]
        # The sums are over all processes; one of them carries them on.
        self.sums += state["sums"].to(self.sums.device) * (self.process.rank == 0)
        self.progress.line(f"resumed at update {self.update}")

    def stop_if_bad(self) -> None:
        """Raise RunError, naming the update, if a loss was no number; the last good checkpoint stays."""
        bad = int(self.process.minimum(self.bad))
        if bad < NEVER:
            raise RunError(
                f"the loss of {self.run.key} seed {self.seed} is not finite at update {bad} (epoch "
                f"{bad // self.feed.updates_per_epoch + 1}): lower the learning rate or clip the gradient; the last "
                f"good checkpoint, if there is one, is kept in {self.directory}"
            )

    def save_if_due(self) -> None:
        """Save a checkpoint if the last one is long enough ago or the run is to stop; touch the lock.

        Raises:
            Stopped: if any process was asked to stop.
        """
        due = time.monotonic() - self.saved_at >= self.execution.checkpoint_seconds
        flags = torch.tensor([self.stop(), due and self.process.rank == 0], device=self.process.device)
        stops, due = (bool(flag) for flag in self.process.sum(flags.long()))
        if stops or due:
            state = self.state()
            self.process.agree(lambda: save_checkpoint(self.directory, state))
            self.saved_at = time.monotonic()
        if self.process.rank == 0:
            (self.directory / "lock").touch()
        if stops:
            self.progress.line(f"stopped at update {self.update}")
            raise Stopped(f"{self.run.key} seed {self.seed} stopped at update {self.update} and can be continued")

    # --------------------------------------------------------------------------------------------- training

    def train(self) -> None:
        """Train to the last epoch from wherever this run is."""
        per_epoch = self.feed.updates_per_epoch
        with self.progress:
            for epoch in range(self.update // per_epoch, self.run.epochs):
                self._train_epoch(epoch)
                self._close_epoch(epoch)

    def _train_epoch(self, epoch: int) -> None:
        self.task.train()
        per_epoch = self.feed.updates_per_epoch
        # Half an epoch may be done already; the end of an epoch is only passed by _close_epoch.
        start = self.update - epoch * per_epoch
        clock = time.perf_counter()
        for images, labels in self.feed.train(epoch, start):
            self._step(images, labels)
            self.update += 1
            if self.update % CHECK_EVERY == 0 and self.update % per_epoch:
                now = time.perf_counter()
                self.epoch_seconds += now - clock
                self.stop_if_bad()
                self.save_if_due()
                clock = time.perf_counter()
                self.progress.within(epoch, self.update - epoch * per_epoch, per_epoch)
        if self.process.device.type == "cuda":
            torch.cuda.synchronize(self.process.device)
        self.epoch_seconds += time.perf_counter() - clock

    def _step(self, images: Tensor, labels: Tensor) -> None:
        """One update of the weights."""
        rank, step, device = self.process.rank, self.update, self.process.device
        seed_global_state(device, stream_seed(self.seed, rank, step, "model"))
        self.schedule.step_update(step)
        if self.run.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        precision = getattr(torch, self.run.precision)
        with torch.autocast(device.type, precision, enabled=self.run.precision != "float32"):
            batch = self.task.mix(images, labels, generator=step_generator(self.seed, rank, step, "mix"))
        draws = self.task.criterion.draw(batch, step_generator(self.seed, rank, step, "rule"))
        size = self.execution.microbatch or len(batch)
        for start in range(0, len(batch), size):
            part = batch if size >= len(batch) else batch[start : start + size]
            part_draws = None if draws is None else draws[start : start + size]
            last = start + size >= len(batch)
            with nullcontext() if last else self.task.no_sync():
                with torch.autocast(device.type, precision, enabled=self.run.precision != "float32"):
                    out = self.task(part.images, part, draws=part_draws)
                self.scaler.scale(out["loss"] * (len(part) / len(batch))).backward()
            loss, perturbed = out["loss"].detach(), self.task.criterion.rule.perturbs(part)
            self.sums += tally(part, loss, out["own_weight"], perturbed)
            self.bad = torch.minimum(self.bad, torch.where(loss.isfinite(), NEVER, step))
        if self.run.optim.clip_grad:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.task.get_clip_parameters(), self.run.optim.clip_grad)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.task.update_ema(step)

    def _close_epoch(self, epoch: int) -> None:
        """Statistics, evaluation, checkpoint."""
        last_ones = epoch >= self.run.epochs - self.run.median_last
        evaluates = last_ones or (epoch + 1) % self.run.evaluate_every == 0
        self.stop_if_bad()
        line = {
            "epoch": epoch + 1,
            "step": self.update,
            "lr": self.optimizer.param_groups[0]["lr"],
            **summary(self.process.sum(self.sums)),
            "images_per_second": self.feed.updates_per_epoch * self.run.batch_size / self.epoch_seconds,
            "seconds": self.epoch_seconds,
            **(self.evaluate() if evaluates else {}),
        }
        self.metrics.append(line)
        self.train_seconds += self.epoch_seconds
        self.epoch_seconds = 0.0
        self.sums.zero_()
        if self.process.rank == 0:
            run_directory.append_metrics(self.directory, line)
        self.progress.epoch(line)
        self.save_if_due()

    @torch.no_grad()
    def evaluate(self) -> dict[str, Any]:
        """Loss, top-1 and top-5 on the clean test images, each counted once over all processes."""
        model = self.reported_model().eval()
        device = self.process.device
        evaluator = self.task.create_evaluator()
        precision = getattr(torch, self.run.precision)
        for images, labels in self.feed.test():
            with torch.autocast(device.type, precision, enabled=self.run.precision != "float32"):
                evaluator.update(model(images), labels)
        scores = evaluator.compute(distributed=self.process.distributed)
        if not math.isfinite(scores["loss"]):
            raise RunError(
                f"the test loss of {self.run.key} seed {self.seed} is not finite after update {self.update}: lower "
                f"the learning rate; the last good checkpoint, if there is one, is kept in {self.directory}"
            )
        samples = int(self.process.sum(evaluator.counts)[0])
        return {
            "top1": scores["top1"],
            "top5": scores["top5"],
            "eval_loss": scores["loss"],
            "test_samples": samples,
        }

    def reported_model(self) -> nn.Module:
        """The network whose accuracy counts: the raw weights or their moving average, without DDP around it.

        DDP would synchronise buffers in forward, and processes may have different numbers of test batches.
        """
        model = self.task.get_eval_model(ema=self.run.optim.ema_reported)
        assert model is not None
        return model.module if isinstance(model, ModelEmaV3 | DistributedDataParallel) else model


def seed_global_state(device: torch.device, seed: int) -> None:
    """Seed what dropout and stochastic depth draw from on `device`; they know no generator.

    torch.manual_seed would also remember a traceback for every kind of accelerator that is not in use.
    """
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)
