"""Evaluations: keys, the cache in a run directory, and attention read from timm's models as timm computes it."""

import importlib
import json
import sys

import pytest
import timm
import torch
from engine import small_run

from evaluation import evaluation as ev
from evaluation.evaluation import Evaluation
from lumix.integrations.attention import class_attention
from training import run_directory
from training.models import build_model
from training.state import export_model


def finish(directory, seed: int = 0):
    """A run directory with the weights that a network of the tests starts from."""
    run = small_run()
    card = {
        "key": run.key, "seed": seed, "model": run.model.to_dict(), "num_classes": 10, "in_chans": 1, "image_size": 8,
        "mean": [0.3], "std": [0.4], "data": "digits", "test_crop": 1.0, "weights": "raw",
    }  # fmt: skip
    export_model(directory, build_model(run.model, 10, 1, 8, seed=seed), card)
    run_directory.write_json(directory / "config.json", {"key": run.key, "seed": seed, "run": run.to_dict()})
    checksum = run_directory.sha256(directory / "model.safetensors")
    run_directory.write_json(directory / "result.json", {"key": run.key, "seed": seed, "checksum": checksum})
    return directory


def test_keys_follow_protocol_and_arguments_alone():
    first = Evaluation("shuffling", {"grids": [1], "seed": 0})
    assert first.key == Evaluation("shuffling", {"seed": 0, "grids": [1]}).key
    assert first.key.startswith("shuffling-")
    assert Evaluation.from_dict(json.loads(json.dumps(first.to_dict()))).key == first.key
    assert len({Evaluation("shuffling", {"grids": [1], "seed": seed}).key for seed in range(5)}) == 5
    with pytest.raises(ValueError, match=r"protocol must be one of .*occlusion.* not 'oclusion'"):
        Evaluation("oclusion")


def test_every_protocol_has_a_driver():
    for protocol in ev.PROTOCOLS.values():
        assert callable(importlib.import_module(protocol.module).drive)


