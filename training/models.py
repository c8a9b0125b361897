"""Models: timm's entry points, shrunk or tuned by `Model.arguments`; initial weights depend on the seed alone.

`build_model` neither reads nor moves the caller's random state, so runs of different methods with equal seeds start
from equal weights, and it works on the meta device, where the models of the paper cost nothing. Published
weights, where a run begins with such, are fetched for training alone; small networks trained here, always alike, stand
where a run of larger ones would begin with weights of ImageNet.
"""

import difflib
import json
import math
from functools import lru_cache
from typing import Any

import timm
import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import BatchNormAct2d, GroupNormAct
from timm.models import ResNet, ResNetV2
from torch import Tensor, nn

from training.config import Data, Model
from training.data.sets import ImageSet, is_resident, load, normalise
from training.optim import Updater
from training.rng import epoch_order
from training.run_directory import RunError

LEARNING_RATE, BATCH, EPOCHS = 5e-3, 50, 15  # of networks that are trained here
SHAPES_EPOCHS = 8  # of 2000 scenes
EMBEDDED = Model("frozen", "resnet18", {"cifar_stem": True, "channels": [8, 16, 16, 16], "layers": [1, 1, 1, 1]})
Values = tuple[float, ...]  # an entry a channel
POSITIONS = ("pos_embed", "relative_position_bias_table", "cls_token")


def build_model(
    model: Model, num_classes: int, in_chans: int, image_size: int, seed: int, fetch: bool = False
) -> nn.Module:
    """The network of a run, on the CPU or on the device of an enclosing `torch.device` context, in training mode.

    Beside timm's own, `model.arguments` knows "cifar_stem": True, which gives a ResNet (or one of version 2) the stem
    of the CIFAR variants (3x3, stride 1, no pooling). The size goes only to models that fix it. With `fetch` it begins
    with the published weights that `model.weights` asks for; those trained here are `initial_network`'s.
    """
    entry_point = _known_entry_point(model.name)
    arguments: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in model.arguments.items()}
    cifar_stem = arguments.pop("cifar_stem", False)
    if files := {"checkpoint_path", "pretrained", "pretrained_cfg"} & arguments.keys():  # a model.json may name a file
        raise ValueError(f"Model.arguments {files} would load weights: leave them out, Model.weights asks for some")
    configuration = timm.get_pretrained_cfg(entry_point)
    if configuration is not None and configuration.fixed_input_size:
        arguments.setdefault("img_size", image_size)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        try:
            create = with_published_weights if fetch and model.weights == "imagenet" else timm.create_model
            network: Any = create(model.name, num_classes=num_classes, in_chans=in_chans, **arguments)
        except (TypeError, AssertionError, IndexError) as error:
            raise ValueError(f"timm's {model.name} does not accept Model.arguments {arguments}: {error}") from error
        if cifar_stem:
            _cifar_stem(network, model.name)
        if model.norm == "group":
            _group_norm(network)
        if model.init == "small":
            _small_init(network)
        if model.init == "prior":
            head = network.get_classifier()
            nn.init.constant_(head.bias, -math.log(num_classes - 1))
    return network


def _known_entry_point(name: str) -> str:
    """The entry point of a model's name, which may end in a tag of weights; a name that timm lacks is an error."""
    entry_point = name.split(".")[0]
    if not timm.is_model(entry_point):
        near = difflib.get_close_matches(entry_point, timm.list_models(), n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(near)}?" if near else "timm.list_models() names all of them"
        raise ValueError(f"timm {timm.__version__} has no model {name!r}; {hint}")
    return entry_point


def with_published_weights(name: str, **arguments: Any) -> nn.Module:
    """timm's model of that name with the weights of its tag, else of timm's choice; a head of another size is new."""
    entry_point = name.split(".")[0]
    if timm.is_model(entry_point) and not timm.is_model_pretrained(entry_point):
        raise RunError(f"timm {timm.__version__} has no published weights of {name}: name a model that has some")
    try:
        return timm.create_model(name, pretrained=True, **arguments)
    except (OSError, RuntimeError) as error:
        raise RunError(
            f"the pretrained weights of {name} cannot be had ({error}): fetch them once on a machine with internet, "
            f"timm keeps them in its cache, and leave arguments that change their shapes as they are"
        ) from error


