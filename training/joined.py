"""Batches of the members of an ensemble, brought together: stacked by place, or one after the other by kind."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lumix.batch import MixedBatch
from training.mix_task import DrawnBatch
from training.stacked import HiddenMix


def stacked(values: Mapping[int, Tensor], members: int) -> Tensor:
    """Values [M, ...], one a member; another's for a lost one, whose network runs on in its place."""
    some = next(iter(values.values()))
    return torch.stack([values.get(place, some) for place in range(members)])


def hidden_mixes(batches: Mapping[int, MixedBatch], members: int) -> dict[str, HiddenMix]:
    """What is mixed inside the networks, by module; a network with nothing to mix behind it has own weights of 1.

    The batches that ask for it count as mixed from now on.
    """
    asked = {place: batch.hidden for place, batch in batches.items() if batch.hidden is not None}
    if not asked:
        return {}
    partner = stacked({place: batch.partner for place, batch in batches.items()}, members)
    mixes = {}
    for name in sorted({hidden.name for hidden in asked.values()}):
        here = {place for place, hidden in asked.items() if hidden.name == name}
        weights = {
            place: batch.own_weight if place in here else torch.ones_like(batch.own_weight)
            for place, batch in batches.items()
        }
        mixes[name] = HiddenMix(stacked(weights, members), partner)
    for hidden in asked.values():
        hidden.done = True
    return mixes


def kind_of(batch: MixedBatch) -> tuple[bool, ...]:
    """Batches of equal kinds can be `joined`."""
    return batch.box is None, batch.mask is None, batch.moved


def joined(parts: Sequence[DrawnBatch], images: Tensor) -> DrawnBatch:
    """Drawn batches of one kind, one after the other, with their images; what was hidden is done."""
    size = parts[0].size
    batches = [part.batch._replace(partner=part.batch.partner + size * place) for place, part in enumerate(parts)]
    others: Any = zip(*(batch[1:] for batch in batches), strict=True)
    joint: Any = (torch.cat(values) if isinstance(values[0], Tensor) else values[0] for values in others)
    draws = [part.draws for part in parts if part.draws is not None]
    whole = MixedBatch(images, *joint)._replace(hidden=None)
    return DrawnBatch(whole, torch.cat(draws) if draws else None)
