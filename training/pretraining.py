"""Small networks trained here, always alike, where a run of larger ones would begin with weights of ImageNet."""

import json
from functools import lru_cache

import torch
from torch import nn

from training.config import Data, Model
from training.data import load, normalise
from training.imageset import ImageSet
from training.model import build_model
from training.rng import epoch_order
from training.update import Updater

LEARNING_RATE, BATCH, EPOCHS = 5e-3, 50, 15
SHAPES_EPOCHS = 8  # of 2000 scenes


def train_plainly(model: Model, train: ImageSet, epochs: int) -> nn.Module:
    """The network of `model` after so many epochs on a set, unmixed and unaugmented; everything is fixed."""
    channels, size = train.images.shape[1:3]
    network = build_model(model, train.num_classes, channels, size, seed=0).train()
    updater = Updater(torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE))

    def loss_of(chosen: torch.Tensor) -> torch.Tensor:
        logits = network(normalise(train.images[chosen], train.mean, train.std))
        return nn.functional.cross_entropy(logits, train.labels[chosen])

    with torch.enable_grad():
        for epoch in range(epochs):
            for chosen in epoch_order(len(train), 0, epoch).split(BATCH):
                updater.update(loss_of, chosen)
    return network


def initial_network(model: Model, num_classes: int, in_chans: int, image_size: int, seed: int) -> nn.Module:
    """The network that a training begins with: `build_model`'s, with the weights that `model.weights` asks for.

    Weights "shapes" are of the same network trained on procedural scenes of ten shapes; the classifier is new.

    Raises:
        ValueError: for images without three channels, which the scenes have.
        RunError: where published weights cannot be had.
    """
    network = build_model(model, num_classes, in_chans, image_size, seed, fetch=True)
    if model.weights == "shapes":
        if in_chans != 3:
            raise ValueError(f"Model.weights 'shapes' are for images of 3 channels, not of {in_chans}")
        text = json.dumps(model.replace(weights="").to_dict(), sort_keys=True)
        head = network.get_classifier()  # type: ignore[operator]
        kept = {id(parameter) for parameter in head.parameters()}
        names = {name for name, parameter in network.named_parameters() if id(parameter) in kept}
        trained = _trained_on_shapes(text, image_size)
        own = network.state_dict()
        network.load_state_dict({**trained, **{name: own[name] for name in names}})
    return network


@lru_cache(maxsize=4)
def _trained_on_shapes(model: str, image_size: int) -> dict[str, torch.Tensor]:
    """The state of a network, of a model as JSON; as good as constant, so never write into the tensors."""
    scenes, _ = load(Data("shapes", image_size))
    return train_plainly(Model.from_dict(json.loads(model)), scenes, SHAPES_EPOCHS).state_dict()
