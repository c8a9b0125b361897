"""Rows of the LUMix loss and DM(CE): forward and backward pass, and memory, beside Algorithm 1 and ordinary losses.

A step is what follows the network: the draw of lambda_r, the label weights, the loss and its gradient to the logits.
The ordinary losses draw nothing; timm's mixed target is made in the step, as timm makes it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from timm.data.mixup import mixup_target
from timm.loss import SoftTargetCrossEntropy
from torch import Tensor
from torch.nn import functional as F

from benchmarks.measure import Line, Setting, Work, compare, faster, number, times, within
from evaluation.throughput import peak_memory
from lumix import CrossEntropy, CutMix, Decoupled, LUMixRule, MixedBatch, MixLoss

SIZE, SMOOTHING, ETA, R_R, R_S = 1024, 0.1, 1.0, 0.4, 0.1
MIXED, PUBLIC = "lumix mixed cross entropy", "the public code's arithmetic"
PRINTED, SOFT, PLAIN = "Algorithm 1 as printed", "timm soft target", "smoothed cross entropy"
FEW_CLASSES = (
    "with 100 classes the draw of lambda_r from Gammas (0.07 ms), one softmax and the passes over its array (0.11 ms) "
    "take nine tenths of timm's step by themselves; some fifty operations on 1 024 numbers, which the ordinary losses "
    "do not have, take the rest"
)
ORDINARY = (
    "at 100 classes the check for labels that are to be ignored, which timm does not make, is a twentieth of the step"
)
TWO_CLASSES = (
    "the logits are copied without the pair before their softmax; the rest is some sixty operations on 1 024 numbers, "
    "there and back"
)
MANY_CLASSES = "one softmax takes a third of the step, and no gradient can do without"


@dataclass(frozen=True)
class Task:
    """Logits [B, C] that want a gradient, and a batch mixed by CutMix."""

    logits: Tensor
    batch: MixedBatch

    @classmethod
    def make(cls, classes: int, device: str, dtype: torch.dtype = torch.float32, size: int | None = None) -> "Task":
        size = SIZE if size is None else size
        stream = torch.Generator().manual_seed(0)
        logits = 2 * torch.randn(size, classes, generator=stream, dtype=torch.float64)
        labels = torch.randint(classes, (size,), generator=stream)
        batch = CutMix(mode="elem", pairing="flip")(torch.zeros(size, 1, 32, 32), labels, stream)
        # Algorithm 1 cannot tell images of one class from unmixed ones: every sample here is cut and of two classes.
        partner = torch.where(batch.partner_labels == labels, (labels + 1) % classes, batch.partner_labels)
        batch = MixedBatch(
            batch.images, labels, partner, batch.own_weight, batch.partner, torch.full_like(batch.kind, 2)
        )
        return cls(logits.to(device, dtype).requires_grad_(), batch.to(device))


def printed(logits: Tensor, batch: MixedBatch, lam_r: Tensor) -> Tensor:
    """Algorithm 1, line by line: dense one-hots, scores picked by masks, lambda on the label of what was pasted.

    As docs/deviations.md reads it: b is 1 for both classes (I-5), R is summed over classes (I-7), lambda is broadcast
    over them (I-8), lambda_s and the target are constants (I-12).
    """
    classes = logits.shape[1]
    off = SMOOTHING / classes
    y1, y2 = (F.one_hot(labels, classes) * (1 - SMOOTHING) + off for labels in (batch.labels, batch.partner_labels))
    scores = torch.softmax(logits, dim=1)
    own, pasted = scores[y1 > y1.min()], scores[y2 > y2.min()]
    lam_s = (pasted / (own + pasted)).detach()
    lam = (1 - R_R - R_S) * (1 - batch.own_weight) + R_R * lam_r + R_S * lam_s
    target = (1 - lam).unsqueeze(1) * y1 + lam.unsqueeze(1) * y2
    b = torch.zeros_like(scores)
    b[y1 > y1.min()] = 1
    b[y2 > y2.min()] = 1
    regulariser = torch.sum(target * torch.clamp(b - scores, min=0), dim=1)
    cross_entropy = torch.sum(-target * torch.log_softmax(logits, dim=1), dim=1)
    return (cross_entropy + ETA * regulariser).mean()


def steps(task: Task, device: str) -> dict[str, Work]:
    """A step of each rival: gradients to `task.logits`."""
    logits, batch = task.logits, task.batch
    stream, law = torch.Generator(device).manual_seed(0), torch.distributions.Beta(2.0, 2.0)
    lumix, ordinary = lumix_loss(), MixLoss(smoothing=SMOOTHING)
    soft, weight = SoftTargetCrossEntropy(), batch.own_weight.unsqueeze(1)
    classes = logits.shape[1]
    losses: dict[str, Callable[[], Tensor]] = {
        "lumix": lambda: lumix(logits, batch, stream),
        "lumix without LUMix": lambda: ordinary(logits, batch),
        PRINTED: lambda: printed(logits, batch, law.sample((len(logits),)).to(device)),
        SOFT: lambda: soft(logits, mixup_target(batch.labels, classes, weight, SMOOTHING)),
        PLAIN: lambda: F.cross_entropy(logits, batch.labels, label_smoothing=SMOOTHING),
    }

    def step(loss: Callable[[], Tensor]) -> Work:
        def run() -> None:
            logits.grad = None
            loss().backward()

        return run

    return {name: step(loss) for name, loss in losses.items()}


def lumix_loss() -> MixLoss:
    return MixLoss(LUMixRule(R_R, R_S), smoothing=SMOOTHING, eta=ETA)


def check_equal(classes: int, device: str, loss: MixLoss) -> None:
    """Raise AssertionError unless `loss` and its gradient are those of Algorithm 1, and without LUMix those of timm."""
    lam_r = torch.rand(SIZE, generator=torch.Generator().manual_seed(1)).to(device)
    for dtype, options in ((torch.float64, {}), (torch.float32, {"rtol": 2e-6, "atol": 1e-8})):
        task = Task.make(classes, device, dtype)
        weights = loss.weights(task.logits, task.batch, lam_r)
        ours = loss.per_sample(task.logits, task.batch, weights)[0].mean()
        same_result(ours, printed(task.logits, task.batch, lam_r), task.logits, options)
    batch = task.batch
    flipped = MixedBatch(batch.images, batch.labels, batch.labels.flip(0), batch.own_weight, batch.partner, batch.kind)
    dense = mixup_target(batch.labels, classes, batch.own_weight.unsqueeze(1), SMOOTHING)
    ours = MixLoss(smoothing=SMOOTHING)(task.logits, flipped)
    same_result(ours, SoftTargetCrossEntropy()(task.logits, dense), task.logits, options)


def same_result(one: Tensor, other: Tensor, logits: Tensor, options: dict[str, Any]) -> None:
    torch.testing.assert_close(one, other, **options)
    gradients = (torch.autograd.grad(loss, logits)[0] for loss in (one, other))
    torch.testing.assert_close(*gradients, **options)


def by_targets(logits: Tensor, batch: MixedBatch) -> Tensor:
    """DM(CE) with the arithmetic of the public code: dense targets, a masked softmax for each class."""
    classes = logits.shape[1]
    own, partner = (F.one_hot(labels, classes).to(logits.dtype) for labels in (batch.labels, batch.partner_labels))
    weight = batch.own_weight.unsqueeze(1).to(logits.dtype)
    mixed = -((weight * own + (1 - weight) * partner) * logits.log_softmax(1)).sum(1)
    lowest = torch.finfo(logits.dtype).min
    first = -(own * logits.masked_fill(partner.bool(), lowest).log_softmax(1)).sum(1)
    second = -(partner * logits.masked_fill(own.bool(), lowest).log_softmax(1)).sum(1)
    return (mixed + ETA * (first + second)).mean()


def decoupled(setting: Setting) -> Iterator[Line]:
    """DM(CE) against the mixed cross entropy by index, at most 1.6 times it, and the public arithmetic."""
    task = Task.make(1000, setting.device)
    shown = task.batch.own_weight.clamp(0.01, 0.99)  # the public code takes every sample as mixed
    task = Task(task.logits, task.batch._replace(own_weight=shown))
    ours, mixed = MixLoss(terms=(CrossEntropy(), Decoupled(ETA))), MixLoss()
    options = {"rtol": 2e-6, "atol": 1e-8}
    same_result(ours(task.logits, task.batch), by_targets(task.logits, task.batch), task.logits, options)

    def step(of: Callable[[Tensor, MixedBatch], Tensor]) -> Work:
        return lambda: torch.autograd.grad(of(task.logits, task.batch), task.logits)

    timings = compare({"lumix DM(CE)": step(ours), MIXED: step(mixed), PUBLIC: step(by_targets)}, setting)
    case = f"DM(CE), logits {SIZE} x 1000, float32"
    yield from times(case, timings)
    yield within(case, timings, MIXED, 1.6, "lumix DM(CE)", why=TWO_CLASSES)
    yield faster(case, timings, PUBLIC, who="lumix DM(CE)")


def loss(setting: Setting) -> Iterator[Line]:
    yield from decoupled(setting)
    for classes, why, ordinary in ((1000, MANY_CLASSES, MANY_CLASSES), (100, FEW_CLASSES, ORDINARY)):
        check_equal(classes, setting.device, lumix_loss())
        timings = compare(steps(Task.make(classes, setting.device), setting.device), setting)
        few, case = classes == 100, f"logits {SIZE} x {classes}, float32"
        yield from times(case, timings)
        yield faster(case, timings, PRINTED, 5 if setting.device == "cuda" else 3 if few else 8, why=why)
        yield faster(case, timings, SOFT, 0.6 if few else 1.5, why=why)
        yield faster(case, timings, SOFT, 1.0 if few else 1.5, "lumix without LUMix", why=ordinary)
        yield within(case, timings, PLAIN, 1.2, why=why, quick=5 if few else None)
        yield within(case, timings, PLAIN, who="lumix without LUMix")
    for size, classes in () if setting.quick else ((100, 100), (20, 10)):  # what scales small and mini pay
        timings = compare(steps(Task.make(classes, setting.device, size=size), setting.device), setting)
        case = f"logits {size} x {classes}, float32"
        yield from times(case, timings)
        yield faster(case, timings, PRINTED)
        yield faster(case, timings, SOFT)


def memory(setting: Setting) -> Iterator[Line]:
    """Peak above the logits in the forward and backward pass; every allocation is counted: nothing to repeat."""
    for classes, target in ((1000, 1.1), (100, 1.3)):  # one array; draws and weights [B] come on top
        check_equal(classes, setting.device, lumix_loss())
        task, case = Task.make(classes, setting.device), f"logits {SIZE} x {classes}, float32"
        peaks = {}
        for name, work in steps(task, setting.device).items():
            work()
            task.logits.grad = None  # or it would be released in the middle of the next run
            peaks[name] = peak_memory(work, torch.device(setting.device)) / (4 * SIZE * classes)
            yield number(case, name, [peaks[name]], unit="arrays", rival=True)
        yield number(case, f"arrays of {SIZE} x {classes} above the logits", [peaks["lumix"]], target, True, unit="")
        yield number(case, f"times as many in {PRINTED}", [peaks[PRINTED] / peaks["lumix"]])
