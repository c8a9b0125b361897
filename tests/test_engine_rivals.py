"""The rivals of Table 6 in the engine: interrupted runs end in the same weights, processes agree, bfloat16 works."""

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
from engine import LUMIX, check_resumed_equals_whole, small_run
from test_distributed import two_processes

from experiments.methods import MIXUP
from lumix import LUMixRule, TransMixRule
from lumix.registry import get_part
from training.config import Execution, Loss, Mix, Model
from training.loop import fit
from training.parts import Embedded

RESNET = Model("resnet50", "resnet18", {"channels": [4, 8, 8, 8], "layers": [1, 1, 1, 1]})
VIT = small_run().model
TRANSMIX = Loss(rule=TransMixRule())


def beside_mixup(name: str, share: float = 0.5, **arguments: Any) -> Mix:
    """A rival in CutMix's place in the switch, on `share` of the batches."""
    return Mix(choices=((MIXUP, 1 - share), (get_part(name).cls(**arguments), share)))


FROZEN: dict[str, Any] = {"network": Embedded(), "size": None, "cells": 2}
RIVALS: dict[str, dict[str, Any]] = {
    "saliencymix": {"mix": beside_mixup("saliencymix"), "loss": LUMIX},
    "puzzlemix": {"mix": beside_mixup("puzzlemix"), "model": RESNET},
    "attentivecutmix": {"mix": beside_mixup("attentivecutmix", **FROZEN), "loss": LUMIX},
    "resizemix": {"mix": beside_mixup("resizemix")},
    "fmix": {"mix": beside_mixup("fmix")},
    "manifoldmix": {"mix": beside_mixup("manifoldmix", share=0.9), "model": RESNET},
    "transmix": {"loss": TRANSMIX},
    "attention on puzzlemix": {
        "mix": beside_mixup("puzzlemix"),
        "loss": LUMIX.replace(rule=LUMixRule(r_a=0.25)),
    },
}


@pytest.mark.parametrize("name", RIVALS)
def test_stopped_and_resumed_equals_undisturbed(name: str, tmp_path: Path) -> None:
    run = small_run(epochs=2, **RIVALS[name])
    assert all(mixer in run.key for mixer in run.mix.names)
    check_resumed_equals_whole(run, tmp_path)


@pytest.mark.parametrize("name", ["puzzlemix", "saliencymix", "transmix"])
def test_half_precision_trains(name: str, tmp_path: Path) -> None:
    """The network with strides sees 64 pixels: at 1 x 1 oneDNN leaves gradients of such weights unwritten (FAQ)."""
    size = {"data": small_run().data.replace(image_size=64)} if name == "puzzlemix" else {}
    fit(small_run(epochs=2, precision="bfloat16", **RIVALS[name], **size), 0, tmp_path / "r")
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
        fit(small_run(model=RESNET, loss=TRANSMIX), 0, tmp_path / "r")
