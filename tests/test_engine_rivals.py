"""The rivals of Table 6 in the engine: interrupted runs end in the same weights, processes agree, bfloat16 works."""

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
from engine import small_run, stopped_after
from test_distributed import two_processes

from lumix.train import loop
from lumix.train.config import Execution, Loss, Mix, Model
from lumix.train.loop import fit

RESNET = Model("resnet50", "resnet18", {"channels": [4, 8, 8, 8], "layers": [1, 1, 1, 1]})
VIT = small_run().model
LUMIX = Loss(r_r=0.4, r_s=0.1, eta=1.0)
FROZEN: dict[str, Any] = {"frozen_network": "embedded", "frozen_size": 0, "cells": 2}
RIVALS: dict[str, dict[str, Any]] = {
    "saliencymix": {"mix": Mix(method="saliencymix"), "loss": LUMIX},
    "puzzlemix": {"mix": Mix(method="puzzlemix"), "model": RESNET},
    "attentivecutmix": {"mix": Mix(method="attentivecutmix", **FROZEN), "loss": LUMIX},
    "resizemix": {"mix": Mix(method="resizemix")},
    "fmix": {"mix": Mix(method="fmix")},
    "manifoldmix": {"mix": Mix(method="manifoldmix", cutmix_alpha=2.0, switch_prob=0.9), "model": RESNET},
    "transmix": {"loss": Loss(r_a=0.5)},
    "attention on puzzlemix": {"mix": Mix(method="puzzlemix"), "loss": Loss(r_r=0.4, r_s=0.1, r_a=0.25, eta=1.0)},
}


@pytest.mark.parametrize("name", RIVALS)
def test_stopped_and_resumed_equals_undisturbed(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = small_run(epochs=2, **RIVALS[name])
    assert run.mix.method in run.method
    whole = fit(run, 0, tmp_path / "whole")
    monkeypatch.setattr(loop, "CHECK_EVERY", 2)
    often = Execution(checkpoint_seconds=0)
    with stopped_after(9):
        fit(run, 0, tmp_path / "stopped", often)
    resumed = fit(run, 0, tmp_path / "stopped", often)
    assert "resumed" in (tmp_path / "stopped" / "log.txt").read_text()
    assert resumed["checksum"] == whole["checksum"]


@pytest.mark.parametrize("name", ["puzzlemix", "saliencymix", "transmix"])
def test_half_precision_trains(name: str, tmp_path: Path) -> None:
    fit(small_run(epochs=2, precision="bfloat16", **RIVALS[name]), 0, tmp_path / "r")
    weights = safetensors.torch.load_file(tmp_path / "r" / "model.safetensors")
    assert all(bool(value.isfinite().all()) for value in weights.values())


@pytest.mark.parametrize("name", ["attention on puzzlemix", "manifoldmix"])
def test_two_processes_agree(name: str, tmp_path: Path) -> None:
    """The extra forward and backward pass, and the hooks, leave DistributedDataParallel in order."""
    first, second = two_processes(tmp_path, tmp_path / "both", epochs=2, **RIVALS[name])
    assert "error" not in first
    assert first["checksum"] == second["checksum"]


def test_manifold_mix_refuses_microbatches_in_a_sentence(tmp_path: Path) -> None:
    run = small_run(epochs=2, **RIVALS["manifoldmix"])
    with pytest.raises(ValueError, match="cannot be split"):
        fit(run, 0, tmp_path / "r", Execution(microbatch=4))


def test_transmix_refuses_a_network_without_class_token(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ResNet has no class token"):
        fit(small_run(model=RESNET, loss=Loss(r_a=0.5)), 0, tmp_path / "r")
    with pytest.raises(ValueError, match=r"Run.compile hides the attention that Loss.r_a reads"):
        small_run(loss=Loss(r_a=0.5), compile=True)
