"""Batches and oracles shared by the tests of the method: plain, dense and slow, as one would write them first."""

from contextlib import contextmanager

import torch
from torch import Tensor

import lumix
from lumix.batch import Kind, MixedBatch


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@contextmanager
def other_defaults():
    """As after torch.set_default_dtype and, where a loader mixes on the CPU, torch.set_default_device("cuda")."""
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):  # stands for a GPU
            yield
    finally:
        torch.set_default_dtype(torch.float32)


def label_batch(size: int = 12, classes: int = 5, seed: int = 0, kind: Kind | None = None) -> MixedBatch:
    """A batch without pixels. Sample 0 is a same-class pair; without `kind` all three kinds occur in turn."""
    generator = stream(seed)
    labels = torch.randint(classes, (size,), generator=generator)
    partner_labels = (labels + torch.randint(1, classes, (size,), generator=generator)) % classes
    partner_labels[0] = labels[0]
    kinds = torch.arange(size) % 3 if kind is None else torch.full((size,), int(kind))
    weight = torch.rand(size, generator=generator)
    return MixedBatch(
        images=torch.empty(size, 0, 0, 0),
        labels=labels,
        partner_labels=partner_labels,
        own_weight=torch.where(kinds == Kind.NONE, 1.0, weight),
        partner=torch.arange(size).flip(0),
        kind=kinds.to(torch.uint8),
    )


def random_logits(size: int = 12, classes: int = 5, seed: int = 1, scale: float = 2.0) -> Tensor:
    """Float64, so that an oracle and the code under test can be compared to many digits."""
    return scale * torch.randn(size, classes, generator=stream(seed), dtype=torch.float64)


def one_hot(labels: Tensor, classes: int, smoothing: float = 0.0) -> Tensor:
    """timm's smoothed one-hot [B, C] in float64."""
    return torch.nn.functional.one_hot(labels, classes).double() * (1 - smoothing) + smoothing / classes


def dense_target(batch: MixedBatch, own_weight: Tensor, classes: int, smoothing: float = 0.0) -> Tensor:
    """The mixed target [B, C] as the papers write it."""
    weight = own_weight.double().unsqueeze(1)
    own, partner = (one_hot(labels, classes, smoothing) for labels in (batch.labels, batch.partner_labels))
    return weight * own + (1 - weight) * partner


def algorithm_1(
    logits: Tensor, batch: MixedBatch, lam_r: Tensor, r_r: float, r_s: float, eta: float, smoothing: float
) -> Tensor:
    """LUMix [B] as printed: dense labels, scores picked by boolean masks, lambda on the second label.

    What the print leaves open is filled in as docs/deviations.md says: I-5 (b is 1 for both classes), I-7 (sum over
    classes), I-8 (lambda broadcast over classes), I-12 (lambda_s and y are constants).
    """
    classes = logits.shape[1]
    first, second = (one_hot(labels, classes, smoothing) for labels in (batch.labels, batch.partner_labels))
    scores = logits.softmax(1)
    own, partner = scores[first > first.min()], scores[second > second.min()]
    lam_s = (partner / (own + partner)).detach()
    lam = (1 - r_r - r_s) * (1 - batch.own_weight.double()) + r_r * lam_r + r_s * lam_s
    target = (1 - lam[:, None]) * first + lam[:, None] * second
    b = torch.zeros_like(scores)
    b[first > first.min()] = 1
    b[second > second.min()] = 1
    cross_entropy = -(target * logits.log_softmax(1)).sum(1)
    return cross_entropy + eta * (target * (b - scores).clamp(min=0)).sum(1)


def build_loss(rule=None, kind="ce", *, smoothing=0.0, eta=0.0, reading="or", scores="softmax", **binary):
    """Cross entropy or, with `kind` "bce", binary cross entropy, and R where eta is not 0."""
    base = lumix.CrossEntropy(smoothing) if kind == "ce" else lumix.BinaryCrossEntropy(smoothing, **binary)
    others = [lumix.Regulariser(eta, smoothing, reading, scores)] if isinstance(eta, Tensor) or eta != 0 else []
    return lumix.MixLoss(rule, [base, *others])


MIX_CLASSES = 10
MODES = ["batch", "pair", "elem"]
PLANNED = {
    "mixup": lambda **options: lumix.Mixup(0.8, **options),
    "cutmix": lambda **options: lumix.CutMix(1.0, **options),
    "full": lambda **options: lumix.CutMix(1.0, box_rule="full", **options),
    "minmax": lambda **options: lumix.CutMix(minmax=(0.3, 0.8), **options),
    "switch": lambda **options: lumix.Switch(lumix.Mixup(0.8), lumix.CutMix(1.0), 0.5, **options),
}


def images_of(size, dtype=torch.float32, height=12, width=8, seed=0):
    values = torch.rand(size, 3, height, width, generator=stream(seed))
    return (values * 255).to(dtype) if dtype == torch.uint8 else (2 * values - 1).to(dtype)


def labels_of(size, seed=1):
    return torch.randint(MIX_CLASSES, (size,), generator=stream(seed))


def mix(mixer, size=6, seed=0, **keywords):
    images, labels = images_of(size, seed=seed, **keywords), labels_of(size)
    return images, labels, mixer(images, labels, stream(seed))


ALL_MIXERS = [*PLANNED.values(), lambda: lumix.RandomShuffle(lumix.Switch(), 4), lambda: lumix.RandomLambda(patch=4)]
