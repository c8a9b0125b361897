"""What a run is: frozen dataclasses that hold everything which decides the weights, except the seed.

A `Run` is written as what differs from the defaults, and its key is a readable slug with eight hexadecimal digits of
that text's SHA-256: equal runs have equal keys, however many tables ask for them, and a new field with a default
renames none. A changed meaning needs a new name. This module imports no torch, so tables list at once.
"""

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from lumix.catalogue import Spec, get_part
from lumix.checks import check_number
from training.records import Config, one_of, within

FINE_GRAINED = ("cub200", "aircraft", "cars")
DATA_SETS = ("digits", "shapes", "ovals", "moons", "cifar10", "cifar100", "tiny_imagenet", "imagenet", *FINE_GRAINED)


@dataclass(frozen=True)
class Data(Config):
    """Which images, and what happens to one before it is mixed."""

    name: str
    image_size: int
    train_size: int = 0  # first images of a fixed permutation; 0 is all of them
    share: float = 1.0  # of the training images, the first of the same permutation: smaller shares lie in larger ones
    labels: int = 0  # training images with a label, as many of each class, by the run's seed; 0 is all of them
    flip: bool = False
    crop_padding: int = 0  # pixels of reflection around a small image before a random crop of its own size
    crop_scale: float = 0.0  # smallest area of a random resized crop; 0 is none (ImageNet recipes: 0.08)
    rand_augment: str = ""  # timm's notation, as in rand-m9-mstd0.5-inc1
    erasing: float = 0.0  # probability of random erasing with noise
    strong: str = ""  # RandAugment of strong views of unlabelled images, in timm's notation
    cutout: float = 0.0  # largest side of the grey square in a strong view, as a share of the image's
    repeats: int = 1  # repeated augmentation: views of one image per epoch pass
    test_size: int = 0  # pixels of test images that are read from files; 0 is image_size
    test_crop: float = 1.0  # share of the resized image that the centre crop keeps
    pipeline: str = "paper"  # timm's transforms; "fast" decodes and crops on the CPU and does the rest on the device

    def check(self) -> None:
        one_of(self, "name", DATA_SETS)
        within(self, "image_size", 1)
        within(self, "train_size", 0)
        within(self, "test_size", 0)
        within(self, "share", 0, 1)
        within(self, "labels", 0)
        if self.labels and self.share < 1:
            raise ValueError(f"give Data.labels {self.labels} or Data.share {self.share}, not both: all images train")
        within(self, "cutout", 0, 1)
        if self.share == 0 or (self.share < 1 and self.train_size):
            raise ValueError(
                f"Data.share must be above 0, and 1 beside Data.train_size, not {self.share} beside {self.train_size}: "
                f"name the training images by one of the two"
            )
        within(self, "crop_padding", 0)
        within(self, "crop_scale", 0, 1)
        within(self, "erasing", 0, 1)
        within(self, "repeats", 1)
        within(self, "test_crop", 0.1, 1)
        one_of(self, "pipeline", ("paper", "fast"))


@dataclass(frozen=True)
class Model(Config):
    """A timm model: the role it plays in the tables, its entry point and the arguments that shrink or tune it.

    Which published weights "imagenet" are is up to the tag in `name`: "resnet18.tv_in1k" has torchvision's, "resnet18"
    those that timm prefers. Init "prior" lets the classifier's bias begin where a sigmoid gives 1 / number of classes:
    short trainings under a sigmoid loss otherwise spend themselves on learning how rare each class is.
    """

    role: str
    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    init: str = "timm"  # "small": for networks of width 32, where timm's 0.02 is far too small; "prior": see below
    weights: str = ""  # under a new head: none, "imagenet", the published ones, or "shapes", trained here on scenes
    norm: str = ""  # "group": groups of 4 channels in place of batch normalisation, for networks that train stacked

    def check(self) -> None:
        one_of(self, "norm", ("", "group"))
        one_of(self, "init", ("timm", "small", "prior"))
        one_of(self, "weights", ("", "imagenet", "shapes"))
        if self.weights == "imagenet" and (self.init != "timm" or self.norm or self.arguments.get("cifar_stem")):
            raise ValueError(
                "Model.weights 'imagenet' would be overwritten by another init, norm or cifar_stem: leave those out"
            )


