"""fit_many: runs that share data, architecture, batch and length are trained as one ensemble, each as if alone.

The networks run as one, by torch.func.vmap over their stacked parameters, and members with equal settings share an
optimizer over the stack; all else is each member's own: seed, order of the images, mixing, label rule, terms, learning
rate, run directory. In float64 a member equals its run alone to the last digits; in float32 they round differently, and
the results are equal in distribution. result.json says how many were stacked.

What a member rounds to depends on the size of the stack and on nothing else in it: not on its companions, on its place,
or on who is given up, as long as the size is a multiple of 8, so that no kernel over the stack has a remainder.
"""

import copy
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from timm.layers import DropPath
from timm.scheduler import CosineLRScheduler
from timm.utils.model import unwrap_model
from torch import Tensor, nn
from torch.func import functional_call, vmap

from lumix.batch import DrawnBatch, MixedBatch
from lumix.integrations.attention import recorded_attention
from lumix.mixers.manifold import mixed_output
from lumix.random import moved
from training.config import Execution, Run
from training.loop import NEVER, Batch, Loop, Training, carry_out
from training.optim import build_optimizer, build_schedule
from training.run_directory import RunError
from training.state import sums_of
from training.tasks.mixed import MixTask, losses_of

LANES = 16  # numbers of one network that an optimizer's kernel takes at once: the last are rounded otherwise
OWN = ("optim", "mix", "loss")  # in what the runs of an ensemble may differ
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


def fit_many(
    runs: Sequence[Run],
    seeds: Sequence[int],
    directories: Sequence[Path],
    execution: Execution | None = None,
    stop: Callable[[], bool] = bool,  # never
) -> list[dict[str, Any] | RunError]:
    """Train runs[i] with seeds[i] in directories[i], all as one, and return the contents of their result.json.

    The same call goes on after an interruption, bit for bit; members that are finished keep their results. A member
    whose loss is not finite is dropped: its answer is the RunError that says so, and the others go on. A member that is
    given again, with the same directory, fills the stack up to a size: it is trained once, and idle networks run along.
    """
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
    optims = [run.optim for run in runs]
    members = {place[2]: place for place in zip(runs, seeds, directories, strict=True)}
    for run, seed, directory in zip(runs, seeds, directories, strict=True):
        if (run, seed) != members[directory][:2]:
            raise RunError(f"{directory} is given for several runs or seeds: give each of them a directory of its own")
    ordered = sorted(members.values(), key=lambda place: optims.index(place[0].optim))
    found = carry_out(partial(Ensemble, size=len(runs)), ordered, execution or Execution(), stop)
    answers = {place[2]: answer for place, answer in zip(ordered, found, strict=True)}
    return [answers[directory] for directory in directories]


