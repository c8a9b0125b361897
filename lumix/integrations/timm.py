"""timm's Mixup with its keywords and its call, and a target from which LUMix can still ask which classes were mixed.

    mixup_fn = Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, label_smoothing=0.1, num_classes=1000, seed=rank)
    criterion = Criterion(MixLoss(LUMixRule(), smoothing=0.1, eta=1.0))
    images, target = mixup_fn(images, target)
    loss = criterion(model(images), target)

With `AreaRule` the loss is that of timm's SoftTargetCrossEntropy. Images and `target.dense()` equal timm's bit for bit
where weights drawn and boxes do (float32 images). Boxes do for equal draws, but for one thing: in modes "pair" and
"elem" timm rounds the drawn weight to float32 before it computes a box, lumix after, so that a side within 1e-7 of a
whole number of pixels can differ by one. Unlike timm, the caller's images are not overwritten and NumPy is not used.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lumix.batch import MixedBatch, Record, open_to_frameworks
from lumix.checks import check_number, check_numbers, check_probability
from lumix.draws import to_hand_on
from lumix.inputs import IGNORED, check_batch, logits_of
from lumix.loss import MixLoss
from lumix.mixers.base import NoMix, PlannedMixer
from lumix.mixers.basic import CutMix
from lumix.mixers.basic import Mixup as Blend
from lumix.mixers.paste import MixPlan, apply_plan
from lumix.mixers.switch import Switch
from lumix.rules.area import AreaRule
from lumix.terms.cross_entropy import CrossEntropy


class NoTensor:
    """Answers what only a tensor can do with a sentence that names the way out."""

    @staticmethod
    def _explain(what: str) -> str:
        return (
            f"a MixTarget is no tensor and has no {what}: use target.dense() (timm's [B, C]), or give it to Criterion"
        )

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        raise TypeError(cls._explain(getattr(function, "__name__", str(function))))

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(self._explain(name))

    __hash__ = object.__hash__


def _refusal(name: str) -> Callable[..., Any]:
    def refuse(self: NoTensor, *arguments: Any, **keywords: Any) -> Any:
        raise TypeError(self._explain(name))

    return refuse


OPERATORS = (
    "add radd sub rsub mul rmul truediv rtruediv floordiv rfloordiv mod rmod pow rpow matmul rmatmul and rand or ror",
    "xor rxor neg pos abs invert lt le gt ge eq ne float int array setitem",
)
for _name in " ".join(OPERATORS).split():
    setattr(NoTensor, f"__{_name}__", _refusal(f"__{_name}__"))


@dataclass(frozen=True, eq=False)
class MixTarget(Record, NoTensor):
    """The target of B mixed images, without the images: stands where timm has a dense [B, C] tensor.

    Attributes:
        record: what a rule and a loss ask about the batch; its images are empty, so none are kept alive.
        own_weight: [B] float64, whatever a cast is to; of float32 precision but in mode "batch", as in timm.
        num_classes, smoothing: C and timm's label smoothing.
        generator: stream for the draws of the label rule; the mixer's own, or from a DataLoader's worker one of the
            target's own.
    """

    record: MixedBatch
    own_weight: Tensor
    num_classes: int
    smoothing: float
    generator: torch.Generator

    @property
    def device(self) -> torch.device:
        return self.own_weight.device

    @property
    def shape(self) -> torch.Size:
        return torch.Size((len(self), self.num_classes))

    def size(self, dim: int | None = None) -> torch.Size | int:
        return self.shape if dim is None else self.shape[dim]

    def __len__(self) -> int:
        return len(self.record)

    def __getitem__(self, index: slice | Tensor) -> "MixTarget":
        """Some of the samples, by slice or index tensor."""
        if not isinstance(index, slice | Tensor | list):
            raise TypeError(self._explain(f"entries [{index!r}]"))
        return super().__getitem__(index)

    def dense(self) -> Tensor:
        """timm's mixed and smoothed target [B, C] float32, for losses that know no other.

        The row of a sample without a class (-100), own or mixed in, is 0: soft cross entropy gets nothing from it, but
        a mean counts it, and binary cross entropy takes it for an image without any class. `Criterion` leaves it out.
        """
        off = self.smoothing / self.num_classes
        base = torch.full(self.shape, off, device=self.own_weight.device)
        own, partner = (
            base.scatter(1, labels.clamp(min=0).unsqueeze(1), 1.0 - self.smoothing + off)
            for labels in (self.record.labels, self.record.partner_labels)
        )
        weight = self.own_weight.unsqueeze(1)
        mixed = own * weight.float() + partner * (1 - weight).float()
        counts = (self.record.labels != IGNORED) & ((self.record.partner_labels != IGNORED) | (self.record.kind == 0))
        return mixed * counts.unsqueeze(1)


open_to_frameworks(MixTarget, "num_classes", "smoothing", "generator")


class Mixup:
    """timm 1.0.31's Mixup: same keywords, same call, flip pairing (even batches); see there for what they mean.

    Args:
        multi_label: refused; LUMix weighs two single labels.
        generator: source of every draw. Checkpoint its state to resume.
        seed: of an own generator on the CPU, if none is given. Under DDP give every rank its own, as `seed=rank`: equal
            seeds mix and perturb equally on all ranks. In a collate_fn every worker and epoch draws anew.
        box_rule: "legacy", as in papers before 2026, or "full", as in timm 1.0.31.
    """

    def __init__(
        self,
        mixup_alpha: float = 1.0,
        cutmix_alpha: float = 0.0,
        cutmix_minmax: Sequence[float] | None = None,
        prob: float = 1.0,
        switch_prob: float = 0.5,
        mode: str = "batch",
        correct_lam: bool = True,
        label_smoothing: float = 0.1,
        num_classes: int = 1000,
        multi_label: bool = False,
        *,
        generator: torch.Generator | None = None,
        seed: int = 0,
        box_rule: str = "legacy",
    ) -> None:
        if multi_label:
            raise ValueError("multi_label=True is not supported: LUMix weighs two single labels; use timm's own Mixup")
        check_probability("label_smoothing", label_smoothing)
        check_probability("switch_prob", switch_prob)
        check_number("mixup_alpha", mixup_alpha, 0)
        check_number("cutmix_alpha", cutmix_alpha, 0)
        check_number("num_classes", num_classes, 1, whole=True)
        if cutmix_minmax is not None:
            check_numbers("cutmix_minmax", cutmix_minmax)
        self.label_smoothing, self.num_classes = label_smoothing, num_classes
        self.mixup_enabled = True  # as in timm: set to False to go on without mixing
        self.generator = torch.Generator().manual_seed(seed) if generator is None else generator
        minmax: Any = None if cutmix_minmax is None else tuple(cutmix_minmax)
        alpha = cutmix_alpha if cutmix_alpha > 0 and minmax is None else 1.0  # unused, but must be above 0
        cutter = CutMix(alpha, minmax=minmax, box_rule=box_rule, correct_lam=correct_lam)  # type: ignore[arg-type]
        cuts = cutmix_alpha > 0 or minmax is not None
        shared: dict[str, Any] = {"mode": mode, "pairing": "flip", "prob": prob}
        self.mixer = _one_of(mixup_alpha, cutter if cuts else None, switch_prob, shared)

    def __call__(self, images: Tensor, target: Tensor) -> tuple[Tensor, MixTarget]:
        """Mix images [B, C, H, W] with target [B] int64, both left as they are.

        Raises:
            ValueError: for an odd or empty batch, for a target that is not [B] int64 or (on the CPU) out of range.
        """
        target = check_batch(images, target)
        mixer = self.mixer if self.mixup_enabled else NoMix()
        return self.apply(images, target, mixer.draw(images.shape, self.generator))

    def apply(self, images: Tensor, target: Tensor, plan: MixPlan) -> tuple[Tensor, MixTarget]:
        """As the call, under a given plan."""
        target = check_batch(images, target, len(plan.partner))
        known = (
            (target >= 0) & (target < self.num_classes) | (target == IGNORED) if target.device.type == "cpu" else None
        )
        if known is not None and not bool(known.all()):
            wrong = target[target != IGNORED]
            raise ValueError(
                f"labels must lie in 0 .. {self.num_classes - 1} for num_classes={self.num_classes}, "
                f"not {int(wrong.min())} .. {int(wrong.max())}; samples without a class have {IGNORED}"
            )
        if self.mixer.mode != "batch":
            plan = replace(plan, own_weight=plan.own_weight.float().double())
        batch = apply_plan(images, target, plan)
        record = replace(batch, images=images.new_empty((len(images), 0, 0, 0)))
        weight = plan.own_weight.to(images.device, non_blocking=True)
        stream = to_hand_on(self.generator)
        return batch.images, MixTarget(record, weight, self.num_classes, self.label_smoothing, stream)


def _one_of(alpha: float, cutter: CutMix | None, switch_prob: float, shared: dict[str, Any]) -> PlannedMixer:
    """Mixup where `alpha` is above 0, CutMix where it is given, or a switch of both."""
    if alpha > 0 and cutter is not None:
        return Switch(Blend(alpha), cutter, switch_prob, **shared)
    if cutter is not None:
        return replace(cutter, **shared)
    if alpha > 0:
        return Blend(alpha, **shared)
    raise ValueError("nothing to mix: set mixup_alpha or cutmix_alpha above 0, or give cutmix_minmax")


class Criterion(nn.Module):
    """A MixLoss for what `Mixup` returns; int64 labels [B], as in validation, get the plain cross entropy.

    The loss takes its draws of lambda_r from the mixer's generator, so one state resumes both. A dense target [B, C] is
    taken by the ordinary mixed loss alone, `MixLoss()`, which loses nothing by it.
    """

    def __init__(self, loss: MixLoss) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, logits: Any, target: MixTarget | Tensor) -> Tensor:
        """Mean loss of logits [B, C], or of an output with `logits`, a float32 scalar.

        Raises:
            ValueError: where `Mixup` and the loss differ in smoothing, or `Mixup` and the logits in classes; for a
                dense target where the loss is more than soft cross entropy.
        """
        logits = logits_of(logits)
        if isinstance(target, Tensor):
            if target.ndim > 1 and not self._is_soft_cross_entropy():
                raise ValueError(
                    f"the target is a tensor of shape {list(target.shape)}, which does not say what was mixed, and "
                    f"{self.loss} asks: mix with lumix.integrations.timm.Mixup in place of timm's Mixup or "
                    "FastCollateMixup and torchvision's mixers, or use MixLoss() alone, which takes the target as it is"
                )
            return F.cross_entropy(logits.float(), target, ignore_index=self.loss.ignore_index)
        if not isinstance(target, MixTarget):
            raise ValueError(
                f"target must be the MixTarget of lumix.integrations.timm.Mixup or labels [B], not a "
                f"{type(target).__name__}: a MixedBatch goes to MixLoss itself"
            )
        if target.smoothing != self.loss.smoothing:
            raise ValueError(
                f"Mixup has label_smoothing={target.smoothing}, MixLoss smoothing={self.loss.smoothing}: "
                "give both the same value"
            )
        if logits.shape[-1] != target.num_classes:
            raise ValueError(f"Mixup has num_classes={target.num_classes}, the logits have {logits.shape[-1]} classes")
        return self.loss(logits, target.record, target.generator)

    def _is_soft_cross_entropy(self) -> bool:
        return type(self.loss.rule) is AreaRule and self.loss.terms == (CrossEntropy(0.0),)