TOY = """
import numpy as np
from evaluation.evaluation import Outcome
calls = []
def drive(model, card, arguments, device):
    calls.append((card, arguments))
    return Outcome({"average": float(arguments.get("value", 12.5))}, 8, {"curve": np.arange(3)}, {"chosen": "a word"})
"""


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A protocol of another package: its module, registered as "toy" for the time of a test."""
    (tmp_path / "lumix_toy_protocol.py").write_text(TOY)
    monkeypatch.syspath_prepend(tmp_path)
    ev.register("toy", "lumix_toy_protocol", measured=("average",))
    module = importlib.import_module("lumix_toy_protocol")
    module.EVALUATION = Evaluation("toy")
    yield module
    del ev.PROTOCOLS["toy"], sys.modules["lumix_toy_protocol"]


def test_a_protocol_of_another_package_is_added_once(toy):
    ev.register("toy", "lumix_toy_protocol", measured=("average",))
    assert ev.PROTOCOLS["toy"].measured == {"average"}
    with pytest.raises(ValueError, match="protocol 'toy' is lumix_toy_protocol already: choose another name"):
        ev.register("toy", "elsewhere")
    assert not ev.PROTOCOLS["shuffling"].measured


def test_a_result_is_kept_until_the_weights_change(tmp_path, toy):
    directory = finish(tmp_path / "run")
    first = ev.evaluate(directory, toy.EVALUATION)
    assert ev.evaluate(directory, toy.EVALUATION) == first == ev.read_evaluation(directory, toy.EVALUATION)
    assert len(toy.calls) == 1
    assert (first["values"], first["n_samples"]) == ({"average": 12.5}, 8)
    assert first["checksum"] == run_directory.read_result(directory)["checksum"]
    measured = first["measured"]
    assert measured["images_per_second"] == pytest.approx(8 / measured["seconds"])
    assert first["facts"] == {"chosen": "a word"}
    assert toy.calls[0][0]["run"] == small_run().to_dict()
    assert ev.read_arrays(directory / "eval", toy.EVALUATION)["curve"].tolist() == [0, 1, 2]
    finish(directory, seed=1)
    assert ev.read_evaluation(directory, toy.EVALUATION) is None
    assert ev.evaluate(directory, toy.EVALUATION)["checksum"] != first["checksum"]
    assert len(toy.calls) == 2


def test_other_code_is_accepted_unless_fresh_code_is_asked_for(tmp_path, toy):
    directory = finish(tmp_path / "run")
    other = ev.evaluate(directory, toy.EVALUATION) | {"fingerprint": "of other code"}
    run_directory.write_json(directory / "eval" / f"{toy.EVALUATION.key}.json", other)
    assert ev.evaluate(directory, toy.EVALUATION) == other
    assert len(toy.calls) == 1
    assert ev.evaluate(directory, toy.EVALUATION, fresh_code=True)["fingerprint"] == ev.fingerprint()
    assert len(toy.calls) == 2


def test_a_second_model_is_handed_over_and_its_weights_count(tmp_path, toy):
    directory, other = finish(tmp_path / "run"), finish(tmp_path / "other")
    evaluation = Evaluation("toy", {"source": {"key": "k"}})
    with pytest.raises(ValueError, match="needs the run directories of"):
        ev.evaluate(directory, evaluation)
    ev.evaluate(directory, evaluation, others={"source": other})
    assert toy.calls[0][1]["source"] == {"key": "k", "directory": other}
    finish(other, seed=1)
    assert ev.read_evaluation(directory, evaluation, {"source": other}) is None


def test_damaged_and_unfinished_are_named(tmp_path, toy):
    with pytest.raises(run_directory.RunError, match="no trained model"):
        ev.evaluate(tmp_path / "nothing", toy.EVALUATION)
    directory = finish(tmp_path / "run")
    for text in ("{", "{}", '{"key": "toy"}', "[]"):
        run_directory.write_text(directory / "eval" / f"{toy.EVALUATION.key}.json", text)
        with pytest.raises(run_directory.RunError, match="delete it and run the same command again"):
            ev.evaluate(directory, toy.EVALUATION)
    (directory / "eval" / f"{toy.EVALUATION.key}.json").unlink()
    (directory / "eval" / f"{toy.EVALUATION.key}.npz").write_bytes(b"PK")
    with pytest.raises(run_directory.RunError, match=r"npz is damaged .*: delete it"):
        ev.read_arrays(directory / "eval", toy.EVALUATION)
    (directory / "config.json").unlink()
    with pytest.raises(run_directory.RunError, match="does not say which run was trained"):
        ev.evaluate(directory, toy.EVALUATION)


def test_a_number_that_is_none_is_no_result(tmp_path, toy):
    directory, evaluation = finish(tmp_path / "run"), Evaluation("toy", {"value": "nan"})
    with pytest.raises(ValueError, match="would hold nan for average"):
        ev.evaluate(directory, evaluation)
    assert ev.read_evaluation(directory, evaluation) is None


SMALL = {"img_size": 32, "embed_dim": 24, "depth": 3, "num_heads": 3, "num_classes": 5}


@pytest.mark.parametrize(
    ("name", "extra", "prefix"),
    [
        ("deit_small_patch16_224", {}, 1),
        ("deit_tiny_distilled_patch16_224", {}, 2),
        ("vit_tiny_patch16_224", {"qk_norm": True, "reg_tokens": 3}, 4),
        ("vit_tiny_patch16_224", {"qkv_bias": False}, 1),
    ],
)
def test_attention_is_that_of_timm_without_fused_kernels(name, extra, prefix):
    model = timm.create_model(name, **{**SMALL, "patch_size": 8, **extra}).eval()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in model.parameters():  # timm starts with attention that is nearly uniform
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)), alpha=0.1)
        found = class_attention(model, images)
        logits = model(images)
        layer = model.blocks[-1].attn
        assert layer.fused_attn
        layer.fused_attn = False
        seen = []
        handle = layer.attn_drop.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
        model(images)
        handle.remove()
    assert found.shape == (2, 3, 16)
    torch.testing.assert_close(found, seen[0][:, :, 0, prefix:])
    assert bool((found.sum(-1) < 1).all())
    assert float(found.std()) > 1e-3
    layer.fused_attn = True
    torch.testing.assert_close(model(images), logits)
    assert not layer._forward_pre_hooks


@pytest.mark.parametrize("name", ["resnet18", "swin_tiny_patch4_window7_224", "xcit_nano_12_p16_224"])
def test_models_without_ordinary_class_attention_are_named(name):
    with torch.device("meta"):
        model = timm.create_model(name)
    with pytest.raises(ValueError, match=rf"{type(model).__name__}.* use a ViT or DeiT"):
        class_attention(model, torch.empty(1, 3, 224, 224, device="meta"))
