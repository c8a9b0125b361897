"""timm's Mixup with its keywords and its call, and a target from which LUMix can still ask which classes were mixed.

    mixup_fn = Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, label_smoothing=0.1, num_classes=1000, seed=rank)
    criterion = Criterion(MixLoss(LUMixRule(), smoothing=0.1, eta=1.0))
    images, target = mixup_fn(images, target)
    loss = criterion(model(images), target)

With `AreaRule` the loss is that of timm's SoftTargetCrossEntropy. Where weights drawn and boxes equal timm's, targets
and cut images do bit for bit, and blended ones to a unit in the last place. Boxes do for equal draws, but that timm
rounds the weights of modes "pair" and "elem" to float32 first: a side within 1e-7 of a whole number of pixels can
differ by one. Unlike timm, the caller's images are not overwritten and NumPy is not used.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import get_worker_info

from lumix.batch import MixedBatch
from lumix.inputs import IGNORED, MIX_LOSS, Count, NotNegative, Share, check_batch, check_part, checked, logits_of
from lumix.losses import CrossEntropy, MixLoss
from lumix.mixers.base import NoMix, PlannedMixer
from lumix.mixers.basic import CutMix
from lumix.mixers.basic import Mixup as Blend
from lumix.mixers.paste import MixPlan, apply_plan
from lumix.mixers.switch import Switch
from lumix.random import for_worker, moved
from lumix.rules import AreaRule

KEEPING = {Tensor.to, Tensor.cuda, Tensor.cpu, Tensor.pin_memory, Tensor.detach, Tensor.clone, Tensor.contiguous}
KEEPING |= {Tensor.half, Tensor.bfloat16, Tensor.float, Tensor.double, Tensor.type, Tensor.type_as}


class MixTarget(Tensor):
    """timm's mixed and smoothed target [B, C] float32, which also knows the batch that it is of.

    It goes wherever timm's goes. What is moved, cast, copied or sliced by rows stays a MixTarget, and all else that is
    computed from it is a plain tensor. The row of a sample without a class (-100), own or mixed in, is 0: soft cross
    entropy gets nothing from it, but a mean counts it. `Criterion` leaves it out.

    Attributes:
        batch: the B samples; its images are empty, so none are kept alive.
        smoothing: timm's label smoothing.
        generator: for the draws of the label rule; the mixer's own, or from a DataLoader's worker one seeded by it.
    """

    batch: MixedBatch
    smoothing: float
    generator: torch.Generator

    def __deepcopy__(self, memo: dict[int, Any]) -> "MixTarget":
        batch, generator = copy.deepcopy((self.batch, self.generator), memo)
        return _target(self.as_subclass(Tensor).detach().clone(), batch, self.smoothing, generator)

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            found = function(*args, **(kwargs or {}))
        source = args[0] if args and isinstance(args[0], cls) and isinstance(found, Tensor) else None
        if source is None or found is source:
            return found
        if function is Tensor.reshape and found.shape == (1, source.numel()):  # as accuracies do with class indices
            raise TypeError("accuracies want class indices, and a mixed target is dense, [B, C]: use target.argmax(1)")
        if function in KEEPING:
            return _target(found, source.batch.to(found.device), source.smoothing, source.generator)
        if function is Tensor.__getitem__ and isinstance(args[1], slice | Tensor) and found.ndim == 2:
            return _target(found, source.batch.rows(args[1]), source.smoothing, source.generator)
        return found


def _target(dense: Tensor, batch: MixedBatch, smoothing: float, generator: torch.Generator) -> MixTarget:
    target = dense.as_subclass(MixTarget)
    target.batch, target.smoothing, target.generator = batch, smoothing, generator
    return target


class Mixup:
    """timm 1.0.31's Mixup: same keywords, same call, flip pairing (even batches); see there for what they mean.

    Args:
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
        checked("label_smoothing", label_smoothing, Share)
        checked("switch_prob", switch_prob, Share)
        checked("mixup_alpha", mixup_alpha, NotNegative)
        checked("cutmix_alpha", cutmix_alpha, NotNegative)
        checked("num_classes", num_classes, Count)
        checked("cutmix_minmax", cutmix_minmax, tuple[float, float] | None)
        checked("seed", seed, int)
        self.label_smoothing, self.num_classes = label_smoothing, num_classes
        self.mixup_enabled = True  # as in timm: set to False to go on without mixing
        self.generator = torch.Generator().manual_seed(seed) if generator is None else generator
        minmax: Any = None if cutmix_minmax is None else tuple(cutmix_minmax)
        alpha = cutmix_alpha if cutmix_alpha > 0 and minmax is None else 1.0  # unused, but must be above 0
        correct_lam = correct_lam or minmax is not None  # as in timm
        cutter = CutMix(alpha, minmax=minmax, box_rule=box_rule, correct_lam=correct_lam)  # type: ignore[arg-type]
        shared: dict[str, Any] = {"mode": mode, "pairing": "flip", "prob": prob}
        blends, cuts = mixup_alpha > 0, cutmix_alpha > 0 or minmax is not None
        if not (blends or cuts):
            raise ValueError("nothing to mix: set mixup_alpha or cutmix_alpha above 0, or give cutmix_minmax")
        self.mixer: PlannedMixer = replace(cutter, **shared)
        if blends:
            blender = Blend(mixup_alpha)
            self.mixer = Switch(blender, cutter, switch_prob, **shared) if cuts else replace(blender, **shared)

    def __call__(self, images: Tensor, target: Tensor) -> tuple[Tensor, MixTarget]:
        """Mix images [B, C, H, W], B even, with target [B] of class indices, both left as they are."""
        target = check_batch(images, target)
        mixer = self.mixer if self.mixup_enabled else NoMix()
        return self.apply(images, target, mixer.draw(images.shape, for_worker(self.generator)))

    def apply(self, images: Tensor, target: Tensor, plan: MixPlan) -> tuple[Tensor, MixTarget]:
        """As the call, under a given plan."""
        target = check_batch(images, target, len(plan.partner))
        known = target[target != IGNORED]
        if target.device.type == "cpu" and bool(((known < 0) | (known >= self.num_classes)).any()):
            found = f"{int(known.min())} .. {int(known.max())}; samples without a class have {IGNORED}"
            classes = self.num_classes
            raise ValueError(f"labels must lie in 0 .. {classes - 1} for num_classes={classes}, not {found}")
        if self.mixer.mode != "batch":
            plan = replace(plan, own_weight=plan.own_weight.float().double())
        batch = apply_plan(images, target, plan)
        generator = self.generator
        if get_worker_info() is not None:  # this process goes on with it
            generator = torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=generator, device="cpu")))
        off, pair = self.label_smoothing / self.num_classes, (batch.labels, batch.partner_labels)
        base = torch.full((batch.size, self.num_classes), off, device=images.device, dtype=torch.float32)
        on = 1.0 - self.label_smoothing + off
        own, partner = (base.scatter(1, labels.clamp(min=0).unsqueeze(1), on) for labels in pair)
        weight = moved(plan.own_weight, images.device).unsqueeze(1)
        mixed = own * weight.float() + partner * (1 - weight).float()
        counts = (batch.labels != IGNORED) & ((batch.partner_labels != IGNORED) | (batch.kind == 0))
        bare = batch._replace(images=images.new_empty((len(images), 0, 0, 0)))
        return batch.images, _target(mixed * counts.unsqueeze(1), bare, self.label_smoothing, generator)