class Ensemble(Loop):
    """Trainings under way whose networks run as one; those with equal `Run.optim` are neighbours.

    In a stack of a larger `size` the networks beyond the members are idle: they run on, and nobody asks for their loss.
    """

    CHECKPOINT = "ensemble.pt"

    def __init__(self, members: Sequence[Training], stop: Callable[[], bool] = bool, size: int = 0) -> None:
        super().__init__(members, stop)
        if self.process.distributed:
            raise RunError(f"an ensemble trains in one process, not in {self.process.world}: train its runs one by one")
        tasks = [cast(MixTask, member.task) for member in members]
        self.size = max(size, len(members))
        self.networks = StackedNetworks([unwrap_model(task.trainable_module) for task in tasks], self.size)
        self._criteria = [task.criterion for task in tasks]
        losses = [member.run.loss for member in members]
        self._first_like = [losses.index(loss) for loss in losses]  # the first member with an equal loss
        self.attends = any(criterion.rule.needs_attention for criterion in self._criteria)
        optims = [member.run.optim for member in members]
        starts = [place for place in range(len(members)) if optims[place] not in optims[:place]]
        ends = [*starts[1:], self.size]
        self._schedules = [self._share_optimizer(*part) for part in zip(starts, ends, strict=True)]

    def _share_optimizer(self, start: int, end: int) -> CosineLRScheduler:
        """Give the networks from `start` to `end` one optimizer in place of their own, and return its schedule."""
        first, rows = self.members[start], self.networks.rows(start, end)
        groups = first.task.parameter_groups()
        groups = [{**group, "params": [rows[parameter] for parameter in group["params"]]} for group in groups]
        optimizer = build_optimizer(first.run.optim, groups, stacked=True)
        for member in self.members[start:end]:
            member.updater.optimizer = optimizer
        return build_schedule(first.run.optim, optimizer, first.run.epochs, first.feed.updates_per_epoch)

    def mode(self, train: bool) -> None:
        for network in (self.networks.skeleton, *(member.task.reported_model() for member in self.members)):
            network.train(train)

    def step(self, batches: Mapping[int, Batch]) -> None:
        for schedule in self._schedules:
            schedule.step_update(self.update)
        drawn = {place: self.members[place].prepare(images, labels) for place, (images, labels) in batches.items()}
        with self.first.updater.autocast():
            loss = self._loss(drawn)
        self.networks.backward(loss)
        for place in batches:
            self.members[place].updater.clip()
        for optimizer in self.optimizers:
            optimizer.step()
        for place in batches:
            self.members[place].task.after_update(self.update)

    def _stacked(self, values: Mapping[int, Tensor]) -> Tensor:
        """Values [M, ...], one a network; another's for an idle one."""
        some = next(iter(values.values()))
        return torch.stack([values.get(place, some) for place in range(self.size)])

    def _loss(self, drawn: dict[int, DrawnBatch]) -> Tensor:
        """The sum of all members' losses; the forward pass is one, the losses are one for each kind of batch."""
        batches = {place: part.batch for place, part in drawn.items()}
        images = self._stacked({place: batch.images for place, batch in batches.items()})
        logits, attention = self.networks(images, attends=self.attends, hidden=self._hidden_mixes(batches))
        kinds = defaultdict(list)
        for place, batch in batches.items():
            kinds[self._first_like[place], batch.box is None, batch.mask is None, batch.moved].append(place)
        return torch.stack([self._loss_of(places, drawn, images, logits, attention) for places in kinds.values()]).sum()

    def _hidden_mixes(self, batches: Mapping[int, MixedBatch]) -> dict[str, tuple[Tensor, Tensor]]:
        """Own weights and partners [M, B] of what is mixed inside the networks, by module; 1 where nothing is.

        The batches that ask for it count as mixed from now on.
        """
        asked = {place: batch.hidden for place, batch in batches.items() if batch.hidden is not None}
        mixes = {}
        for name in sorted({hidden.name for hidden in asked.values()}):
            here = {place for place, hidden in asked.items() if hidden.name == name}
            weights = {
                place: batch.own_weight if place in here else torch.ones_like(batch.own_weight)
                for place, batch in batches.items()
            }
            partner = self._stacked({place: batch.partner for place, batch in batches.items()})
            mixes[name] = self._stacked(weights), partner
        for hidden in asked.values():
            hidden.done = True
        return mixes

    def _loss_of(
        self, places: list[int], drawn: dict[int, DrawnBatch], images: Tensor, logits: Tensor, attention: Tensor | None
    ) -> Tensor:
        """The sum of the losses of members with one criterion and one kind of batch, recorded on the way.

        Always of as many batches as the stack has networks, by repeating one: see the head of this file.
        """
        count = len(places)
        rows = places + places[:1] * (self.size - count)
        some: Any = moved(torch.tensor(rows, device="cpu"), logits.device)
        chosen = slice(None) if rows == list(range(self.size)) else some
        attention = None if attention is None else attention[chosen].flatten(0, 1)
        whole = joined([drawn[place] for place in rows], images[chosen].flatten(0, 1))
        loss, parts, record = losses_of(self._criteria[places[0]], whole, logits[chosen].flatten(0, 1), attention)
        losses = loss.unflatten(0, (self.size, -1)).mean(dim=1)[:count]
        values = {**record, **(parts if len(parts) > 1 else {})}
        for place, sums in zip(places, sums_of(list(values.values()), self.size), strict=False):
            self.members[place].state.statistics.add_sums(list(values), sums)
        bad = torch.where(losses.detach().isfinite(), NEVER, self.update)
        self.bad[some[:count]] = torch.minimum(self.bad[some[:count]], bad)
        return losses.sum()


def joined(parts: Sequence[DrawnBatch], images: Tensor) -> DrawnBatch:
    """Drawn batches of one kind, one after the other, with their images; what was hidden is done."""
    size = parts[0].size
    batches = [part.batch._replace(partner=part.batch.partner + size * place) for place, part in enumerate(parts)]
    others: Any = zip(*(batch[1:] for batch in batches), strict=True)
    joint: Any = (torch.cat(values) if isinstance(values[0], Tensor) else values[0] for values in others)
    draws = [part.draws for part in parts if part.draws is not None]
    whole = MixedBatch(images, *joint)._replace(hidden=None)
    return DrawnBatch(whole, torch.cat(draws) if draws else None)


