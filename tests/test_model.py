"""Models: seeds decide the weights and nothing else does, published weights, weights trained on scenes."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from engine import small_run
from torch import nn

from experiments.scales.mini_models import SCENE_MODELS
from training.config import Data, Loss, Mix, Model, Optim
from training.loop import fit
from training.models import build_model, initial_network
from training.run_directory import RunError
from training.state import load_model

TINY = {"patch_size": 2, "embed_dim": 32, "depth": 2, "num_heads": 2, "mlp_ratio": 2}
DEIT = Model("deit_s", "deit_small_patch16_224", TINY, init="small")


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("init", ["timm", "small"])
def test_weights_depend_on_the_seed_alone_and_global_state_stays(init: str) -> None:
    model = DEIT.replace(init=init)
    torch.manual_seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # type: ignore[index]
    first = weights(build_model(model, 10, 1, 8, seed=5))
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]  # type: ignore[index]
    assert torch.equal(torch.get_rng_state(), before[2])
    torch.manual_seed(2)
    assert torch.equal(first, weights(build_model(model, 10, 1, 8, seed=5)))
    assert not torch.equal(first, weights(build_model(model, 10, 1, 8, seed=6)))


def test_small_init_gives_matrices_the_scale_of_xavier_and_positions_that_of_tokens() -> None:
    model = build_model(DEIT, 10, 1, 8, seed=0)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            fans = parameter.shape[0] + parameter.shape[1]
            assert parameter.std().item() == pytest.approx((2 / fans) ** 0.5, rel=0.15), name
    assert model.get_parameter("pos_embed").std().item() == pytest.approx(0.2, rel=0.15)
    assert (model.get_parameter("blocks.0.attn.qkv.bias") == 0).all()
    assert (model.get_parameter("blocks.0.norm1.weight") == 1).all()
    assert build_model(DEIT.replace(init="timm"), 10, 1, 8, seed=0).get_parameter("pos_embed").std().item() < 0.03


def test_the_prior_is_what_a_sigmoid_gives_without_an_image() -> None:
    plain = Model("resnet18", "resnet18", {"cifar_stem": True})
    first, second = (
        build_model(plain.replace(init=init), 10, 3, 32, seed=0).state_dict() for init in ("timm", "prior")
    )
    torch.testing.assert_close(second.pop("fc.bias").sigmoid(), torch.full((10,), 0.1))
    assert all(torch.equal(value, first[name]) for name, value in second.items())


def test_the_cifar_resnet_keeps_its_resolution() -> None:
    model = build_model(Model("resnet18", "resnet18", {"cifar_stem": True}), 100, 3, 32, seed=0)
    assert count(model) / 1e6 == pytest.approx(11.2, abs=0.05)  # design/recipes.md, section 1
    stem = model.get_submodule("conv1")
    assert (stem.kernel_size, stem.stride) == ((3, 3), (1, 1))
    assert model.get_parameter("conv1.weight").std().item() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.05)
    features = model.forward_features(torch.zeros(1, 3, 32, 32))  # type: ignore[operator]
    assert features.shape == (1, 512, 4, 4)
    assert torch.equal(
        weights(model), weights(build_model(Model("r", "resnet18", {"cifar_stem": True}), 100, 3, 32, 0))
    )


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Model("r", "deit_smal_patch16_224"), "has no model 'deit_smal_patch16_224'; did you mean deit_small_patch16"),
        (Model("r", "zzzz"), "has no model 'zzzz'; timm.list_models"),
        (Model("r", "resnet50", {"heads": 3}), r"resnet50 does not accept Model.arguments \{'heads': 3\}: .*heads"),
        (Model("r", "convnext_tiny", {"cifar_stem": True}), "cifar_stem needs a ResNet of timm, not 'convnext_tiny'"),
        (Model("r", "resnet18", {"checkpoint_path": "x.pt"}), r"arguments \{'checkpoint_path'\} would load weights"),
    ],
)
def test_bad_models_are_refused(model: Model, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_model(model, 10, 3, 32, seed=0)


SMALL = {"channels": [4, 8, 16, 32], "layers": [1, 1, 1, 1]}


@pytest.fixture
def published(tmp_path: Path) -> tuple[Model, nn.Module]:
    """A model that finds its published weights, of 1000 classes, in a file, and the network they were taken from."""
    network = build_model(Model("r", "resnet18", SMALL), 1000, 3, 32, seed=7)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    overlay = {"pretrained_cfg_overlay": {"file": str(tmp_path / "weights.pth")}}
    return Model("r", "resnet18.tv_in1k", SMALL | overlay, weights="imagenet"), network


def test_published_weights_are_all_but_the_head(published: tuple[Model, nn.Module]) -> None:
    model, source = published
    first, second, other = (build_model(model, 20, 3, 32, seed, fetch=True).state_dict() for seed in (1, 1, 2))
    for name, value in source.state_dict().items():
        if not name.startswith("fc"):
            assert torch.equal(first[name], value)
            assert torch.equal(other[name], value)
    assert first["fc.weight"].shape == (20, 32)
    assert torch.equal(first["fc.weight"], second["fc.weight"])
    assert not torch.equal(first["fc.weight"], other["fc.weight"])


def test_weights_are_fetched_where_training_begins_alone(published: tuple[Model, nn.Module], tmp_path: Path) -> None:
    model, source = published
    name = "layer1.0.conv1.weight"
    scratch = build_model(model, 10, 3, 32, seed=1)
    assert not torch.equal(scratch.get_parameter(name), source.get_parameter(name))
    still = Optim(lr=0.0, name="momentum", min_lr=0.0)
    run = small_run(data=Data("shapes", 16, train_size=16), model=model, optim=still, mix=Mix(), loss=Loss())
    fit(run.replace(epochs=1, median_last=1), 0, tmp_path / "run")
    (tmp_path / "weights.pth").unlink()
    trained = load_model(tmp_path / "run")
    assert torch.equal(trained.get_parameter(name), source.get_parameter(name))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Model("r", "darknet17", weights="imagenet"), "no published weights of darknet17: name a model that has some"),
        (
            Model("r", "resnet18", {"pretrained_cfg_overlay": {"file": "/nowhere.pth"}}, weights="imagenet"),
            "weights of resnet18 cannot be had .*fetch them once on a machine with internet",
        ),
        (Model("r", "resnet18.tv_in2k", weights="imagenet"), r"resnet18.tv_in2k cannot be had \(Invalid .*tv_in2k"),
    ],
)
def test_weights_that_cannot_be_had_are_named(model: Model, message: str) -> None:
    with pytest.raises(RunError, match=message):
        build_model(model, 10, 3, 32, seed=0, fetch=True)


def test_weights_that_would_be_overwritten_are_refused() -> None:
    for changes in ({"init": "small"}, {"arguments": {"cifar_stem": True}}):
        with pytest.raises(ValueError, match=r"Model\.weights 'imagenet' would be overwritten"):
            Model("r", "resnet18", weights="imagenet", **changes)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"Model.weights must be '' or 'imagenet'|Model.weights.*'imagenet1k'"):
        Model("r", "resnet18", weights="imagenet1k")


HEAD = "head.fc."  # of residual networks of version 2
SCENES = SCENE_MODELS["resnet18"].replace(weights="shapes")


def test_all_but_the_classifier_is_of_the_network_trained_on_scenes() -> None:
    before = torch.get_rng_state()
    first, second = (initial_network(SCENES, 10, 3, 16, seed) for seed in (0, 1))
    assert torch.equal(before, torch.get_rng_state())
    plain = build_model(SCENES, 10, 3, 16, 1)
    fresh = dict(plain.named_parameters())
    for (name, value), other in zip(first.named_parameters(), second.parameters(), strict=True):
        of_head = name.startswith(HEAD)
        assert torch.equal(other, fresh[name]) == of_head, name
        assert torch.equal(value, other) == (not of_head or name.endswith("bias")), name  # biases begin at 0
    with torch.no_grad():
        next(first.parameters()).add_(1)  # in memory of its own
    assert torch.equal(next(initial_network(SCENES, 10, 3, 16, 1).parameters()), next(second.parameters()))


def test_images_of_one_channel_are_refused() -> None:
    with pytest.raises(ValueError, match="for images of 3 channels, not of 1"):
        initial_network(SCENES, 10, 1, 16, 0)
