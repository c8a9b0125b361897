"""Networks that begin with weights trained on scenes: all but the classifier is theirs, and they help."""

import pytest
import torch

from experiments.scales.mini_models import SCENE_MODELS
from training.config import Data, Model
from training.data.sets import load, normalise
from training.models import build_model, initial_network

HEAD = "head.fc."  # of residual networks of version 2
MODEL = SCENE_MODELS["resnet18"].replace(weights="shapes")


def test_all_but_the_classifier_is_of_the_network_trained_on_scenes() -> None:
    before = torch.get_rng_state()
    first, second = (initial_network(MODEL, 10, 3, 16, seed) for seed in (0, 1))
    assert torch.equal(before, torch.get_rng_state())
    plain = build_model(MODEL, 10, 3, 16, 1)
    fresh = dict(plain.named_parameters())
    for (name, value), other in zip(first.named_parameters(), second.parameters(), strict=True):
        of_head = name.startswith(HEAD)
        assert torch.equal(other, fresh[name]) == of_head, name
        assert torch.equal(value, other) == (not of_head or name.endswith("bias")), name  # biases begin at 0
    with torch.no_grad():
        next(first.parameters()).add_(1)  # in memory of its own
    assert torch.equal(next(initial_network(MODEL, 10, 3, 16, 1).parameters()), next(second.parameters()))


def test_features_of_scenes_separate_other_scenes_better_than_random_ones() -> None:
    """By the nearest mean of a class among the features of ovals, which were not trained on."""
    train, test = load(Data("ovals", 16, train_size=300))

    def accuracy(network: torch.nn.Module) -> float:
        with torch.no_grad():
            own, other = (
                network.eval().forward_head(  # type: ignore[operator]
                    network.forward_features(normalise(part.images, part.mean, part.std)), pre_logits=True
                )
                for part in (train, test)
            )
        means = torch.stack([own[train.labels == label].mean(0) for label in range(10)])
        return float((torch.cdist(other, means).argmin(1) == test.labels).float().mean())

    trained, random = initial_network(MODEL, 10, 3, 16, 0), build_model(MODEL, 10, 3, 16, 0)
    assert accuracy(trained) > accuracy(random) + 0.05


def test_images_of_one_channel_are_refused() -> None:
    with pytest.raises(ValueError, match="for images of 3 channels, not of 1"):
        initial_network(MODEL, 10, 1, 16, 0)


def test_published_weights_still_go_with_no_changed_stem() -> None:
    Model("r", "resnet18", {"cifar_stem": True}, weights="shapes")
    with pytest.raises(ValueError, match="'imagenet' would be overwritten"):
        Model("r", "resnet18", {"cifar_stem": True}, weights="imagenet")