def _specs(owner: object, name: str, specs: Any, kind: str) -> None:
    """Check that `specs` are a tuple of Specs of one kind of part."""
    if not isinstance(specs, tuple) or not all(isinstance(spec, Spec) for spec in specs):
        raise ValueError(f"{type(owner).__name__}.{name} must be a tuple of Specs, not {specs!r}")
    for spec in specs:
        get_part(spec.name, kind)


@dataclass(frozen=True)
class Mix(Config):
    """How images are mixed: by one of the mixers `choices` with its weight; () is no mixing."""

    choices: tuple[tuple[Spec, float], ...] = ()
    prob: float = 1.0  # that a batch, pair or sample is mixed at all
    mode: str = "batch"
    pairing: str = "flip"
    then: tuple[Spec, ...] = ()  # steps that change the mixed batch further

    def check(self) -> None:
        if not all(isinstance(choice, tuple) and len(choice) == 2 for choice in self.choices):
            raise ValueError(f"Mix.choices must be pairs of a Spec and its weight, not {self.choices!r}")
        for _, weight in self.choices:
            check_number("the weight of Mix.choices", weight)
        object.__setattr__(self, "choices", tuple((spec, float(weight)) for spec, weight in self.choices))
        _specs(self, "choices", tuple(spec for spec, _ in self.choices), "mixer")
        _specs(self, "then", self.then, "step")
        if len(self.choices) > 2:
            raise ValueError(f"Mix.choices are one mixer or a switch of two, not {len(self.choices)}")
        if any(not 0 < weight <= 1 for _, weight in self.choices) or (
            self.choices and abs(sum(self.weights) - 1) > 1e-9
        ):
            raise ValueError(f"the weights of Mix.choices must be above 0 and sum to 1, not {self.weights}")
        within(self, "prob", 0, 1)
        one_of(self, "mode", ("batch", "pair", "elem"))
        one_of(self, "pairing", ("flip", "permutation"))
        for spec, _ in self.choices:
            for name, usual in (("mode", "batch"), ("prob", 1.0)):
                if name not in get_part(spec.name).given and getattr(self, name) != usual:
                    raise ValueError(f"{spec.name} has no {name}: leave Mix.{name} at {usual!r}")

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the mixers."""
        return tuple(spec.name for spec, _ in self.choices)

    @property
    def weights(self) -> tuple[float, ...]:
        return tuple(weight for _, weight in self.choices)

    def __str__(self) -> str:
        """In a line, for people."""
        mixers = " or ".join(f"{spec} ({weight:.0%})" for spec, weight in self.choices)
        return ", then ".join([mixers or "no mixing", *map(str, self.then)])


@dataclass(frozen=True)
class Loss(Config):
    """The label rule and the terms of the loss, which are summed."""

    rule: Spec = field(default_factory=lambda: Spec("area"))
    terms: tuple[Spec, ...] = field(default_factory=lambda: (Spec("cross_entropy", smoothing=0.1),))

    def check(self) -> None:
        _specs(self, "rule", (self.rule,), "rule")
        _specs(self, "terms", self.terms, "term")
        names = [term.name for term in self.terms]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"Loss.terms must be at least one term, each once, not {names}")

    def term(self, name: str) -> Spec | None:
        """The term of that name, None where the loss lacks it."""
        return next((term for term in self.terms if term.name == name), None)

    def __str__(self) -> str:
        """In a line, for people."""
        return f"{' + '.join(map(str, self.terms))}, label weight by {self.rule}"


@dataclass(frozen=True)
class Optim(Config):
    """timm's optimizer and cosine schedule per update, with linear warm-up."""

    lr: float
    name: str = "adamw"  # timm's: "momentum" is plain SGD with momentum, "sgd" has Nesterov's, "lamb" is LAMB
    weight_decay: float = 0.05  # never on biases, norms and what the model itself excludes
    momentum: float = 0.9
    schedule: str = "cosine"  # or "cosine_7_16": the rate times cos(7 pi u / 16 U) before update u of U, no warm-up
    warmup_epochs: int = 0
    warmup_lr: float = 1e-6
    min_lr: float = 1e-5
    clip_grad: float = 0.0  # largest gradient norm; 0 is none
    ema_decay: float = 0.0  # 0 keeps no moving average of the weights
    ema_reported: bool = False  # evaluate and export the average instead of the raw weights

    def check(self) -> None:
        for name in ("lr", "weight_decay", "warmup_epochs", "warmup_lr", "min_lr", "clip_grad"):
            within(self, name, 0)
        within(self, "ema_decay", 0, 1)
        one_of(self, "schedule", ("cosine", "cosine_7_16"))
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
    task: Spec = field(default_factory=lambda: Spec("mix"))  # what trains, and how
    epochs: int = 300
    epoch_steps: int = 0  # updates that count as an epoch, over passes without end; 0 is one pass over the images
    batch_size: int = 1024  # of one update, over all devices and accumulation steps
    precision: str = "float32"  # or bfloat16, float16: automatic mixed precision
    channels_last: bool = False
    evaluate_every: int = 1  # epochs between evaluations; the last `median_last` epochs are always evaluated
    median_last: int = 10
    count_mixed: bool = False  # evaluate on mixed test images, too (Figure A1 of Decoupled Mixup)

    def check(self) -> None:
        _specs(self, "task", (self.task,), "task")
        within(self, "epoch_steps", 0)
        self._check_views()
        for name in ("epochs", "batch_size", "evaluate_every", "median_last"):
            within(self, name, 1)
        one_of(self, "precision", ("float32", "bfloat16", "float16"))
        if self.optim.warmup_epochs >= self.epochs:
            raise ValueError(
                f"Optim.warmup_epochs must be below the {self.epochs} epochs of the run, not {self.optim.warmup_epochs}"
            )

    def _check_views(self) -> None:
        """Whether images and length are those of a task that learns from unlabelled images, or of one that does not."""
        views = get_part(self.task.name).unlabelled
        if views and not (self.data.labels and self.epoch_steps):
            raise ValueError(
                f"{self.task.name} learns from unlabelled images: give Data.labels, the number of labelled ones, and "
                f"Run.epoch_steps, for which there is no pass over both; they are {self.data.labels} and "
                f"{self.epoch_steps}"
            )
        if bool(self.data.strong or self.data.cutout) != ("strong" in views):
            raise ValueError(
                f"Data.strong {self.data.strong!r} and Data.cutout {self.data.cutout} make the strong views of "
                f"unlabelled images, and {self.task.name} takes {', '.join(views) or 'no'} views of these: give one or "
                f"both for a task with strong views, and for no other"
            )

    @property
    def method(self) -> str:
        """The method in a few words, for the key: mixers and steps, rule, and the terms beside cross entropy."""
        words = ["_".join(self.mix.names) or "unmixed", *(_slug(step) for step in self.mix.then)]
        if self.loss.rule.name != "area":
            words.append(_slug(self.loss.rule))
        words += [_slug(term) for term in self.loss.terms if term.name != "cross_entropy"]
        words += [_slug(self.task)] if self.task.name != "mix" else []
        return "-".join(words)

    @property
    def why_alone(self) -> str:
        """Why this run cannot be a member of an ensemble; "" where it can, if its network can be stacked."""
        if get_part(self.task.name).unlabelled:
            return f"{self.task.name} trains on unlabelled images, too"
        if self.task.name != "mix":
            return f"{self.task.name} trains several networks at once"
        if self.optim.ema_reported:
            return "it reports a moving average of the weights"
        return "float16 scales its loss" if self.precision == "float16" else ""

    @property
    def key(self) -> str:
        """Readable slug and eight hexadecimal digits of the SHA-256 of the record as JSON without spaces."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        return f"{self.data.name}-{self.model.role}-{self.method}-{digest}"


def _slug(spec: Spec) -> str:
    """A part with those of its arguments that are numbers and differ from their defaults; smoothing is left out."""
    shown = {
        name: value for name, value in spec.arguments.items() if name != "smoothing" and type(value) in (int, float)
    }
    return "-".join([spec.name, *(f"{name}{value:g}" for name, value in shown.items())])


@dataclass(frozen=True)
class Execution(Config):
    """Where and how a run is carried out; nothing here changes the weights on the same hardware."""

    device: str = "cpu"
    workers: int = 8  # data loading processes per device, for sets that are read from files
    microbatch: int = 0  # images (labelled ones) per device and forward pass; 0 is the whole share of the device
    checkpoint_seconds: float = 60.0  # at least this long between two checkpoints within training
    deterministic: bool = False  # ask torch for deterministic GPU kernels

    def check(self) -> None:
        for name in ("workers", "microbatch", "checkpoint_seconds"):
            within(self, name, 0)
