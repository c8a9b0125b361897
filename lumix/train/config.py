"""What a run is: frozen dataclasses that hold everything which decides the weights, except the seed.

A `Run` has one canonical JSON text and one key, a readable slug and eight hexadecimal digits of the text's SHA-256.
Equal runs have equal keys, however many tables ask for them. This module imports no torch, so tables list at once.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Self, get_type_hints

MIXERS = ("cutmix", "saliencymix", "puzzlemix", "attentivecutmix", "resizemix", "fmix", "manifoldmix")
DATA_SETS = ("digits", "shapes", "cifar100", "tiny_imagenet", "imagenet")


def _one_of(owner: object, name: str, allowed: tuple[str, ...]) -> None:
    value = getattr(owner, name)
    if value not in allowed:
        raise ValueError(f"{type(owner).__name__}.{name} must be one of {', '.join(allowed)}, not {value!r}")


def _within(owner: object, name: str, low: float, high: float = float("inf")) -> None:
    value = getattr(owner, name)
    if not low <= value <= high:
        limit = f"at least {low:g}" if high == float("inf") else f"between {low:g} and {high:g}"
        raise ValueError(f"{type(owner).__name__}.{name} must be {limit}, not {value!r}")


@dataclass(frozen=True)
class Config:
    """Base of the configuration records: strict types, no unknown keys, canonical JSON."""

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(type(self)).items():
            value = getattr(self, name)
            if kind is float and type(value) is int:
                object.__setattr__(self, name, float(value))
            elif kind in (bool, int, float, str) and type(value) is not kind:
                raise ValueError(f"{type(self).__name__}.{name} must be {kind.__name__}, not {value!r}")
        self.check()

    def check(self) -> None:
        """Raise ValueError, naming field and value, where the record makes no sense."""

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The record that `to_dict` wrote.

        Raises:
            ValueError: for a key that the record does not have, naming those it has.
        """
        hints = get_type_hints(cls)
        unknown = sorted(set(values) - set(hints))
        if unknown:
            raise ValueError(f"{cls.__name__} has no field {unknown[0]!r}; it has {', '.join(hints)}")
        nested = {
            name: hints[name].from_dict(value)
            if dataclasses.is_dataclass(hints[name]) and isinstance(value, dict)
            else value
            for name, value in values.items()
        }
        return cls(**nested)

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)


@dataclass(frozen=True)
class Data(Config):
    """Which images, and what happens to one before it is mixed."""

    name: str
    image_size: int
    train_size: int = 0  # first images of a fixed permutation; 0 is all of them
    flip: bool = False
    crop_padding: int = 0  # pixels of reflection around a small image before a random crop of its own size
    crop_scale: float = 0.0  # smallest area of a random resized crop; 0 is none (ImageNet recipes: 0.08)
    rand_augment: str = ""  # timm's notation, as in rand-m9-mstd0.5-inc1
    erasing: float = 0.0  # probability of random erasing with noise
    repeats: int = 1  # repeated augmentation: views of one image per epoch pass
    test_crop: float = 1.0  # share of the resized image that the centre crop keeps
    pipeline: str = "paper"  # timm's transforms; "fast" decodes and crops on the CPU and does the rest on the device

    def check(self) -> None:
        _one_of(self, "name", DATA_SETS)
        _within(self, "image_size", 1)
        _within(self, "train_size", 0)
        _within(self, "crop_padding", 0)
        _within(self, "crop_scale", 0, 1)
        _within(self, "erasing", 0, 1)
        _within(self, "repeats", 1)
        _within(self, "test_crop", 0.1, 1)
        _one_of(self, "pipeline", ("paper", "fast"))


@dataclass(frozen=True)
class Model(Config):
    """A timm model: the role it plays in the tables, its entry point and the arguments that shrink or tune it."""

    role: str
    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    init: str = "timm"  # "small": an initialisation for networks of width 32, where timm's 0.02 is far too small

    def check(self) -> None:
        _one_of(self, "init", ("timm", "small"))


