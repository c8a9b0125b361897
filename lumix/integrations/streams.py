"""What the mixins for trainers share: generators by training step, and their place among the bases."""

from hashlib import blake2b
from typing import Any, ClassVar

import torch

from lumix.inputs import MIX_LOSS, check_part
from lumix.losses import MixLoss
from lumix.mixers.base import MIXER, Mixer


class StepStream:
    """One generator, seeded anew by (seed, rank, step, batches of that step), so that a resumed run draws the same."""

    def __init__(self) -> None:
        self._last: tuple[int, int] = (-1, 0)
        self._generator = torch.Generator()

    def next(self, seed: int, rank: int, step: int, device: torch.device) -> torch.Generator:
        """The generator of the next batch, on `device`; gradient accumulation gives one step several batches."""
        device = torch.device("cpu") if device.type == "mps" else device  # MPS knows no float64
        self._last = (step, self._last[1] + 1 if step == self._last[0] else 0)
        if self._generator.device != device:
            self._generator = torch.Generator(device)
        digest = blake2b(repr((seed, rank, *self._last)).encode(), digest_size=8).digest()
        return self._generator.manual_seed(int.from_bytes(digest, "little"))


class TrainerMixing:
    """Base of the mixins, each of which stands before the `BASE` whose methods it changes."""

    BASE: ClassVar[str]
    mixer: Mixer
    mix_loss: MixLoss

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        bases = [parent.__name__ for parent in cls.__mro__]
        if cls.BASE in bases and bases.index(cls.BASE) < bases.index("Mixing"):
            raise TypeError(f"{cls.__name__} would never mix: write class {cls.__name__}(Mixing, {cls.BASE})")

    def check_settings(self) -> None:
        check_part("mixer", getattr(self, "mixer", None), MIXER, "a mixer as lumix.CutMix()")
        check_part("mix_loss", getattr(self, "mix_loss", None), MIX_LOSS, "a lumix.MixLoss()")