def _cifar_stem(network: nn.Module, name: str) -> None:
    """Replace the 7x7 stem and its pooling, which would shrink a 32-pixel image to 8, by a 3x3 convolution."""
    stems = {ResNet: ("conv1", "maxpool"), ResNetV2: ("stem.conv", "stem.pool")}
    if type(network) not in stems:
        raise ValueError(f"Model.arguments cifar_stem needs a ResNet of timm, not {name!r}: leave it out")
    convolution, pooling = stems[type(network)]
    old = [part for part in network.get_submodule(convolution).modules() if isinstance(part, nn.Conv2d)]
    stem = nn.Conv2d(old[0].in_channels, old[-1].out_channels, kernel_size=3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
    network.set_submodule(convolution, stem)
    network.set_submodule(pooling, nn.Identity())


def _group_norm(network: nn.Module) -> None:
    """Replace batch normalisation by group normalisation with its initial weights, in groups of 4 channels."""
    for name, old in list(network.named_modules()):
        if not isinstance(old, nn.BatchNorm2d):
            continue
        channels, groups = old.num_features, max(1, old.num_features // 4)
        new: nn.Module
        if isinstance(old, BatchNormAct2d):
            new = GroupNormAct(channels, num_groups=groups, eps=old.eps)
            new.drop, new.act = old.drop, old.act
        else:
            new = nn.GroupNorm(groups, channels, eps=old.eps)
        new.load_state_dict({key: old.state_dict()[key] for key in ("weight", "bias")})
        network.set_submodule(name, new)


@torch.no_grad()
def _small_init(network: nn.Module) -> None:
    """Xavier for every matrix and kernel, 0.2 for position tables and class tokens.

    timm's 0.02 suits widths of several hundred; at width 32 the signal fades, and digits lose nine points.
    """
    for name, parameter in network.named_parameters():
        if name.rsplit(".", 1)[-1] in POSITIONS:
            nn.init.normal_(parameter, std=0.2)
        elif parameter.ndim == 2:
            nn.init.xavier_uniform_(parameter)
        elif parameter.ndim == 4:
            fan_out, fan_in = parameter.shape[0], math.prod(parameter.shape[1:])  # the kernel as one matrix
            bound = math.sqrt(6 / (fan_in + fan_out))
            nn.init.uniform_(parameter, -bound, bound)


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
    """
    network: Any = build_model(model, num_classes, in_chans, image_size, seed, fetch=True)
    if model.weights == "shapes":
        if in_chans != 3:
            raise ValueError(f"Model.weights 'shapes' are for images of 3 channels, not of {in_chans}")
        text = json.dumps(model.replace(weights="").to_dict(), sort_keys=True)
        head = network.get_classifier()
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


# ------------------------------------------------------------------------------------------------- frozen networks


class Features(nn.Module):
    """The feature map [B, channels, rows, columns] after one stage of a timm network, from a run's own images.

    `given` and `wanted` are (mean, std) by which the run normalises its images, and by which the network wants them.
    """

    def __init__(self, network: Any, stage: int, given: tuple[Tensor, Tensor], wanted: tuple[Tensor, Tensor]) -> None:
        super().__init__()
        self.network, self.stage = network, stage
        self.register_buffer("scale", (given[1] / wanted[1]).view(1, -1, 1, 1))
        self.register_buffer("shift", ((given[0] - wanted[0]) / wanted[1]).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        images = images * self.get_buffer("scale") + self.get_buffer("shift")
        found = self.network.forward_intermediates(images, indices=[self.stage], intermediates_only=True)
        return Tensor(found[0])


def embedded(_: Any, data: Data, mean: Values, std: Values, pretrained: bool) -> nn.Module:
    """A tiny ResNet trained on the run's own training images, normalised by `mean` and `std`.

    Without `pretrained` its weights are random, which is enough to measure time; likewise of `pretrained`.
    """
    if not is_resident(data.name):
        raise ValueError(
            f"the network 'embedded' is for sets held in memory, not for {data.name}: name a pretrained one"
        )
    given = torch.tensor(mean), torch.tensor(std)
    plain = data.replace(flip=False, crop_padding=0)
    return Features(_train(plain, EPOCHS if pretrained else 0), 2, given, given)


def pretrained(part: Any, data: Data, mean: Values, std: Values, pretrained: bool) -> nn.Module:
    """The network of timm that a `training.parts.Pretrained` names; RunError where its weights cannot be had."""
    network: Any = with_published_weights(part.model) if pretrained else timm.create_model(part.model)
    given = torch.tensor(mean), torch.tensor(std)
    wanted = torch.tensor(IMAGENET_DEFAULT_MEAN), torch.tensor(IMAGENET_DEFAULT_STD)
    return Features(network, len(network.feature_info) - 1, given, wanted)


@lru_cache(maxsize=2)
def _train(data: Data, epochs: int) -> nn.Module:
    """A tiny ResNet trained on the training images of a run, unmixed; it stands in for one pretrained on ImageNet.

    As there, the images are those that the run itself trains on. Everything is fixed: all runs look through the same.
    """
    return train_plainly(EMBEDDED, load(data)[0], epochs)
