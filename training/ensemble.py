"""fit_many: runs that share data, architecture, batch and length are trained as one ensemble, each as if alone.

The networks run as one (`stacked`); all else is each member's own: seed, order of the images, mixing, label rule,
terms, optimizer and learning rate, run directory. In float64 a member equals its run alone to the last digits; in
float32 they round differently, and the results are equal in distribution. result.json says how many were stacked.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from timm.utils.model import unwrap_model
from torch import Tensor

from training.checkpoint import read_checkpoint, save_checkpoint
from training.config import Execution, Run
from training.joined import hidden_mixes, joined, kind_of, stacked
from training.loop import CHECK_EVERY, NEVER, Training, evaluates, open_directory, settings
from training.mix_task import DrawnBatch, MixTask, losses_of
from training.process import Process
from training.rng import step_generator
from training.run_directory import RunError, Stopped, locked
from training.scores import Scores
from training.stacked import StackedNetworks
from training.statistics import sums_of

OWN = ("optim", "mix", "loss")  # in what the runs of an ensemble may differ
NAME = "ensemble.pt"


def fit_many(
    runs: Sequence[Run],
    seeds: Sequence[int],
    directories: Sequence[Path],
    execution: Execution | None = None,
    stop: Callable[[], bool] = bool,  # never
) -> list[dict[str, Any] | RunError]:
    """Train runs[i] with seeds[i] in directories[i], all as one, and return the contents of their result.json.

    The same call goes on after an interruption, bit for bit; members that are finished keep their results. A member
    whose loss is not finite is dropped: its answer is the RunError that says so, and the others go on.

    Raises:
        Stopped: as `stop` asked for; the same call goes on from there.
        RunError: where the runs cannot be trained together, saying why.
    """
    execution = execution or Execution()
    process = Process.current(execution.device)
    check_together(runs, process)
    with ExitStack() as stack, settings(process.device, execution):
        for directory in sorted(directories):
            stack.enter_context(locked(directory))
        places = list(zip(runs, seeds, directories, strict=True))
        finished = [open_directory(*place, process) for place in places]
        if None not in finished:
            return finished  # type: ignore[return-value]
        ensemble = Ensemble([Training(*place, execution, process, stop) for place in places])
        ensemble.resume()
        ensemble.train()
        return ensemble.results(finished)


def check_together(runs: Sequence[Run], process: Process) -> None:
    """Raise RunError where these runs cannot be trained as one."""
    if process.distributed:
        raise RunError(f"an ensemble trains in one process, not in {process.world}: train its runs one by one")
    for run in runs:
        if why := run.why_alone:
            raise RunError(f"{run.key} cannot be a member of an ensemble ({why}): train it by itself")
        for name in (field.name for field in fields(Run) if field.name not in OWN):
            mine, first = getattr(run, name), getattr(runs[0], name)
            if mine != first:
                raise RunError(
                    f"the runs of an ensemble share all but {', '.join(OWN)}, and {run.key} has {name} {mine}, not "
                    f"{first}: train it in another ensemble"
                )


class Ensemble:
    """Trainings under way whose networks run as one; `lost` says by place why a member was dropped."""

    def __init__(self, members: Sequence[Training]) -> None:
        self.members, self.first = list(members), members[0]
        tasks = [cast(MixTask, member.task) for member in members]
        self.networks = StackedNetworks([unwrap_model(task.trainable_module) for task in tasks])
        self._criteria = [task.criterion for task in tasks]
        losses = [member.run.loss for member in members]
        self._first_like = [losses.index(loss) for loss in losses]  # the first member with an equal loss
        self.attends = any(criterion.rule.needs_attention for criterion in self._criteria)
        self.update, self.lost = 0, dict[int, str]()
        self.bad = torch.full((len(members),), NEVER, device=self.first.process.device)

    @property
    def live(self) -> list[int]:
        """The places of the members that train."""
        return [place for place in range(len(self.members)) if place not in self.lost]

    # --------------------------------------------------------------------------------------------- checkpoints

    def resume(self) -> None:
        """Continue from the checkpoint of these very members, if there is one."""
        saved = read_checkpoint(self.first.directory / NAME, "members", "update", "states", "lost")
        states = saved["states"] if saved is not None and saved["members"] == self._names() else []
        for member, state in zip(self.members, states, strict=False):
            member.state.restore(state)
        for member in self.members:
            member.rewrite_metrics()
        if states and saved is not None:
            self.update, self.lost = saved["update"], saved["lost"]
            self.log(f"resumed at update {self.update}")

    def save(self) -> None:
        """Replace the checkpoint: one file for all, so that all are at the same update."""
        states = [member.state.to_dict() for member in self.members]
        saved = {"members": self._names(), "update": self.update, "states": states, "lost": self.lost}
        save_checkpoint(self.first.directory, saved, NAME)
        self.first.saved_at = time.monotonic()

    def _names(self) -> list[list[Any]]:
        return [[member.run.key, member.seed] for member in self.members]

    def log(self, text: str) -> None:
        """Add a line to every member's log.txt."""
        for place in self.live:
            self.members[place].log(text)

    # --------------------------------------------------------------------------------------------- training

    def train(self) -> None:
        """Train to the last epoch from wherever the ensemble is."""
        for epoch in range(self.update // self.first.feed.updates_per_epoch, self.first.run.epochs):
            self._train_epoch(epoch)
            self._drop_bad()
            scores = self.evaluate() if evaluates(self.first.run, epoch) else {}
            for place in self.live:
                self.members[place].record_epoch(epoch, scores.get(place, {}))
            self._save_if_due()

    def _train_epoch(self, epoch: int) -> None:
        self.networks.train()
        per_epoch = self.first.feed.updates_per_epoch
        start = self.update - epoch * per_epoch
        batches = {place: self.members[place].feed.train(epoch, start) for place in self.live}
        clock = time.perf_counter()
        for number in range(start + 1, per_epoch + 1):
            self.step({place: next(batches[place]) for place in self.live})
            if self.update % CHECK_EVERY == 0 or number == per_epoch:
                if self.first.process.device.type == "cuda":
                    torch.cuda.synchronize(self.first.process.device)
                self._share(time.perf_counter() - clock)
                if number < per_epoch:
                    self._drop_bad()
                    self._save_if_due()
                clock = time.perf_counter()

    def step(self, batches: dict[int, tuple[Tensor, Tensor]]) -> None:
        """One update of every living member by its own images and labels."""
        drawn: dict[int, DrawnBatch] = {}
        for place, (images, labels) in batches.items():
            member = self.members[place]
            member.schedule.step_update(self.update)
            with member.updater.autocast():
                drawn[place] = member.task.prepare(
                    images, labels, partial(step_generator, member.seed, member.process.rank, self.update)
                )
        with self.first.updater.autocast():
            self._loss(drawn).backward()
        for place in batches:
            member = self.members[place]
            member.updater.apply()
            member.task.after_update(self.update)
        self.networks.zero_grad()
        self.update += 1
        for place in batches:
            self.members[place].state.update = self.update

    def _loss(self, drawn: dict[int, DrawnBatch]) -> Tensor:
        """The sum of all members' losses; the forward pass is one, the losses are one for each kind of batch."""
        batches = {place: part.batch for place, part in drawn.items()}
        images = stacked({place: batch.images for place, batch in batches.items()}, len(self.members))
        hidden = hidden_mixes(batches, len(self.members))
        logits, attention = self.networks(images, attends=self.attends, hidden=hidden)
        kinds = defaultdict(list)
        for place, batch in batches.items():
            kinds[self._first_like[place], kind_of(batch)].append(place)
        return torch.stack([self._loss_of(places, drawn, images, logits, attention) for places in kinds.values()]).sum()

    def _loss_of(
        self,
        places: list[int],
        drawn: dict[int, DrawnBatch],
        images: Tensor,
        logits: Tensor,
        attention: Tensor | None,
    ) -> Tensor:
        """The sum of the losses of members with one criterion and one kind of batch, recorded on the way."""
        chosen = slice(None) if len(places) == len(self.members) else places
        attention = None if attention is None else attention[chosen].flatten(0, 1)
        whole = joined([drawn[place] for place in places], images[chosen].flatten(0, 1))
        loss, parts, record = losses_of(self._criteria[places[0]], whole, logits[chosen].flatten(0, 1), attention)
        losses = loss.unflatten(0, (len(places), -1)).mean(dim=1)
        values = {**record, **(parts if len(parts) > 1 else {})}
        for place, sums in zip(places, sums_of(list(values.values()), len(places)), strict=True):
            self.members[place].state.statistics.add_sums(list(values), sums)
        bad = torch.where(losses.detach().isfinite(), NEVER, self.update)
        self.bad[chosen] = torch.minimum(self.bad[chosen], bad)
        return losses.sum()

    def _share(self, seconds: float) -> None:
        """Give every living member its share of the time."""
        for place in self.live:
            self.members[place].state.epoch_seconds += seconds / len(self.live)

    # --------------------------------------------------------------------------------------------- between updates

    def _drop(self, place: int, error: RunError) -> None:
        self.members[place].log(f"failed: {error}")
        self.lost[place] = str(error)
        if not self.live:
            raise error

    def _drop_bad(self) -> None:
        """Drop the members whose loss was not finite."""
        bad = self.bad.tolist()
        for place in self.live:
            if bad[place] < NEVER:
                self._drop(place, self.members[place].diverged(bad[place]))

    def _save_if_due(self) -> None:
        """As of a run alone."""
        stops = self.first.stop()
        if stops or time.monotonic() - self.first.saved_at >= self.first.execution.checkpoint_seconds:
            self.save()
        for member in self.members:
            (member.directory / "lock").touch()
        if stops:
            self.log(f"stopped at update {self.update}")
            raise Stopped(
                f"{len(self.members)} runs as {self.first.run.key} stopped at update {self.update} and can be continued"
            )

    @torch.no_grad()
    def evaluate(self) -> dict[int, dict[str, Any]]:
        """The scores of every living member on the test images, by place; drops those whose loss is not finite."""
        self.networks.train(False)
        scores = {
            place: Scores(member.run, member.task, member.process)
            for place, member in enumerate(self.members)
            if place not in self.lost
        }
        for number, (images, labels) in enumerate(self.first.feed.test()):
            with self.first.updater.autocast():
                logits, _ = self.networks(images, shared=True)
                for place, own in scores.items():
                    own.add(logits[place], labels)
                if self.first.run.count_mixed:
                    mixed = {place: own.mix(number, images, labels) for place, own in scores.items()}
                    logits, _ = self.networks(
                        stacked({place: batch.images for place, batch in mixed.items()}, len(self.members))
                    )
                    for place, batch in mixed.items():
                        scores[place].add_mixed(logits[place], batch)
        values = {}
        for place, own in scores.items():
            try:
                values[place] = self.members[place].checked(own)
            except RunError as error:
                self._drop(place, error)
        return values

    def results(self, finished: Sequence[dict[str, Any] | None]) -> list[dict[str, Any] | RunError]:
        """Write what is not `finished`, in order; the checkpoint goes last."""
        found: list[dict[str, Any] | RunError] = []
        for place, (member, result) in enumerate(zip(self.members, finished, strict=True)):
            if result is None and place in self.lost:
                found.append(RunError(self.lost[place]))
                continue
            found.append(result or member.finish(stacked=len(self.members)))
        (self.first.directory / NAME).unlink(missing_ok=True)
        return found
