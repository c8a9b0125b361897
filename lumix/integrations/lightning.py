"""Mixing for a LightningModule, of `lightning` or `pytorch_lightning`: training batches alone, on the device.

    class Net(Mixing, LightningModule):
        mixer, mix_loss = lumix.Switch(), lumix.MixLoss(lumix.LUMixRule(), smoothing=0.1, eta=1.0)

        def training_step(self, batch, index):
            return self.mixed_loss(batch)

Loaders stay; `forward` gives logits. Draws depend on `mix_seed`, rank and step: nothing is to be saved. Give `self.log`
a batch_size, `batch.size`: Lightning cannot tell it from a tuple.
"""

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from lumix.batch import MixedBatch
from lumix.integrations.streams import StepStream, TrainerMixing
from lumix.mixers.manifold import hidden_mixing


class Mixing(TrainerMixing):
    """Turns training batches (images, labels) into a `MixedBatch`. Stands before LightningModule among the bases."""

    BASE = "LightningModule"
    mix_seed: int = 0
    mix_generator: torch.Generator

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """A training batch mixed, any other as it is. A module that overrides this calls it through super()."""
        batch = super().on_after_batch_transfer(batch, dataloader_idx)  # type: ignore[misc]
        trainer: Any = self.trainer  # type: ignore[attr-defined]
        if not trainer.training:
            return batch
        self.check_settings()
        is_mixed = isinstance(batch, MixedBatch)  # by a collate_fn
        if not is_mixed and not (isinstance(batch, tuple | list) and len(batch) == 2 and isinstance(batch[0], Tensor)):
            raise ValueError(f"a batch must be (images, labels), not a {type(batch).__name__}: change the loader")
        streams = self.__dict__.setdefault("_mix_streams", StepStream())
        place = self.mix_seed, trainer.global_rank, trainer.global_step, batch[0].device
        self.mix_generator = streams.next(*place)
        return batch if is_mixed else self.mixer(batch[0], batch[1], self.mix_generator, self)

    def mixed_loss(self, batch: MixedBatch) -> Tensor:
        """The mixed loss of a training batch, a float32 scalar; attention is that of the timm transformer in here."""
        with ExitStack() as stack:
            stack.enter_context(hidden_mixing(self, batch))  # type: ignore[arg-type]
            seen: list[Tensor] = []
            if self.mix_loss.rule.needs_attention:
                from lumix.integrations.attention import recorded_attention

                seen = stack.enter_context(recorded_attention(self))  # type: ignore[arg-type]
            logits = self(batch.images)  # type: ignore[operator]
            if len(seen) > 1:
                raise ValueError(f"the transformer ran {len(seen)} times in one forward pass: let it run once")
        return self.mix_loss(logits, batch, self.mix_generator, seen[-1].mean(dim=1) if seen else None)
