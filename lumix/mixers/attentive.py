"""Attentive CutMix (Walawalkar et al. 2020): the cells of the own image that a frozen network answers most are kept."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lumix.batch import Kind, MixedBatch
from lumix.inputs import Count, shown
from lumix.mixers.base import BatchDraws, WholeBatchMixer, evaluating, in_precision_of
from lumix.mixers.paste import mix_by_mask, mixed_batch
from lumix.registry import register


@register("mixer", "attentivecutmix", "Attentive-CutMix", pixels="cut", dynamic=True, needs="a frozen network")
@dataclass(frozen=True)
class AttentiveCutMix(WholeBatchMixer):
    """Cut the `cells` strongest cells of the own image's feature map and paste them on the partner.

    Here the own image is the patch: x = m * x_own + (1 - m) * x_partner, and the own label has the share of the cells.
    A cell's score is the mean over channels. Where the grid does not tile the image, cells differ by a pixel, and that
    share is only nearly the visible one.

    Attributes:
        network: frozen, images [B, C, H, W] to a feature map [B, channels, h, w]; as published an ImageNet ResNet-50
            (7 x 7 cells at 224 pixels), for example the `forward_features` of a timm model. A module, or a method of
            one, runs in evaluation mode and is left as it was.
        cells: published 6 of 49.
        size: side in pixels to which images are resized for the network; None leaves them as they are.
    """

    network: Callable[..., Tensor]
    cells: Count = 6
    size: Count | None = 224

    def __post_init__(self) -> None:
        super().__post_init__()
        if not callable(self.network):
            raise ValueError(f"network must map images to a feature map, not be {shown(self.network)}")

    def mix(self, images: Tensor, labels: Tensor, draws: BatchDraws, model: Any) -> MixedBatch:
        scores = self.cell_scores(images)
        own = on_pixels(self.strongest(scores), *images.shape[-2:]).unsqueeze(1)
        mixed = mix_by_mask(images, draws.partner, own)
        weight = torch.full((len(images),), self.cells / scores[0].numel(), device=images.device, dtype=torch.float32)
        return mixed_batch(mixed, labels, draws.partner, weight, Kind.MASK, mask=own.to(torch.float32))

    @torch.no_grad()
    def cell_scores(self, images: Tensor) -> Tensor:
        """The score [B, h, w] of each cell of images [B, C, H, W]; uint8 images are given to the network in [0, 1]."""
        if not images.is_floating_point() and images.dtype != torch.uint8:
            raise ValueError(f"AttentiveCutMix sees pixels of uint8 or floats, not {images.dtype}: convert them")
        work = images.detach().float() if images.is_floating_point() else images.float().div_(255)
        if self.size is not None and work.shape[-2:] != (self.size, self.size):
            work = F.interpolate(work, (self.size, self.size), mode="bilinear", antialias=True, align_corners=False)
        owner = getattr(self.network, "__self__", self.network)  # of a bound method
        module = owner if isinstance(owner, nn.Module) else None
        if module is not None and work.shape[1] == 1:
            channels = [part.in_channels for part in module.modules() if isinstance(part, nn.Conv2d)]
            work = work.expand(-1, channels[0] if channels else 1, -1, -1)
        with evaluating(module):
            features = self.network(in_precision_of(module, work))
        if not isinstance(features, Tensor) or features.ndim != 4 or len(features) != len(images):
            found = f"of shape {list(features.shape)}" if isinstance(features, Tensor) else type(features).__name__
            raise ValueError(f"network must give a feature map [B, channels, h, w], not {found}: use forward_features")
        return features.mean(1)

    def strongest(self, scores: Tensor) -> Tensor:
        """Which cells [B, h, w] bool of each sample are kept, by score and then row by row."""
        total = scores[0].numel()
        if self.cells > total:
            rows, columns = scores.shape[1:]
            raise ValueError(f"cells = {self.cells} of a feature map of {rows} x {columns}: choose at most {total}")
        order = scores.flatten(1).argsort(dim=1, descending=True, stable=True)[:, : self.cells]
        kept = torch.zeros(len(scores), total, dtype=torch.bool, device=scores.device).scatter_(1, order, True)
        return kept.view(scores.shape)


def on_pixels(cells: Tensor, height: int, width: int) -> Tensor:
    """Cells [B, h, w] as pixels [B, height, width]: pixel (y, x) has cell (y * h // height, x * w // width)."""
    rows, columns = cells.shape[-2:]
    if rows > height or columns > width:
        raise ValueError(f"a map of {rows} x {columns} cells is finer than the images of {height} x {width} pixels")
    down = torch.arange(height, device=cells.device) * rows // height
    across = torch.arange(width, device=cells.device) * columns // width
    return cells[:, down][:, :, across]
