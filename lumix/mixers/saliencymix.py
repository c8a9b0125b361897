"""SaliencyMix (Uddin et al. 2021): CutMix with the box on the most salient pixel of the partner."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lumix.batch import Kind, MixedBatch
from lumix.checks import check_choice, check_numbers, check_positive
from lumix.draws import draw_beta
from lumix.mixers.apply import apply_plan
from lumix.mixers.base import BatchDraws, Given, WholeBatchMixer
from lumix.mixers.boxes import BOX_RULES, box_around, visible_share
from lumix.mixers.eval_mode import IMAGENET_MEAN, IMAGENET_STD
from lumix.mixers.plan import Draws, deal
from lumix.mixers.saliency import fine_grained_saliency, in_chunks, peaks, reference_float_saliency
from lumix.registry import register

SCOPES = ("batch_first", "sample")
INPUTS = ("uint8", "reference_float")


@dataclass(frozen=True)
class SaliencyMixDraws(BatchDraws):
    """The own image's share before a box is clipped, [1] or [B] float64."""

    own_weight: Tensor


@register("mixer", "saliencymix", "SaliencyMix", pixels="cut", dynamic=True)
@dataclass(frozen=True)
class SaliencyMix(WholeBatchMixer):
    """Paste a box of the partner, centred on the partner's saliency peak, at the same place of the own image.

    The box has the area share 1 - Beta(alpha, alpha), is clipped at the border, and the own label keeps the share that
    stays visible. The authors set `prob` to 1 on ImageNet and 0.5 on CIFAR.

    Attributes:
        alpha: above 0; the authors' is 1.
        scope: "batch_first" as published: one map, that of the first sample's partner, places one box for the whole
            batch. "sample": each sample has a draw of its own and a box on its own partner's peak.
        saliency_input: what the detector sees of float images. "uint8": their pixels, with the normalisation undone.
            "reference_float": the published slip, floats read as bytes (`reference_float_saliency`), which places the
            box by little more than chance. Images in uint8 are seen as they are.
        mean, std: normalisation of float images, one entry a channel; ImageNet's by default.
        box_rule: edges of a box of odd side, see `CutMix`.
    """

    alpha: float = 1.0
    scope: str = "batch_first"
    saliency_input: str = "uint8"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    box_rule: str = "legacy"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("alpha", self.alpha)
        check_choice("scope", self.scope, SCOPES)
        check_choice("saliency_input", self.saliency_input, INPUTS)
        check_choice("box_rule", self.box_rule, BOX_RULES)
        check_numbers("mean", self.mean)
        check_numbers("std", self.std, 0, open_low=True)
        if len(self.mean) != len(self.std):
            raise ValueError(
                f"mean and std must have one entry a channel each, not {len(self.mean)} and {len(self.std)}"
            )

    def draw_mixed(self, partner: Tensor, shape: tuple[int, ...], generator: torch.Generator) -> SaliencyMixDraws:
        count = 1 if self.scope == "batch_first" else shape[0]
        return SaliencyMixDraws(partner, draw_beta(self.alpha, count, generator))

    def mix(
        self, images: Tensor, labels: Tensor, draws: SaliencyMixDraws, model: Any, saliency: Given = None
    ) -> MixedBatch:
        """As the base says, for images [B, 3 or 1, H, W], uint8 or floating; with `saliency` maps [B, H, W] for any.

        Raises:
            ValueError: for a `mean` that does not match the channels.
        """
        count, (height, width), device = len(draws.own_weight), images.shape[-2:], images.device
        looked_at = draws.partner[:count]
        maps = self.saliency(images[looked_at]) if saliency is None else saliency[looked_at]
        box = box_around(draws.own_weight.to(device), peaks(maps), height, width, self.box_rule)
        kind = torch.full((count,), int(Kind.BOX), dtype=torch.uint8, device=device)
        boxes = Draws(visible_share(box, height, width), kind, box)
        group = torch.arange(len(images), device=device) * (count > 1)
        mixes = torch.ones(count, dtype=torch.bool, device=device)
        return apply_plan(images, labels, deal(boxes, mixes, draws.partner, group, frozenset({Kind.BOX})))

    def saliency(self, images: Tensor) -> Tensor:
        """The maps [B, H, W] float32 in [0, 1] that place the boxes, of images [B, 3 or 1, H, W]."""
        return in_chunks(images.detach(), self._detect)

    def _detect(self, images: Tensor) -> Tensor:
        if images.dtype == torch.uint8:
            return fine_grained_saliency(images)
        if self.saliency_input == "reference_float":
            return reference_float_saliency(images.float())
        return fine_grained_saliency(self.to_bytes(images))

    def to_bytes(self, images: Tensor) -> Tensor:
        """Normalised float images as the uint8 pixels they came from."""
        channels = images.shape[1]
        check_numbers("mean", self.mean)
        check_numbers("std", self.std, 0, open_low=True)
        if len(self.mean) != channels:
            raise ValueError(
                f"mean and std have {len(self.mean)} entries, the images {channels} channels: "
                "give SaliencyMix the mean and std of the images' normalisation"
            )
        mean, std = (torch.tensor(v, device=images.device).mul(255).view(-1, 1, 1) for v in (self.mean, self.std))
        return torch.addcmul(mean, images.float(), std).round_().clamp_(0, 255).to(torch.uint8)