def _mixed_behind(mix: tuple[Tensor, Tensor], _module: nn.Module, _arguments: Any, output: Tensor) -> Tensor:
    return mixed_output(output, *mix)


class StackedNetworks:
    """M networks whose parameters, and their gradients, become slices of stacked tensors [M, ...].

    Each network stays whole: it is read, written and evaluated as before. Who clears one network's gradients to None
    cuts it off. In a stack of a larger `size` the first network is repeated.
    """

    def __init__(self, networks: Sequence[nn.Module], size: int) -> None:
        check_stackable(networks[0])
        self.networks = networks
        self.skeleton = copy.deepcopy(networks[0])
        for module in self.skeleton.modules():
            if hasattr(module, "fused_attn"):
                module.fused_attn = False  # type: ignore[assignment]  # slower for heads small enough to be stacked
        self.parameters: dict[str, Tensor] = {}
        self.gradients: list[Tensor] = []
        self.memory: list[Tensor] = []  # of values and gradients of each [2, M, n], where zeros fill up to n
        for name, first in networks[0].named_parameters():
            width, shape = first.numel(), (2, size, *first.shape)
            memory = first.new_zeros(2, size, -(-width // LANES) * LANES)
            values, gradients = memory[..., :width].view(shape)
            for place in range(size):
                parameter = networks[place if place < len(networks) else 0].get_parameter(name)
                values[place] = parameter.detach()
                if place < len(networks):
                    parameter.data, parameter.grad = values[place], gradients[place]
            self.parameters[name] = values.requires_grad_()
            self.gradients.append(gradients)
            self.memory.append(memory)

    def rows(self, start: int, end: int) -> dict[nn.Parameter, Tensor]:
        """What an optimizer updates for networks `start` to `end`: [end - start, n] for each parameter of the first."""
        found = {}
        for name, memory in zip(self.parameters, self.memory, strict=True):
            part = found[self.networks[start].get_parameter(name)] = memory[0, start:end]
            part.grad = memory[1, start:end]
        return found

    def __call__(
        self, images: Tensor, *, attends: bool = False, hidden: Mapping[str, tuple[Tensor, Tensor]] | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Logits [M, B, C] of images [M, B, C, H, W].

        With `attends` also the class attention [M, B, patches] of the last block, the mean over its heads, without
        gradient. `hidden` says by module what is mixed behind it: own weights and partners [M, B].
        """
        mixes = dict(hidden or {})

        def forward(parameters: dict[str, Tensor], own: Tensor, *mix: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
            with ExitStack() as stack:
                for name, values in zip(mixes, mix, strict=True):
                    hook = partial(_mixed_behind, values)
                    stack.callback(self.skeleton.get_submodule(name).register_forward_hook(hook).remove)
                seen = stack.enter_context(recorded_attention(self.skeleton)) if attends else []
                logits = functional_call(self.skeleton, parameters, (own,))
            return (logits, seen[-1].mean(dim=1)) if attends else (logits,)

        logits, *attention = vmap(forward)(self.parameters, images, *mixes.values())
        return logits, attention[0] if attention else None

    def backward(self, loss: Tensor) -> None:
        """Replace all gradients by those of a loss."""
        found = torch.autograd.grad(loss, list(self.parameters.values()), materialize_grads=True)
        for gradients, values in zip(self.gradients, found, strict=True):
            gradients.copy_(values)


def check_stackable(network: nn.Module) -> None:
    """Raise RunError, naming the module, where networks of this architecture cannot be run as one."""
    for name, module in network.named_modules():
        if isinstance(module, NORMS):
            raise RunError(
                f"{name} of {type(network).__name__} is batch normalisation, which cannot be stacked: set Model.norm "
                f"to 'group', or train its runs one by one"
            )
        rate = module.p if isinstance(module, DROPOUTS) else module.drop_prob if isinstance(module, DropPath) else 0
        if rate:
            raise RunError(
                f"{name} of {type(network).__name__} drops at random, which an ensemble would do otherwise than a "
                f"network alone: set its rate to 0, or train its runs one by one"
            )
