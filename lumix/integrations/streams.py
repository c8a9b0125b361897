"""What the mixins for trainers share: generators by training step, and their place among the bases."""

from hashlib import blake2b
from typing import Any

import torch

from lumix.inputs import check_part


class StepStream:
    """One generator, seeded anew by (seed, rank, step, how many batches that step has had).

    A run that goes on from a checkpoint so draws as one that was never stopped.
    """

    def __init__(self) -> None:
        self._last: tuple[int, int] = (-1, 0)
        self._generator = torch.Generator()

    def next(self, seed: int, rank: int, step: int, device: torch.device) -> torch.Generator:
        """The generator of the next batch, on `device`; gradient accumulation gives one step several batches."""
        self._last = (step, self._last[1] + 1 if step == self._last[0] else 0)
        if self._generator.device != device:
            self._generator = torch.Generator(device)
        digest = blake2b(repr((seed, rank, *self._last)).encode(), digest_size=8).digest()
        return self._generator.manual_seed(int.from_bytes(digest, "little"))


def check_settings(trainer: Any) -> None:
    """Refuse a mixer or a loss that is none, or that was not set."""
    check_part("mixer", getattr(trainer, "mixer", None), ("draw", "apply"), "a mixer as lumix.CutMix()")
    check_part("mix_loss", getattr(trainer, "mix_loss", None), ("per_sample", "weights"), "a lumix.MixLoss()")


def check_first(cls: type, base: str) -> None:
    """Raise TypeError where a class has Mixing after the base whose methods it changes."""
    bases = [parent.__name__ for parent in cls.__mro__]
    if base in bases and bases.index(base) < bases.index("Mixing"):
        raise TypeError(f"{cls.__name__} would never mix: write class {cls.__name__}(Mixing, {base})")