@dataclass(frozen=True)
class Mix(Config):
    """How images are mixed (timm's terms). Both alphas 0 is no mixing."""

    mixup_alpha: float = 0.8
    cutmix_alpha: float = 1.0
    method: str = "cutmix"  # what stands in CutMix's place, with its alpha: one of `MIXERS` (Table 6)
    prob: float = 1.0
    switch_prob: float = 0.5
    mode: str = "batch"
    pairing: str = "flip"
    box_rule: str = "legacy"
    shuffle_patch: int = 0  # side in pixels of the patches that Random Shuffling permutes (Table 12); 0 is off
    random_lambda_patch: int = 0  # side of the patches that Random lambda blends one by one (Table 12); 0 is off
    transport_size: int = -1  # Puzzle-Mix: side in pixels of the cells that transport moves; -1 moves whole blocks
    frozen_network: str = ""  # Attentive-CutMix: timm name of a pretrained net; "embedded" trains a tiny one first
    frozen_size: int = 224  # Attentive-CutMix: pixels to which images are resized for it; 0 leaves them
    cells: int = 6  # Attentive-CutMix: cells of its feature map that are cut

    def check(self) -> None:
        _one_of(self, "method", MIXERS)
        _within(self, "mixup_alpha", 0)
        _within(self, "cutmix_alpha", 0)
        _within(self, "prob", 0, 1)
        _within(self, "switch_prob", 0, 1)
        _one_of(self, "mode", ("batch", "pair", "elem"))
        _one_of(self, "pairing", ("flip", "permutation"))
        _one_of(self, "box_rule", ("legacy", "full"))
        _within(self, "shuffle_patch", 0)
        _within(self, "random_lambda_patch", 0)
        _within(self, "frozen_size", 0)
        _within(self, "cells", 1)
        if self.method == "attentivecutmix" and not self.frozen_network:
            raise ValueError("Mix.frozen_network must name the pretrained network of attentivecutmix, as 'resnet50'")
        if self.method != "cutmix" and not self.cutmix_alpha:
            raise ValueError(f"Mix.cutmix_alpha must be above 0 for {self.method}, whose alpha it is")


@dataclass(frozen=True)
class Loss(Config):
    """The loss and the label rule. r_r = r_s = eta = 0 is the ordinary mixed loss, or with r_a above 0 TransMix."""

    kind: str = "ce"
    smoothing: float = 0.1
    r_r: float = 0.0
    r_s: float = 0.0
    r_a: float = 0.0  # share of the class token's attention: 0.5 alone is TransMix
    eta: float = 0.0
    law: str = "beta"
    law_parameter: float = 2.0  # alpha of the Beta, standard deviation of the normal, the constant itself
    law_reading: str = "clamp_final"  # of the normal law (I-14)
    regulariser: str = "or"  # reading of equation 8 (I-5)
    scores: str = "softmax"
    detach: bool = True
    apply_to: str = "cutmix"
    bce_target: str = "twohot"
    bce_threshold: float = 0.2
    bce_reduction: str = "mean"

    def check(self) -> None:
        _one_of(self, "kind", ("ce", "bce"))
        _within(self, "smoothing", 0, 1)
        for name in ("r_r", "r_s", "r_a", "eta"):
            _within(self, name, 0)
        if self.r_r + self.r_s + self.r_a > 1 + 1e-9:
            parts = f"{self.r_r:g} + {self.r_s:g}" + (f" + {self.r_a:g}" if self.r_a else "")
            raise ValueError(
                f"r_r + r_s{' + r_a' if self.r_a else ''} must be at most 1 so that the label weight stays in [0, 1], "
                f"not {parts}"
            )
        _one_of(self, "law", ("beta", "normal", "constant"))
        _one_of(self, "law_reading", ("clamp_final", "clamp_draw", "sigmoid"))
        _one_of(self, "regulariser", ("or", "and"))
        _one_of(self, "scores", ("softmax", "double_softmax", "sigmoid"))
        _one_of(self, "apply_to", ("cutmix", "both"))
        _one_of(self, "bce_target", ("twohot", "threshold", "soft"))
        _one_of(self, "bce_reduction", ("mean", "class_sum"))

    @property
    def perturbs(self) -> bool:
        """Whether this is LUMix rather than the ordinary mixed loss or TransMix."""
        return self.r_r > 0 or self.r_s > 0 or self.eta > 0


