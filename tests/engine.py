"""A small run for the tests of the engine: Mixup or CutMix, LUMix, stochastic depth, a moving average."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from experiments.methods import SWITCH
from lumix import CrossEntropy, LUMixRule, Regulariser
from training import loop
from training.config import Data, Execution, Loss, Mix, Model, Optim, Run

VIT = {"patch_size": 2, "embed_dim": 16, "depth": 1, "num_heads": 2, "mlp_ratio": 2.0, "drop_path_rate": 0.2}
SMOOTHED = CrossEntropy(0.1)
LUMIX = Loss(rule=LUMixRule(), terms=(SMOOTHED, Regulariser(smoothing=0.1)))
OFTEN = Execution(checkpoint_seconds=0)


def small_run(**changes: Any) -> Run:
    """A run of 6 updates an epoch on 100 digits; keyword arguments replace fields of `Run`."""
    run = Run(
        data=Data(name="digits", image_size=8, train_size=100, crop_padding=1),
        model=Model(role="deit_s", name="deit_small_patch16_224", arguments=VIT, init="small"),
        optim=Optim(lr=5e-3, warmup_epochs=1, ema_decay=0.9, clip_grad=1.0),
        mix=Mix(choices=SWITCH),
        loss=LUMIX,
        epochs=4,
        batch_size=16,
        median_last=2,
    )
    return run.replace(**changes)


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(directory / "model.safetensors")


class StopHere(Exception):  # noqa: N818
    """Stands for whatever ends a process in the middle of its work."""


@contextmanager
def stopped_after(
    update: int, check_every: int = loop.CHECK_EVERY, kind: type[loop.Loop] = loop.Loop
) -> Iterator[None]:
    """Training within it ends by `StopHere` right after update `update` (from 0), and must come so far."""
    step = kind.step

    def stopping(self: loop.Loop, batches: Any) -> None:
        step(self, batches)
        if self.update == update:
            raise StopHere

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, "step", stopping)
        patch.setattr(loop, "CHECK_EVERY", check_every)
        with pytest.raises(StopHere):
            yield


def check_resumed_equals_whole(run: Run, tmp_path: Path) -> dict[str, Any]:
    """The result of a run of 12 updates; asserts that, stopped at one and called again, it has equal weights."""
    whole = loop.fit(run, 0, tmp_path / "whole")
    with stopped_after(9, check_every=2):
        loop.fit(run, 0, tmp_path / "stopped", OFTEN)
    resumed = loop.fit(run, 0, tmp_path / "stopped", OFTEN)
    assert "resumed" in (tmp_path / "stopped" / "log.txt").read_text()
    assert resumed["checksum"] == whole["checksum"]
    return whole
