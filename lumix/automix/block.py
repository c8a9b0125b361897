"""MixBlock: from the features of two images to the mask that mixes them; that of AutoMix and that of SAMix.

Shape legend: B pairs, C channels, h, w sides of the features, N = h w places.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STD = 0.01  # of the initial weights: masks begin near 1/2 everywhere


def residual_embedding(own_weight: Tensor, curvature: float = 0.25) -> Tensor:
    """SAMix's g of the label weight on small data: monotonous, g(1 - lambda) = 1 - g(lambda), flat around 1/2."""
    scale = curvature + 1
    cubic = 4 / 3 * own_weight**3 - 2 * own_weight**2 + scale * own_weight
    return cubic / (scale - 2 / 3)


def cross_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(query . key / sqrt(channels)) value, in float32 also under autocast: [B, 1, h, w].

    Args:
        query, key: [B, D, h, w]; each place of the query looks at all places of the key.
        value: [B, 1, h, w].
    """
    with torch.autocast(query.device.type, enabled=False):
        # One head of D channels: [B, 1, N, D], values [B, 1, N, 1].
        q, k, v = (x.flatten(2).transpose(1, 2).unsqueeze(1).float() for x in (query, key, value))
        attended = F.scaled_dot_product_attention(q, k, v)
    return attended.squeeze(1).transpose(1, 2).reshape(value.shape)


class MixBlock(nn.Module):
    """Base of both: features [B, C, h, w] of own and partner image and the own weight [B] to the own mask.

    Args:
        channels: C.
        large: the published form for large data sets.
    """

    upsampling: ClassVar[dict[str, Any]]

    def _init(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=STD)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def logits(self, own: Tensor, partner: Tensor, own_weight: Tensor) -> Tensor:
        """Logits [B, 1, h, w] of the partner's share at each place."""
        raise NotImplementedError

    def forward(self, own: Tensor, partner: Tensor, own_weight: Tensor, size: tuple[int, int]) -> Tensor:
        """Share of the own image [B, 1, *size] in (0, 1), float32."""
        logits = self.logits(own, partner, own_weight.to(own.dtype).view(-1, 1, 1, 1))
        return torch.sigmoid(-F.interpolate(logits.float(), size, **self.upsampling))


class AutoMixBlock(MixBlock):
    """One convolution for query and key; on large data the label weights are one more channel."""

    upsampling: ClassVar[dict[str, Any]] = {"mode": "nearest"}

    def __init__(self, channels: int, large: bool = False) -> None:
        super().__init__()
        self.large = large
        self.match = nn.Conv2d(channels + large, max(channels // 2, 1), 1)
        self.value = nn.Conv2d(channels + large, 1, 1)
        self._init()

    def logits(self, own: Tensor, partner: Tensor, own_weight: Tensor) -> Tensor:
        if self.large:
            own, partner = (
                torch.cat([features, weight.expand_as(features[:, :1])], dim=1)
                for features, weight in ((own, own_weight), (partner, 1 - own_weight))
            )
        return cross_attention(self.match(own), self.match(partner), self.value(partner))


class SAMixBlock(MixBlock):
    """Query and key see both images, which are scaled by the label weights first; deeper values; smooth masks."""

    upsampling: ClassVar[dict[str, Any]] = {"mode": "bilinear", "align_corners": False}

    def __init__(self, channels: int, large: bool = False) -> None:
        super().__init__()
        self.large = large
        width = max(channels // 2, 1)
        self.query, self.key = (nn.Conv2d(2 * channels, width, 1) for _ in range(2))
        self.value = nn.Sequential(
            nn.Conv2d(channels, width, 1), nn.BatchNorm2d(width), nn.ELU(), nn.Conv2d(width, 1, 1, bias=False)
        )
        self._init()

    def logits(self, own: Tensor, partner: Tensor, own_weight: Tensor) -> Tensor:
        scale = own_weight if self.large else residual_embedding(own_weight)
        own, partner = own * (1 + scale), partner * (2 - scale)
        both = torch.cat([own, partner], dim=1)
        return cross_attention(self.query(both), self.key(both), self.value(partner))
