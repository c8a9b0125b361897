"""Attentive CutMix (Walawalkar et al. 2020): the cells of the own image that a frozen network answers most are kept."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lumix.batch import Kind, MixedBatch
from lumix.checks import check_choice, check_positive, shown
from lumix.draws import draw_beta
from lumix.mixers.apply import record
from lumix.mixers.base import BatchDraws, WholeBatchMixer
from lumix.mixers.eval_mode import evaluating
from lumix.mixers.pixels import mix_by_mask
from lumix.registry import register

SCORES = ("mean", "last_channel")


@dataclass(frozen=True)
class AttentiveDraws(BatchDraws):
    """The share of cells to keep where it is drawn, else None."""

    ratio: float | None


@register("mixer", "attentivecutmix", "Attentive-CutMix", pixels="cut", dynamic=True, needs="a frozen network")
@dataclass(frozen=True)
class AttentiveCutMix(WholeBatchMixer):
    """Cut the `cells` strongest cells of the own image's feature map and paste them on the partner.

    Here the own image is the patch: x = m * x_own + (1 - m) * x_partner, and the own label has the share of the cells.
    Where the grid does not tile the image, cells differ by a pixel, and that share is only nearly the visible one.

    Attributes:
        network: frozen, images [B, C, H, W] to a feature map [B, channels, h, w]; as published an ImageNet ResNet-50
            (7 x 7 cells at 224 pixels), for example the `forward_features` of a timm model. A module, or a method of
            one, runs in evaluation mode and is left as it was.
        cells: number of cells, at least 1; published 6 of 49.
        scores: a cell's score is the "mean" over channels, or the "last_channel" alone as in the community's code.
        size: side in pixels to which images are resized for the network; None leaves them as they are.
        ratio_alpha: instead of `cells`, keep int(h * w * Beta(ratio_alpha, ratio_alpha)) cells, at least 1: one draw
            per batch (OpenMixup's AttentiveMix+, with 2).
    """

    network: Callable[..., Tensor]
    cells: int = 6
    scores: str = "mean"
    size: int | None = 224
    ratio_alpha: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not callable(self.network):
            raise ValueError(f"network must map images to a feature map, not be {shown(self.network)}")
        check_positive("cells", self.cells, whole=True)
        check_choice("scores", self.scores, SCORES)
        if self.size is not None:
            check_positive("size", self.size, whole=True)
        if self.ratio_alpha is not None:
            check_positive("ratio_alpha", self.ratio_alpha)

    def draw_mixed(self, partner: Tensor, shape: tuple[int, ...], generator: torch.Generator) -> AttentiveDraws:
        ratio = None if self.ratio_alpha is None else float(draw_beta(self.ratio_alpha, 1, generator))
        return AttentiveDraws(partner, ratio)

    def mix(self, images: Tensor, labels: Tensor, draws: AttentiveDraws, model: Any) -> MixedBatch:
        """As the base says.

        Raises:
            ValueError: for a network whose output is no feature map, or whose grid has fewer cells than `cells` or is
                finer than the images.
        """
        cells, share = self.strongest(self.cell_scores(images), draws.ratio)
        own = on_pixels(cells, *images.shape[-2:]).unsqueeze(1)
        mixed = mix_by_mask(images, draws.partner, own)
        weight = torch.full((len(images),), share)
        return record(mixed, labels, draws.partner, weight, Kind.MASK, mask=own.to(torch.float32))

    @torch.no_grad()
    def cell_scores(self, images: Tensor) -> Tensor:
        """The score [B, h, w] of each cell of images [B, C, H, W]; uint8 images are given to the network in [0, 1]."""
        work = images.detach().float() if images.is_floating_point() else images.float().div_(255)
        if self.size is not None and work.shape[-2:] != (self.size, self.size):
            work = F.interpolate(work, (self.size, self.size), mode="bilinear", antialias=True, align_corners=False)
        module = module_of(self.network)
        if module is not None and work.shape[1] == 1:
            work = work.expand(-1, first_channels(module), -1, -1)
        with evaluating(module):
            features = self.network(work)
        if not isinstance(features, Tensor) or features.ndim != 4 or len(features) != len(images):
            found = f"of shape {list(features.shape)}" if isinstance(features, Tensor) else type(features).__name__
            raise ValueError(
                f"network must return a feature map [B, channels, h, w], not {found}: use forward_features"
            )
        return features.mean(1) if self.scores == "mean" else features[:, -1]

    def strongest(self, scores: Tensor, ratio: float | None) -> tuple[Tensor, float]:
        """Which cells [B, h, w] bool of each sample are kept, by score and then row by row; and their share."""
        total = scores[0].numel()
        count = self.cells if ratio is None else min(max(int(total * ratio), 1), total)
        if count > total:
            rows, columns = scores.shape[1:]
            raise ValueError(f"cells = {count} of a feature map of {rows} x {columns}: choose at most {total}")
        order = scores.flatten(1).argsort(dim=1, descending=True, stable=True)[:, :count]
        kept = torch.zeros(len(scores), total, dtype=torch.bool, device=scores.device).scatter_(1, order, True)
        return kept.view(scores.shape), count / total


def on_pixels(cells: Tensor, height: int, width: int) -> Tensor:
    """Cells [B, h, w] as pixels [B, height, width]: pixel (y, x) has cell (y * h // height, x * w // width)."""
    rows, columns = cells.shape[-2:]
    if rows > height or columns > width:
        raise ValueError(
            f"a feature map of {rows} x {columns} cells is finer than the images of {height} x {width} pixels"
        )
    down = torch.arange(height, device=cells.device) * rows // height
    across = torch.arange(width, device=cells.device) * columns // width
    return cells[:, down][:, :, across]


def module_of(network: Callable[[Tensor], Tensor]) -> nn.Module | None:
    """The module behind a callable: itself, or the owner of a bound method."""
    owner = network if isinstance(network, nn.Module) else getattr(network, "__self__", None)
    return owner if isinstance(owner, nn.Module) else None


def first_channels(module: nn.Module) -> int:
    """Channels that the first convolution of a module reads; 1 for a module without one."""
    return next((part.in_channels for part in module.modules() if isinstance(part, nn.Conv2d)), 1)