class Criterion(nn.Module):
    """A MixLoss for what `Mixup` returns; labels [B] get the plain cross entropy where nothing is learnt from them.

    The loss takes its draws of lambda_r from the mixer's generator, so one state resumes both. A dense target [B, C]
    that is no `MixTarget` is taken by the ordinary mixed loss alone, `MixLoss()`, which loses nothing by it.
    """

    def __init__(self, loss: MixLoss) -> None:
        super().__init__()
        check_part("loss", loss, MIX_LOSS, "a MixLoss, as MixLoss(LUMixRule())")
        if loss.rule.needs_attention:
            raise ValueError(f"a target carries no attention for {loss.rule}: use a mixer and MixLoss with attention=")
        self.loss = loss

    def forward(self, logits: Any, target: MixTarget | Tensor) -> Tensor:
        """Mean loss of logits [B, C], or of an output with `logits`, a float32 scalar."""
        logits = logits_of(logits)
        if not isinstance(target, Tensor):
            found = f"not a {type(target).__name__}: a MixedBatch goes to MixLoss itself"
            raise ValueError(f"target must be that of lumix.integrations.timm.Mixup or labels [B], {found}")
        if not isinstance(target, MixTarget):
            plain = type(self.loss.rule) is AreaRule and self.loss.terms == (CrossEntropy(0.0),)
            if plain or (target.ndim == 1 and not (logits.requires_grad and torch.is_grad_enabled())):
                return F.cross_entropy(logits.float(), target, ignore_index=self.loss.ignore_index)
            raise ValueError(
                f"the target is a tensor of shape {list(target.shape)}, which does not say what was mixed, and "
                f"{self.loss} asks: mix training batches with lumix.integrations.timm.Mixup in place of timm's Mixup "
                "or FastCollateMixup and torchvision's mixers, or use MixLoss() alone, which takes the target as it is"
            )
        if self.loss.smoothing != {target.smoothing}:
            found = " and ".join(map(str, sorted(self.loss.smoothing)))
            raise ValueError(f"Mixup has label_smoothing={target.smoothing}, MixLoss smoothing={found}: give one value")
        if logits.shape[-1] != target.shape[1]:
            raise ValueError(f"Mixup has num_classes={target.shape[1]}, the logits have {logits.shape[-1]} classes")
        return self.loss(logits, target.batch, target.generator)
