"""What a run is: frozen dataclasses that hold everything which decides the weights, except the seed.

A `Run` holds the mixers, rule, terms and task themselves. It is written as what differs from the defaults, and its key
is a readable slug with eight hexadecimal digits of that text's SHA-256: equal runs have equal keys, however many tables
ask for them, and a new field with a default renames none. A changed meaning needs a new name.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Literal, Self, get_origin, get_type_hints

from lumix.inputs import Checked, Count, CountOrNone, NotNegative, Range, Share, shown
from lumix.losses import CrossEntropy
from lumix.registry import GIVEN, arguments_of, default_of, describe, from_dict, get_part, name_of, part_of, to_dict
from lumix.rules import AreaRule

FINE_GRAINED = ("cub200", "aircraft", "cars")
DATA_SETS = ("digits", "shapes", "ovals", "moons", "cifar10", "cifar100", "tiny_imagenet", "imagenet", *FINE_GRAINED)
STACKED = ("adamw", "sgd", "momentum", "lamb")  # optimizers that train several networks as if each were alone


@dataclass(frozen=True)
class Config(Checked):
    """Base of the configuration records: their fields are checked by type, and written where they are no default."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check()

    def check(self) -> None:
        """Raise ValueError, naming field and value, where fields make no sense together."""

    def to_dict(self) -> dict[str, Any]:
        """What differs from the defaults, as JSON knows it."""
        values = ((entry, getattr(self, entry.name)) for entry in dataclasses.fields(self))
        return {entry.name: _encoded(value) for entry, value in values if value != default_of(entry)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The record that `to_dict` wrote; ValueError for a key that the record does not have."""
        hints = get_type_hints(cls)
        unknown = sorted(set(values) - set(hints))
        if unknown:
            raise ValueError(f"{cls.__name__} has no field {unknown[0]!r}; it has {', '.join(hints)}")
        return cls(**{name: _decoded(value, hints[name]) for name, value in values.items()})

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)


def _encoded(value: Any) -> Any:
    if isinstance(value, Config):
        return value.to_dict()
    if isinstance(value, tuple):
        return [_encoded(entry) for entry in value]
    return to_dict(value) if dataclasses.is_dataclass(value) else value


def _decoded(value: Any, hint: Any = None) -> Any:
    """A JSON value as its field has it: records by the field's type, other dictionaries as parts; tuples for lists."""
    if isinstance(value, list):
        return tuple(map(_decoded, value))
    if not isinstance(value, Mapping) or get_origin(hint) is dict:
        return value
    is_record = isinstance(hint, type) and issubclass(hint, Config)
    return hint.from_dict(value) if is_record else from_dict(value)


@dataclass(frozen=True)
class Data(Config):
    """Which images, and what happens to one before it is mixed."""

    name: Annotated[str, DATA_SETS]
    image_size: Count
    train_size: CountOrNone = 0  # first images of a fixed permutation; 0 is all of them
    share: Share = 1.0  # of the training images, the first of the same permutation: smaller shares lie in larger ones
    labels: CountOrNone = 0  # training images with a label, as many of each class, by the run's seed; 0 is all of them
    flip: bool = False
    crop_padding: CountOrNone = 0  # pixels of reflection around a small image before a random crop of its own size
    crop_scale: Share = 0.0  # smallest area of a random resized crop; 0 is none (ImageNet recipes: 0.08)
    rand_augment: str = ""  # timm's notation, as in rand-m9-mstd0.5-inc1
    erasing: Share = 0.0  # probability of random erasing with noise
    strong: str = ""  # RandAugment of strong views of unlabelled images, in timm's notation
    cutout: Share = 0.0  # largest side of the grey square in a strong view, as a share of the image's
    repeats: Count = 1  # repeated augmentation: views of one image per epoch pass
    test_size: CountOrNone = 0  # pixels of test images that are read from files; 0 is image_size
    test_crop: Annotated[float, Range(0.1, 1)] = 1.0  # share of the resized image that the centre crop keeps

    def check(self) -> None:
        if self.labels and self.share < 1:
            raise ValueError(f"give Data.labels {self.labels} or Data.share {self.share}, not both: all images train")
        if self.share == 0 or (self.share < 1 and self.train_size):
            raise ValueError(
                f"Data.share must be above 0, and 1 beside Data.train_size, not {self.share} beside {self.train_size}: "
                f"name the training images by one of the two"
            )


@dataclass(frozen=True)
class Model(Config):
    """A timm model: the role it plays in the tables, its entry point and the arguments that shrink or tune it.

    Which published weights "imagenet" are is up to the tag in `name`: "resnet18.tv_in1k" has torchvision's, "resnet18"
    those that timm prefers. Init "small" is for networks of width 32, where timm's 0.02 is far too small. Init "prior"
    lets the classifier's bias begin where a sigmoid gives 1 / number of classes: short trainings under a sigmoid loss
    otherwise spend themselves on learning how rare each class is.
    """

    role: str
    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    init: Literal["timm", "small", "prior"] = "timm"
    weights: Literal["", "imagenet", "shapes"] = ""  # under a new head: none, published ones, or trained here on scenes
    norm: Literal["", "group"] = ""  # "group": groups of 4 channels in place of batch normalisation, for stacked nets

    def check(self) -> None:
        if self.weights == "imagenet" and (self.init != "timm" or self.norm or self.arguments.get("cifar_stem")):
            raise ValueError(
                "Model.weights 'imagenet' would be overwritten by another init, norm or cifar_stem: leave those out"
            )


@dataclass(frozen=True)
class Mix(Config):
    """How images are mixed: every batch by one of the mixers `choices`, with its weight; () is no mixing.

    What their fields of `lumix.registry.GIVEN` hold comes from here and from the data when the run is built.
    """

    choices: tuple[tuple[Any, Share], ...] = ()
    pairing: Literal["flip", "permutation"] = "flip"
    then: tuple[Any, ...] = ()  # steps that change the mixed batch further

    def check(self) -> None:
        for part, kind in [*((mixer, "mixer") for mixer, _ in self.choices), *((step, "step") for step in self.then)]:
            part_of(part, kind)
            for entry in fields(part):
                if entry.name in GIVEN and getattr(part, entry.name) != default_of(entry):
                    raise ValueError(f"{entry.name} of {shown(part)} is the run's to give: leave it at its default")
        if len(self.choices) > 2:
            raise ValueError(f"Mix.choices are one mixer or a switch of two, not {len(self.choices)}")
        if self.choices and (0 in self.weights or abs(sum(self.weights) - 1) > 1e-9):
            raise ValueError(f"the weights of Mix.choices must be above 0 and sum to 1, not {self.weights}")

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the mixers."""
        return tuple(name_of(mixer) for mixer, _ in self.choices)

    @property
    def weights(self) -> tuple[float, ...]:
        return tuple(weight for _, weight in self.choices)

    def __str__(self) -> str:
        """In a line, for people."""
        mixers = " or ".join(f"{describe(mixer)} ({weight:.0%})" for mixer, weight in self.choices)
        return ", then ".join([mixers or "no mixing", *map(describe, self.then)])


@dataclass(frozen=True)
class Loss(Config):
    """The label rule and the terms of the loss, which are summed."""

    rule: Any = field(default_factory=AreaRule)
    terms: tuple[Any, ...] = (CrossEntropy(0.1),)

    def check(self) -> None:
        part_of(self.rule, "rule")
        names = [part_of(term, "term").name for term in self.terms]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"Loss.terms must be at least one term, each once, not {names}")

    def __str__(self) -> str:
        """In a line, for people."""
        return f"{' + '.join(map(describe, self.terms))}, label weight by {describe(self.rule)}"


@dataclass(frozen=True)
class Optim(Config):
    """timm's optimizer and cosine schedule per update, with linear warm-up from 1e-6."""

    lr: NotNegative
    name: str = "adamw"  # timm's: "momentum" is plain SGD with momentum, "sgd" has Nesterov's, "lamb" is LAMB
    weight_decay: NotNegative = 0.05
    decayed: Literal["weights", "all"] = "weights"  # those of two axes or more that the model does not exclude, or all
    # "cosine_7_16": the rate times cos(7 pi u / 16 U) before update u of U, no warm-up
    schedule: Literal["cosine", "cosine_7_16"] = "cosine"
    warmup_epochs: CountOrNone = 0
    min_lr: NotNegative = 1e-5
    clip_grad: NotNegative = 0.0  # largest gradient norm; 0 is none
    ema_decay: Share = 0.0  # 0 keeps no moving average of the weights
    ema_reported: bool = False  # evaluate and export the average instead of the raw weights

    def check(self) -> None:
        if self.schedule != "cosine" and (self.warmup_epochs or self.min_lr):
            raise ValueError(
                f"Optim.schedule {self.schedule!r} has neither warm-up nor a floor: set warmup_epochs and min_lr to 0, "
                f"not {self.warmup_epochs} and {self.min_lr}"
            )
        if self.ema_reported and not self.ema_decay:
            raise ValueError("Optim.ema_reported needs Optim.ema_decay above 0, the average that is to be reported")


@dataclass(frozen=True)
class Run(Config):
    """Everything that decides the weights except the seed."""

    data: Data
    model: Model
    optim: Optim
    mix: Mix = field(default_factory=Mix)
    loss: Loss = field(default_factory=Loss)
    task: Any = field(default_factory=lambda: get_part("mix").cls())  # what trains, and how: of `training.parts`
    epochs: Count = 300
    epoch_steps: CountOrNone = 0  # updates that count as an epoch, over passes without end; 0 is one pass
    batch_size: Count = 1024  # of one update, over all devices and accumulation steps
    precision: Literal["float32", "bfloat16"] = "float32"  # the latter: automatic mixed precision
    channels_last: bool = False
    evaluate_every: Count = 1  # epochs between evaluations; the last `median_last` epochs are always evaluated
    median_last: Count = 10
    protocol: str = ""  # a name for blocks that train anew what other blocks have trained; it decides no weight
    count_mixed: bool = False  # evaluate on mixed test images, too (Figure A1 of Decoupled Mixup)

    def check(self) -> None:
        task = part_of(self.task, "task")
        if self.optim.warmup_epochs >= self.epochs:
            raise ValueError(
                f"Optim.warmup_epochs must be below the {self.epochs} epochs of the run, not {self.optim.warmup_epochs}"
            )
        if task.unlabelled and not (self.data.labels and self.epoch_steps):
            raise ValueError(
                f"{task.name} learns from unlabelled images: give Data.labels, the number of labelled ones, and "
                f"Run.epoch_steps, for which there is no pass over both; they are {self.data.labels} and "
                f"{self.epoch_steps}"
            )
        if bool(self.data.strong or self.data.cutout) != ("strong" in task.unlabelled):
            raise ValueError(
                f"Data.strong {self.data.strong!r} and Data.cutout {self.data.cutout} make the strong views of "
                f"unlabelled images, and {task.name} takes {', '.join(task.unlabelled) or 'no'} views of these: give "
                f"one or both for a task with strong views, and for no other"
            )

    @property
    def method(self) -> str:
        """The method in a few words, for the key: mixers and steps, rule, and the terms beside cross entropy."""
        words = ["_".join(self.mix.names) or "unmixed", *map(_slug, self.mix.then)]
        words += [] if name_of(self.loss.rule) == "area" else [_slug(self.loss.rule)]
        words += [_slug(term) for term in self.loss.terms if name_of(term) != "cross_entropy"]
        words += [] if name_of(self.task) == "mix" else [_slug(self.task)]
        return "-".join(words)

    @property
    def why_alone(self) -> str:
        """Why this run cannot be a member of an ensemble; "" where it can, if its network can be stacked."""
        task = part_of(self.task)
        if task.unlabelled:
            return f"{task.name} trains on unlabelled images, too"
        if task.name != "mix":
            return f"{task.name} trains several networks at once"
        if self.optim.name not in STACKED:
            return f"{self.optim.name} is none of the optimizers that know stacks, which are {', '.join(STACKED)}"
        return "it reports a moving average of the weights" if self.optim.ema_reported else ""

    @property
    def key(self) -> str:
        """Readable slug and eight hexadecimal digits of the SHA-256 of the record as JSON without spaces."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        return f"{self.data.name}-{self.model.role}-{self.method}-{digest}"


def _slug(part: object) -> str:
    """A part with those of its arguments that are numbers and differ from their defaults; smoothing is left out."""
    numbers = {name: value for name, value in arguments_of(part).items() if type(value) in (int, float)}
    return "-".join([name_of(part), *(f"{name}{value:g}" for name, value in numbers.items() if name != "smoothing")])


@dataclass(frozen=True)
class Execution(Config):
    """Where and how a run is carried out; on the same hardware nothing here but `microbatch` changes the weights."""

    device: str = "cpu"
    workers: CountOrNone = 8  # data loading processes per device, for sets that are read from files
    # Beyond rounding where statistics of batch norm and draws of stochastic depth are those of each part.
    microbatch: CountOrNone = 0  # images (labelled ones) per device and forward pass; 0 is the whole share
    checkpoint_seconds: NotNegative = 60.0  # at least this long between two checkpoints within training
    deterministic: bool = False  # ask torch for deterministic GPU kernels
