"""fit_many: runs that share data, architecture, batch and length are trained as one ensemble, each as if alone.

The networks run as one, by torch.func.vmap over their stacked parameters; all else is each member's own: seed, order of
the images, mixing, label rule, terms, optimizer and learning rate, run directory. In float64 a member equals its run
alone to the last digits; in float32 they round differently, and the results are equal in distribution. result.json says
how many were stacked.
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
from timm.utils.model import unwrap_model
from torch import Tensor, nn
from torch.func import functional_call, vmap

from lumix.batch import MixedBatch
from lumix.integrations.attention import recorded_attention
from lumix.mixers.manifold import mixed_output
from training.config import Execution, Run
from training.loop import NEVER, Batch, Loop, Training, carry_out
from training.run_directory import RunError
from training.state import sums_of
from training.tasks.mixed import DrawnBatch, MixTask, losses_of

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
    whose loss is not finite is dropped: its answer is the RunError that says so, and the others go on.

    Raises:
        Stopped: as `stop` asked for; the same call goes on from there.
        RunError: where the runs cannot be trained together, saying why.
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
    places = list(zip(runs, seeds, directories, strict=True))
    return carry_out(Ensemble, places, execution or Execution(), stop)


class Ensemble(Loop):
    """Trainings under way whose networks run as one."""

    CHECKPOINT = "ensemble.pt"

    def __init__(self, members: Sequence[Training], stop: Callable[[], bool] = bool) -> None:
        super().__init__(members, stop)
        if self.process.distributed:
            raise RunError(f"an ensemble trains in one process, not in {self.process.world}: train its runs one by one")
        tasks = [cast(MixTask, member.task) for member in members]
        self.networks = StackedNetworks([unwrap_model(task.trainable_module) for task in tasks])
        self._criteria = [task.criterion for task in tasks]
        losses = [member.run.loss for member in members]
        self._first_like = [losses.index(loss) for loss in losses]  # the first member with an equal loss
        self.attends = any(criterion.rule.needs_attention for criterion in self._criteria)

    def mode(self, train: bool) -> None:
        self.networks.skeleton.train(train)

    def predict(self, images: Tensor | Mapping[int, Tensor]) -> Tensor:
        shared = isinstance(images, Tensor)
        return self.networks(images if isinstance(images, Tensor) else self._stacked(images), shared=shared)[0]

    def step(self, batches: Mapping[int, Batch]) -> None:
        drawn: dict[int, DrawnBatch] = {
            place: self.members[place].prepare(images, labels) for place, (images, labels) in batches.items()
        }
        with self.first.updater.autocast():
            self._loss(drawn).backward()
        for place in batches:
            self.members[place].updater.apply()
            self.members[place].task.after_update(self.update)
        self.networks.zero_grad()

    def _stacked(self, values: Mapping[int, Tensor]) -> Tensor:
        """Values [M, ...], one a member; another's for a lost one, whose network runs on in its place."""
        some = next(iter(values.values()))
        return torch.stack([values.get(place, some) for place in range(len(self.members))])

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

    Each network stays whole: its own optimizer updates it, and it is read, written and evaluated as before. Gradients
    add up in the stacks until `zero_grad`; who clears one network's gradients to None cuts it off.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        check_stackable(networks[0])
        self.skeleton = copy.deepcopy(networks[0])
        for module in self.skeleton.modules():
            if hasattr(module, "fused_attn"):
                module.fused_attn = False  # type: ignore[assignment]  # slower for heads small enough to be stacked
        self.parameters: dict[str, Tensor] = {}
        self._gradients: list[Tensor] = []
        for name, _ in networks[0].named_parameters():
            own = [network.get_parameter(name) for network in networks]
            stack = torch.stack([parameter.detach() for parameter in own]).requires_grad_()
            stack.grad = gradient = torch.zeros_like(stack)
            for place, parameter in enumerate(own):
                parameter.data, parameter.grad = stack.data[place], gradient[place]
            self.parameters[name] = stack
            self._gradients.append(gradient)

    def __call__(
        self,
        images: Tensor,
        *,
        shared: bool = False,
        attends: bool = False,
        hidden: Mapping[str, tuple[Tensor, Tensor]] | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Logits [M, B, C] of images [M, B, C, H, W], or [B, C, H, W] that are `shared` by all networks.

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

        in_dims = (0, None if shared else 0, *(0 for _ in mixes))
        logits, *attention = vmap(forward, in_dims=in_dims)(self.parameters, images, *mixes.values())
        return logits, attention[0] if attention else None

    def zero_grad(self) -> None:
        """Clear all gradients in place."""
        for gradient in self._gradients:
            gradient.zero_()


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