@dataclass(frozen=True)
class Optim(Config):
    """timm's optimizer and cosine schedule per update, with linear warm-up."""

    lr: float
    name: str = "adamw"
    weight_decay: float = 0.05  # never on biases, norms and what the model itself excludes
    momentum: float = 0.9
    warmup_epochs: int = 0
    warmup_lr: float = 1e-6
    min_lr: float = 1e-5
    clip_grad: float = 0.0  # largest gradient norm; 0 is none
    ema_decay: float = 0.0  # 0 keeps no moving average of the weights
    ema_reported: bool = False  # evaluate and export the average instead of the raw weights

    def check(self) -> None:
        for name in ("lr", "weight_decay", "warmup_epochs", "warmup_lr", "min_lr", "clip_grad"):
            _within(self, name, 0)
        _within(self, "ema_decay", 0, 1)
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
    epochs: int = 300
    batch_size: int = 1024  # of one update, over all devices and accumulation steps
    precision: str = "float32"  # or bfloat16, float16: automatic mixed precision
    compile: bool = False
    channels_last: bool = False
    evaluate_every: int = 1  # epochs between evaluations; the last `median_last` epochs are always evaluated
    median_last: int = 10

    def check(self) -> None:
        for name in ("epochs", "batch_size", "evaluate_every", "median_last"):
            _within(self, name, 1)
        _one_of(self, "precision", ("float32", "bfloat16", "float16"))
        if self.compile and self.loss.r_a:
            raise ValueError("Run.compile hides the attention that Loss.r_a reads: leave one of them out")
        if self.optim.warmup_epochs >= self.epochs:
            raise ValueError(
                f"Optim.warmup_epochs must be below the {self.epochs} epochs of the run, not {self.optim.warmup_epochs}"
            )

    @property
    def canonical_json(self) -> str:
        """One text for one run: sorted keys, no spaces."""
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))

    @property
    def method(self) -> str:
        """The method in a word or two, for the key and for people."""
        mix, loss = self.mix, self.loss
        parts = []
        if mix.random_lambda_patch:
            parts.append("random_lambda")
        elif mix.mixup_alpha and mix.cutmix_alpha:
            parts.append(mix.method)
        elif mix.mixup_alpha or mix.cutmix_alpha:
            parts.append("mixup_only" if mix.mixup_alpha else f"{mix.method}_only")
        else:
            parts.append("unmixed")
        if mix.shuffle_patch:
            parts.append("shuffle")
        if loss.kind == "bce":
            parts.append("bce")
        if loss.r_a:
            parts.append("transmix" if not loss.perturbs else f"attention-{loss.r_a:g}")
        if loss.perturbs:
            parts.append(f"lumix-{loss.r_r:g}-{loss.r_s:g}-eta{loss.eta:g}")
        return "-".join(parts)

    @property
    def key(self) -> str:
        """Readable slug and eight hexadecimal digits of the SHA-256 of the canonical JSON."""
        digest = hashlib.sha256(self.canonical_json.encode()).hexdigest()[:8]
        return f"{self.data.name}-{self.model.role}-{self.method}-{digest}"


@dataclass(frozen=True)
class Execution(Config):
    """Where and how a run is carried out; nothing here changes the weights on the same hardware."""

    device: str = "cpu"
    workers: int = 8  # data loading processes per device, for sets that are read from files
    microbatch: int = 0  # images per device and forward pass; 0 is the whole share of the device
    checkpoint_seconds: float = 60.0  # at least this long between two checkpoints within training
    deterministic: bool = False  # ask torch for deterministic GPU kernels
    progress: bool = False  # a bar on a terminal, plain lines elsewhere

    def check(self) -> None:
        for name in ("workers", "microbatch", "checkpoint_seconds"):
            _within(self, name, 0)
